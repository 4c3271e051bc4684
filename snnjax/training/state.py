"""The state of training as one pytree: saving it forgets nothing.

Batch `n` is a pure function of the seed and `n`, and the keys of step `n` are folded out of one
root key, so two numbers, `step` and `position`, replace generators and iterators.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from snnjax import nn
from snnjax.ops.rounding import widen
from snnjax.training.errors import ExperimentError, MeshError, user_code
from snnjax.training.experiment import Experiment, check_learning
from snnjax.training.loss_scaling import initial_scale
from snnjax.training.optimizer import with_clipping
from snnjax.training.sharding import batch_shares, shared_axes
from snnjax.training.task import Task
from snnjax.typing import Array, Key, PyTree

__all__ = ["Program", "TrainState", "initialize", "make_task", "wants_memory_scheduler"]


class TrainState(NamedTuple):
    """The state of training between two steps.

    Attributes:
        step: int32, updates done.
        position: int32, batches drawn from the loader: the number of the next one.
        params: Differentiated and optimised arrays, the network's `nnx.Param`s.
        constants: Other arrays of the network, such as fixed decays.
        optimizer: State of the optimizer.
        statistics: Running normalisation statistics, replaced exactly once per step.
        key: Root of all randomness of the run; step `n` uses `fold_in(key, n)`.
        finite: bool, True while every loss and gradient was finite; once it is False no step
            changes anything, so that the last good state is saved.
        loss_scale: `LossScale` in float16, else `()`.
    """

    step: Array
    position: Array
    params: PyTree
    constants: PyTree
    optimizer: PyTree
    statistics: PyTree
    key: Key
    finite: Array
    loss_scale: Any = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """Static arguments of `train_step`: all that stays fixed while training.

    Attributes:
        experiment: Its functions encode the inputs.
        task: Loss and metrics.
        graphdef: The network without its arrays.
        optimizer: Clipping and update rule.
        schedule: Step number to learning rate, for the metrics.
        steps: Steps of the whole run.
        mesh: Devices; None is one device, or the compiler's choice.
    """

    experiment: Experiment
    task: Task
    graphdef: Any
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    steps: int
    mesh: Mesh | None = None

    @property
    def axes(self) -> tuple[str, ...]:
        """Axes of the mesh along which several devices share a batch."""
        return shared_axes(self.mesh)

    def network(self, state: TrainState) -> nn.Network:
        """The network with the parameters of a state."""
        return nn.merge(self.graphdef, state.params, state.constants)


def initialize(
    experiment: Experiment, *, steps: int, mesh: Mesh | None = None
) -> tuple[Program, TrainState]:
    """Makes the network, the optimizer and the state before the first step.

    Args:
        experiment: Its `seed` decides every number.
        steps: Steps of the whole run, for the schedule.
        mesh: Devices that will share its batches; the state is the same on any.

    Returns:
        The program and the state.

    Raises:
        ExperimentError: A function of the experiment failed; the message names it.
        MeshError: The devices cannot share the groups of batch norm.
    """
    check_learning(experiment, "gradients")
    init_key, run_key = jax.random.split(jax.random.key(experiment.seed))
    task = make_task(experiment)
    with user_code("network(experiment, rngs)"):
        network = experiment.network(experiment, nnx.Rngs(init_key))
        if not isinstance(network, nn.Network):
            raise ExperimentError(
                f"network(experiment, rngs) must return an nn.Network, got {type(network).__name__}"
                ": wrap layers as nn.Network(nn.Sequential(...), input_shape)"
            )
    with user_code(f"the precision {experiment.precision!r}"):
        precision = nn.mixed_precision.parse_precision(experiment.precision)
        network = nn.with_precision(network, precision)
    if experiment.memory is not None:
        with user_code(f"the memory strategy {experiment.memory}"):
            network = nn.with_memory(network, experiment.memory)
    axes = shared_axes(mesh)
    if axes or experiment.norm_groups > 1:
        groups = _device_groups(experiment, batch_shares(mesh) if mesh is not None else 1)
        network = nn.data_parallel.with_data_axes(network, axes, norm_groups=groups)
    with user_code("the network"):
        graphdef, params, constants = nn.split(network)
        statistics = network.initial_state(1).statistics
    with user_code("schedule(experiment, steps)"):
        schedule = experiment.schedule(experiment, steps)
    with user_code("optimizer(experiment, schedule)"):
        rule = with_clipping(experiment.optimizer(experiment, schedule), experiment.clip_norm)
        slots = rule.init(jax.tree.map(widen, params))
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        position=jnp.zeros((), jnp.int32),
        params=params,
        constants=constants,
        optimizer=slots,
        statistics=statistics,
        key=run_key,
        finite=jnp.ones((), bool),
        loss_scale=initial_scale(precision),
    )
    return Program(experiment, task, graphdef, rule, schedule, steps, mesh), state


def make_task(experiment: Experiment) -> Task:
    """Task of an experiment.

    Raises:
        ExperimentError: `task(experiment)` failed, or returned something else.
    """
    with user_code("task(experiment)"):
        task = experiment.task(experiment)
    if not isinstance(task, Task):
        raise ExperimentError(
            f"task(experiment) must return a training.task.Task, got {type(task).__name__}: "
            "task=training.task.classification, or lambda experiment: MyTask()"
        )
    return task


def _device_groups(experiment: Experiment, devices: int) -> int | None:
    """Groups of batch norm on each device; None if statistics cross devices."""
    groups = experiment.norm_groups
    if groups == 1:
        return None
    if groups % devices:
        raise MeshError(
            f"{groups} groups of batch norm (norm_groups) cannot be shared evenly by {devices} "
            f"devices: choose 1, statistics of the whole batch, or a multiple of {devices}"
        )
    return groups // devices


def wants_memory_scheduler(program: Program, state: TrainState) -> bool:
    """True if a step should be compiled for the least memory.

    An explicit `memory_scheduler` decides; else the network, if its strategy saves memory so.
    """
    choice = program.experiment.memory_scheduler
    return nn.saves_memory(program.network(state)) if choice is None else choice
