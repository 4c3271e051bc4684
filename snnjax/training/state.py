"""Everything that changes while training, as one pytree: save it and nothing is forgotten.

Batch `n` is a pure function of the seed and `n`, and the keys of step `n` are folded out of one
root key, so that two numbers, `step` and `position`, stand for generators and iterators.
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
from snnjax.training.errors import ExperimentError, MeshError, calling
from snnjax.training.experiment import Experiment
from snnjax.training.loss_scaling import initial_scale
from snnjax.training.optimizer import clipped
from snnjax.training.sharding import shared_axes, shares
from snnjax.typing import Array, Key, PyTree

__all__ = ["Program", "TrainState", "count", "initialize", "wants_memory_scheduler"]


class TrainState(NamedTuple):
    """The state of training between two steps.

    Attributes:
        step: int32, updates done.
        position: int32, batches drawn of the loader: the number of the next one.
        params: the network's parameters, differentiated and optimised; see `nn.split`.
        constants: the network's other arrays, such as fixed decays.
        optimizer: the optimizer's state.
        statistics: running normalisation statistics, replaced exactly once per step.
        key: the root of all randomness of the run; step `n` uses `fold_in(key, n)`.
        finite: bool, whether every loss and gradient so far was finite; once it is False no step
            changes anything any more, so that what is saved is the last good state.
        loss_scale: `training.precision.LossScale` in float16, else nothing.
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
    """What stays fixed while training: the static arguments of `train_step`.

    Attributes:
        experiment: its functions encode, read out and judge.
        graphdef: the network without its arrays.
        optimizer: clipping and update rule.
        schedule: step to learning rate, for the metrics.
        steps: of the whole run.
        mesh: on which it runs; None is one device, or whatever the compiler makes of it.
    """

    experiment: Experiment
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
        mesh: The devices that will share its batches; the state is the same on any.

    Returns:
        The program and the state.

    Raises:
        ExperimentError: One of the experiment's functions failed; it says which.
        MeshError: Groups of batch norm cannot be shared by the devices.
    """
    init_key, run_key = jax.random.split(jax.random.key(experiment.seed))
    with calling("network(experiment, rngs)"):
        network = experiment.network(experiment, nnx.Rngs(init_key))
        if not isinstance(network, nn.Network):
            raise ExperimentError(
                f"network(experiment, rngs) must return an nn.Network, got {type(network).__name__}"
                ": wrap layers as nn.Network(nn.Sequential(...), input_shape)"
            )
    with calling(f"the precision {experiment.precision!r}"):
        precision = nn.parse_precision(experiment.precision)
        network = nn.with_precision(network, precision)
    if experiment.memory is not None:
        with calling(f"the memory strategy {experiment.memory}"):
            network = nn.with_memory(network, experiment.memory)
    axes = shared_axes(mesh)
    if axes or experiment.norm_groups > 1:
        groups = _own_groups(experiment, shares(mesh) if mesh is not None else 1)
        network = nn.with_data_axes(network, axes, norm_groups=groups)
    with calling("the network"):
        graphdef, params, constants = nn.split(network)
        statistics = network.initial_state(1).statistics
    with calling("schedule(experiment, steps)"):
        schedule = experiment.schedule(experiment, steps)
    with calling("optimizer(experiment, schedule)"):
        rule = clipped(experiment.optimizer(experiment, schedule), experiment.clip_norm)
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
    return Program(experiment, graphdef, rule, schedule, steps, mesh), state


def _own_groups(experiment: Experiment, devices: int) -> int | None:
    """Groups of batch norm on each device; None where statistics cross devices."""
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
    """Whether to compile for the least memory: as asked for, or where the network saves it."""
    asked = program.experiment.memory_scheduler
    return nn.saves_memory(program.network(state)) if asked is None else asked


def count(params: PyTree) -> int:
    """The number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
