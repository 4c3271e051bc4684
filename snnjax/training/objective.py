"""What a step differentiates, and its gradient: of a whole batch, in parts, over devices.

    g = sum_i w_i g_i,      w_i the share of the weights in part i

A batch may be cut into `accumulate` parts, differentiated one after the other: the gradient of the
whole, in the memory of a part (`memory.accumulate`). Where batch norm takes statistics each part
has its own, as under `norm_groups`, and the running ones move once, towards their mean.

On a mesh whose devices share a batch, each differentiates its own examples under `jax.shard_map`:
the program of one device, whatever its memory strategy. Left to the compiler (GSPMD), folding time
into the batch, `[T, B, ...] -> [T B, ...]`, would gather the batch on every device. What crosses
devices is the sum above, and what layers say (`nn.with_data_axes`).
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec

from snnjax import losses, memory, metrics, nn
from snnjax.data import Batch
from snnjax.training import mixup
from snnjax.training.errors import ExperimentError
from snnjax.training.experiment import Experiment
from snnjax.training.loss_scaling import scaled, unscaled
from snnjax.training.sharding import shares
from snnjax.training.state import Program, TrainState
from snnjax.typing import Array, Key, PyTree

__all__ = ["Given", "given", "gradient", "judged", "objective", "over_batch"]


class Given(NamedTuple):
    """What a training step gives its network.

    Attributes:
        frames: encoded inputs, `[T, B, *input_shape]`, blended under mixup.
        share: of an example's own label in its loss, a scalar, see `training.mixup`; None is all.
        others: labels `[B]` of what the examples were blended with; None where they were not.
        key: for dropout.
    """

    frames: Array
    share: Array | None
    others: Array | None
    key: Key


class Graded(NamedTuple):
    """The gradient, and what came with it: loss, accuracy and statistics."""

    gradient: PyTree
    loss: Array
    accuracy: Array
    statistics: PyTree
    stream: Any  # share of its bound that a reversible stream used


def gradient(program: Program, state: TrainState, batch: Batch) -> Graded:
    """The gradient of a batch, in as many parts and on as many devices as the program has."""
    shown = given(program, state, batch)
    state = state._replace(optimizer=())
    if not program.axes:
        if program.experiment.accumulate == 1:
            return _of(program, state, shown, batch, 1.0)
        return _summed(program, state, shown, batch)
    cut, whole = PartitionSpec(program.axes), PartitionSpec()
    spread: Any = Given(PartitionSpec(None, program.axes), whole, cut, whole)  # type: ignore[arg-type]
    return over_batch(program, _summed, (whole, spread, cut))(state, shown, batch)


def over_batch(program: Program, function: Any, specs: Any) -> Any:
    """`function(program, ...)` on each device's own examples; what it returns is everywhere.

    Args:
        program: Its mesh has several devices that share a batch.
        function: Takes the program and what `specs` cut.
        specs: A `PartitionSpec` per argument, or trees of them.
    """
    mesh = program.mesh
    assert mesh is not None, "a program with axes has a mesh"
    # Where channels are cut too, the compiler sees to that: only the batch is cut by hand.
    by_hand = set(program.axes if mesh.size > shares(mesh) else mesh.axis_names)
    return jax.shard_map(
        functools.partial(function, program), mesh=mesh, in_specs=specs,
        out_specs=PartitionSpec(), axis_names=by_hand, check_vma=False,
    )  # fmt: skip


def _summed(program: Program, state: TrainState, shown: Given, batch: Batch) -> Graded:
    """The gradient of a batch as the sum of those of its parts, on this device and on all."""
    axes, parts = program.axes, program.experiment.accumulate
    whole = _over(batch.weights.sum(), axes)

    def part(number: Any, frames: Array, others: Any, batch: Batch) -> tuple[Graded, PyTree]:
        key = shown.key if parts == 1 else jax.random.fold_in(shown.key, number)
        given, share = Given(frames, shown.share, others, key), batch.weights.sum() / whole
        graded = _of(program, state, given, batch, share)
        return graded._replace(statistics=(), stream=()), graded[-2:]

    whole_batch = (shown.frames, shown.others, batch)
    sums, (statistics, stream) = memory.accumulate(part, parts, whole_batch, axes=(1, 0, 0))
    statistics = nn.pmean_statistics(nn.mean_over_steps(statistics), axes)
    stream = lax.pmax(stream.max(), axes) if axes else stream.max()
    return _over(sums, axes)._replace(statistics=statistics, stream=stream)


def _of(program: Program, state: TrainState, shown: Given, batch: Batch, share: Any) -> Graded:
    """What a part adds to the whole, `share` being its part of the weights."""

    def weighed(params: PyTree):
        loss, (accuracy, _, aux) = objective(params, program, state, shown, batch)
        loss = share * loss
        stream = nn.stream_use(aux.diagnostics)
        return scaled(loss, state.loss_scale), (loss, share * accuracy, aux.statistics, stream)

    found, (loss, *rest) = jax.grad(weighed, has_aux=True)(state.params)
    return Graded(unscaled(found, state.loss_scale), loss, *rest)


def _over(tree: PyTree, axes: tuple[str, ...]) -> PyTree:
    return lax.psum(tree, axes) if axes else tree


def given(program: Program, state: TrainState, batch: Batch) -> Given:
    """Encodes a batch for the step that comes next, and blends it where mixup is on.

    Args:
        program: Static.
        state: Its key and its number of steps decide every draw.
        batch: The loader's batch.
    """
    experiment, key = program.experiment, jax.random.fold_in(state.key, state.step)
    encode_key, network_key = jax.random.split(key)
    frames = experiment.encode(experiment, batch.inputs, encode_key)
    if not experiment.mixup:
        return Given(frames, None, None, network_key)
    # A third key beside the two, so that mixup leaves augmentation and dropout as they were.
    share = mixup.share(jax.random.fold_in(key, 2), experiment, state.step, program.steps)
    return Given(mixup.mix(frames, share), share, batch.labels[::-1], network_key)


def objective(
    params: PyTree,
    program: Program,
    state: TrainState,
    shown: Given,
    batch: Batch,
    *,
    taps: tuple[str, ...] = (),
) -> tuple[Array, tuple[Array, Array, nn.Aux]]:
    """What a step differentiates.

    Args:
        params: Differentiated, in place of those of the state.
        program: Static.
        state: Its constants and running statistics are used.
        shown: What the network gets, and how the labels are blended.
        batch: Its labels and weights are used.
        taps: What to look at, see `nn.Network`.

    Returns:
        The loss, and the accuracy, the outputs `[T, B, K]` and what else left the network.
    """
    network = nnx.merge(program.graphdef, params, state.constants)
    # Membranes start at rest with every batch; statistics go on from the step before.
    start = network.initial_state(len(batch.labels))._replace(statistics=state.statistics)
    outputs, aux = network(shown.frames, start, training=True, key=shown.key, taps=taps)
    values, logits = judged(program.experiment, outputs, batch.labels)
    labels = batch.labels
    if shown.others is not None and shown.share is not None:
        others, _ = judged(program.experiment, outputs, shown.others)
        values = mixup.blend(shown.share, values, others)
        labels = jnp.where(shown.share >= 0.5, labels, shown.others)
    accuracy = metrics.accuracy(logits, labels, weights=batch.weights)
    return losses.mean(values, weights=batch.weights), (accuracy, outputs, aux)


def judged(experiment: Experiment, outputs: Array, labels: Array) -> tuple[Array, Array]:
    """Losses `[B]` and logits `[B, K]` of outputs `[T, B, K]`."""
    logits = experiment.readout(outputs)
    if experiment.loss is None:
        smoothing = experiment.label_smoothing
        values = losses.cross_entropy(logits, labels, label_smoothing=smoothing)
    else:
        values = experiment.loss(experiment, outputs, labels)
    if values.shape != labels.shape:
        raise ExperimentError(
            f"loss(experiment, outputs, labels) must give one number per example, "
            f"{list(labels.shape)}, got {list(values.shape)}: do not take the mean over the batch"
        )
    return values, logits
