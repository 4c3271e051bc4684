"""State of training as one pytree, and its initialisation.

A checkpoint of the state is complete: batch `n` is a pure function of the seed and `n`, and the
keys of step `n` are folded from one root key, so the numbers `step` and `position` take the place
of generators and iterators.
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
from snnjax.training._loss_scaling import initial_scale
from snnjax.training._parts import frozen_names, with_frozen_norms
from snnjax.training.errors import ExperimentError, MeshError, user_code
from snnjax.training.experiment import Experiment, check_learning
from snnjax.training.optimizer import with_clipping
from snnjax.training.sharding import batch_shares, shared_axes
from snnjax.training.task import Task
from snnjax.typing import Array, Key, PyTree

__all__ = ["Program", "TrainState", "initialize", "make_task", "wants_memory_scheduler"]


class TrainState(NamedTuple):
    """State of training between two steps.

    Attributes:
        step: int32, number of updates.
        position: int32, number of batches drawn, which is the number of the next one.
        params: Trained arrays, the network's `nnx.Param`s that are not frozen.
        constants: Other arrays of the network, such as fixed decays and frozen parameters.
        optimizer: State of the optimizer.
        statistics: Running normalisation statistics, replaced exactly once per step.
        key: Root key of the run; step `n` uses `fold_in(key, n)`.
        finite: bool, False from the first loss or gradient that is not finite; the state then no
            longer changes.
        loss_scale: `LossScale` in float16, else `()`.
    """

    step: Array
    position: Array
    params: PyTree
    constants: PyTree
    optimizer: PyTree
    statistics: PyTree
    key: Key
    # In the state, not on the host: steps are dispatched ahead, and the state to save is the last
    # good one.
    finite: Array
    loss_scale: Any = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """Static arguments of `train_step`.

    Attributes:
        experiment: Experiment, which encodes the inputs.
        task: Loss and metrics.
        graphdef: Network without its arrays.
        optimizer: Clipping and update rule.
        schedule: Function from the step number to the learning rate, for the metrics.
        steps: Number of steps of the whole run.
        mesh: Devices that share the batch; None is one device, or the compiler's choice.
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
        """Network with the parameters of a state."""
        return nn.merge(self.graphdef, state.params, state.constants)


def initialize(
    experiment: Experiment, *, steps: int, mesh: Mesh | None = None
) -> tuple[Program, TrainState]:
    """Makes the network, the optimizer and the initial state.

    Args:
        experiment: Experiment, whose `seed` determines every number.
        steps: Number of steps of the whole run, for the schedule.
        mesh: Devices that share the batches; the state does not depend on them.

    Returns:
        The program and the state.

    Raises:
        ExperimentError: A function of the experiment failed; the message names it.
        MeshError: The devices cannot share the groups of batch norm.
    """
    check_learning(experiment, "gradients")
    # Two keys: the initial weights do not depend on the number of draws in training.
    init_key, run_key = jax.random.split(jax.random.key(experiment.seed))
    task = make_task(experiment)
    with user_code("network(experiment, rngs)"):
        network = experiment.network(experiment, nnx.Rngs(init_key))
        if not isinstance(network, nn.Network):
            raise ExperimentError(
                f"network(experiment, rngs) must return an nn.Network, got {type(network).__name__}"
                ": wrap layers as nn.Network(nn.Sequential(...), input_shape)"
            )
    # Frozen parameters are constants: they take no gradient, no slots and no decay.
    frozen = frozen_names(network, experiment)
    if frozen:
        network = with_frozen_norms(network, frozen)
    with user_code(f"the precision {experiment.precision!r}"):
        precision = nn.mixed_precision.parse_precision(experiment.precision)
        # Precision before memory: a strategy is placed on the layers that will compute.
        network = nn.with_precision(network, precision)
    if experiment.memory is not None:
        with user_code(f"the memory strategy {experiment.memory}"):
            network = nn.with_memory(network, experiment.memory)
    axes = shared_axes(mesh)
    if axes or experiment.norm_groups > 1:
        groups = _device_groups(experiment, batch_shares(mesh) if mesh is not None else 1)
        network = nn.data_parallel.with_data_axes(network, axes, norm_groups=groups)
    with user_code("the network"):
        # The memory strategy is in the graphdef alone: gradients, slots and checkpoints are the
        # same under any.
        graphdef, params, constants = nn.split(network, frozen=frozen)
        statistics = network.initial_state(1).statistics
    with user_code("schedule(experiment, steps)"):
        schedule = experiment.schedule(experiment, steps)
    with user_code("optimizer(experiment, schedule)"):
        # Clipping is chained here, so that no rule of a user has to repeat it.
        rule = with_clipping(experiment.optimizer(experiment, schedule), experiment.clip_norm)
        # Slots of narrow parameters are kept in float32, or small updates would round to nothing.
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
        ExperimentError: `task(experiment)` failed or did not return a `Task`.
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
    """True if a step should be compiled for least memory.

    The field `memory_scheduler` decides, or if None the network's memory strategy.
    """
    choice = program.experiment.memory_scheduler
    return nn.saves_memory(program.network(state)) if choice is None else choice
