"""The differentiated function of a training step, and its gradient over parts and devices.

    g = sum_i w_i g_i,      w_i the share of the example weights in part i

A batch may be cut into `accumulate` parts that are differentiated in turn, in the memory of one
part (`memory.accumulate`). Each part has its own batch norm statistics, as under `norm_groups`; the
running statistics are updated once, towards their mean.

On a mesh whose devices share a batch, each device differentiates its own examples under
`jax.shard_map`: the program of one device, under any memory strategy. Devices exchange the sum
above and the statistics of layers (`nn.data_parallel.with_data_axes`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from snnjax import learning, losses, memory, nn
from snnjax.data import Batch
from snnjax.training import _mixup as mixup
from snnjax.training._loss_scaling import scale_loss, unscale_gradients
from snnjax.training._watch import data_places, neuron_places, watch
from snnjax.training.errors import ExperimentError
from snnjax.training.sharding import batch_shares
from snnjax.training.state import Program, TrainState
from snnjax.training.task import Task
from snnjax.typing import Array, Key, PyTree

__all__ = [
    "Gradient",
    "NetworkInputs",
    "encode_batch",
    "grad_with_infos",
    "gradient",
    "objective",
    "per_example",
    "shard_over_batch",
]


class NetworkInputs(NamedTuple):
    """Inputs of the network in a training step.

    Attributes:
        frames: Encoded inputs, `[T, B, *input_shape]`, blended under mixup.
        share: Share of an example's own target in its loss, a scalar; None without mixup.
        partners: Targets `[B, ...]` of the other examples of the blends; None without mixup.
        key: Key of dropout.
    """

    frames: Array
    share: Array | None
    partners: Array | None
    key: Key


class Gradient(NamedTuple):
    """Gradient of a batch, with the loss, the metrics and the new statistics."""

    params: PyTree
    loss: Array
    metrics: dict[str, Array]
    statistics: PyTree
    stream: Any  # peak of the reversible streams, as a share of their bound
    watch: Any  # examples that are not finite, see `_watch`


def gradient(program: Program, state: TrainState, batch: Batch) -> Gradient:
    """Gradient of a batch, in the parts and on the devices of the program."""
    inputs = encode_batch(program, state, batch)
    # Slots are not needed here, and under `shard_map` they would be replicated.
    state = state._replace(optimizer=())
    if not program.axes:
        if program.experiment.accumulate == 1:
            return _part_gradient(program, state, inputs, batch, 1.0)
        return _accumulate(program, state, inputs, batch)
    # By hand: the compiler (GSPMD) would gather the batch on every device, since it cannot keep
    # `[T, B, ...] -> [T B, ...]` cut over B.
    cut, whole = PartitionSpec(program.axes), PartitionSpec()
    specs: Any = NetworkInputs(PartitionSpec(None, program.axes), whole, cut, whole)  # type: ignore[arg-type]
    return shard_over_batch(program, _accumulate, (whole, specs, cut))(state, inputs, batch)


def shard_over_batch(program: Program, function: Any, specs: Any) -> Any:
    """Maps `function(program, ...)` over the devices, each with its own examples.

    Args:
        program: Program of a mesh whose devices share a batch.
        function: Function of the program and the arguments, with equal results on every device.
        specs: `PartitionSpec` per argument, or trees of them.
    """
    mesh = program.mesh
    assert mesh is not None, "a program with axes has a mesh"
    # Channels cut over "model" are left to the compiler: only the batch is cut by hand.
    manual = set(program.axes if mesh.size > batch_shares(mesh) else mesh.axis_names)
    return jax.shard_map(
        functools.partial(function, program), mesh=mesh, in_specs=specs,
        out_specs=PartitionSpec(), axis_names=manual, check_vma=False,
    )  # fmt: skip


def _accumulate(
    program: Program, state: TrainState, inputs: NetworkInputs, batch: Batch
) -> Gradient:
    """Gradient of a batch as the sum over its parts, on this device and over all devices."""
    axes, parts = program.axes, program.experiment.accumulate
    # Of the whole batch: parts and devices may hold different weights of padding.
    weight = _psum(batch.weights.sum(), axes)

    def part(number: Any, frames: Array, partners: Any, batch: Batch) -> tuple[Gradient, PyTree]:
        # The key of the whole batch for a single part, so that accumulation off changes no number.
        key = inputs.key if parts == 1 else jax.random.fold_in(inputs.key, number)
        own, share = NetworkInputs(frames, inputs.share, partners, key), batch.weights.sum()
        grads = _part_gradient(program, state, own, batch, share / weight)
        # Rows, not addends: statistics are averaged over the parts, and of streams the peak counts.
        rows = grads.statistics, grads.stream, grads.watch.renumber(parts, number)
        return grads._replace(statistics=(), stream=(), watch=()), rows

    arguments = (inputs.frames, inputs.partners, batch)
    sums, (statistics, stream, watched) = memory.accumulate(part, parts, arguments, axes=(1, 0, 0))
    statistics = nn.data_parallel.pmean_statistics(nn.contract.mean_over_steps(statistics), axes)
    stream = lax.pmax(stream.max(), axes) if axes else stream.max()
    watched = watched.join().across(axes, len(batch.labels))
    return _psum(sums, axes)._replace(statistics=statistics, stream=stream, watch=watched)


def _part_gradient(
    program: Program, state: TrainState, inputs: NetworkInputs, batch: Batch, share: Any
) -> Gradient:
    """Contribution of a part with this share of the weights to the gradient of the batch."""
    network = program.network(state)

    def weighted(params: PyTree, own: TrainState):
        loss, (metrics, _, aux) = objective(params, program, own, inputs, batch)
        loss = share * loss
        metrics = {name: share * value for name, value in metrics.items()}
        stream = nn.contract.stream_use(aux.diagnostics)
        watched = watch(
            [*data_places(batch, inputs.frames), *neuron_places(network, len(batch.labels), aux)],
            len(batch.labels),
        )
        return scale_loss(loss, state.loss_scale), (loss, metrics, aux.statistics, stream, watched)

    grads, found, (loss, metrics, *rest) = grad_with_infos(weighted, state)
    metrics = metrics | {name: share * value for name, value in found.items()}
    return Gradient(unscale_gradients(grads, state.loss_scale), loss, metrics, *rest)


def grad_with_infos(
    function: Callable[[PyTree, TrainState], tuple[Array, Any]], state: TrainState
) -> tuple[PyTree, dict[str, Array], Any]:
    """Gradient of a loss, and the quality of the solvers of implicit derivatives.

    Args:
        function: `(params, state) -> (loss, auxiliary results)`.
        state: State with the parameters.

    Returns:
        Gradient of the parameters, `learning.equilibrium.info_metrics`, auxiliary results.
    """

    def with_infos(params: PyTree, infos: list[Any]):
        statistics = learning.equilibrium.with_solver_infos(state.statistics, infos)
        return function(params, state._replace(statistics=statistics))

    # The gradient of the parameters, not of the module, whose structure holds the memory strategy:
    # optimizer slots and checkpoints do not depend on it.
    infos = learning.equilibrium.solver_infos(state.statistics)
    # Solvers of an equilibrium run in the backward pass: their residuals leave as gradients.
    gradient = jax.grad(with_infos, argnums=(0, 1), has_aux=True)
    (grads, infos), rest = gradient(state.params, infos)
    return grads, learning.equilibrium.info_metrics(infos), rest


def _psum(tree: PyTree, axes: tuple[str, ...]) -> PyTree:
    return lax.psum(tree, axes) if axes else tree


def encode_batch(program: Program, state: TrainState, batch: Batch) -> NetworkInputs:
    """Encodes a batch for the next step, and blends it under mixup.

    Args:
        program: Static arguments of the step.
        state: State whose key and number of steps determine every draw.
        batch: Batch of the loader.

    Raises:
        ExperimentError: Mixup is on and the sequences have different lengths.
    """
    experiment, key = program.experiment, jax.random.fold_in(state.key, state.step)
    encode_key, network_key = jax.random.split(key)
    frames = experiment.encode(experiment, batch.inputs, encode_key)
    if not experiment.mixup:
        return NetworkInputs(frames, None, None, network_key)
    if batch.lengths is not None:
        raise ExperimentError(
            "mixup blends two sequences, which must be equally long: set mixup to 0, or leave "
            "lengths out of the batch"
        )
    # A third key, so that mixup leaves the draws of augmentation and dropout as they are.
    share = mixup.draw_share(jax.random.fold_in(key, 2), experiment, state.step, program.steps)
    blended = mixup.blend_frames(frames, share)
    return NetworkInputs(blended, share, batch.labels[::-1], network_key)


def objective(
    params: PyTree,
    program: Program,
    state: TrainState,
    inputs: NetworkInputs,
    batch: Batch,
    *,
    taps: tuple[str, ...] = (),
) -> tuple[Array, tuple[dict[str, Array], Array, nn.Aux]]:
    """Loss of a batch as a function of the parameters.

    Args:
        params: Parameters to differentiate by, in place of those of the state.
        program: Static arguments of the step.
        state: State with the constants and running statistics.
        inputs: Inputs of the network, from `encode_batch`.
        batch: Batch with targets, lengths and weights.
        taps: Values to record, see `nn.Network`.

    Returns:
        The loss; and the metrics (means over the batch), outputs `[T, B, K]` and `Aux` of the
        network.
    """
    network = nn.merge(program.graphdef, params, state.constants)
    # Membranes start at rest with every batch; statistics continue from the step before.
    start = network.initial_state(len(batch.labels), statistics=state.statistics)
    outputs, aux = network(
        inputs.frames, start, training=True, key=inputs.key, taps=taps, lengths=batch.lengths
    )
    task, targets = program.task, batch.labels
    values = per_example(task, "loss", outputs, targets, batch.lengths)
    if inputs.partners is not None and inputs.share is not None:
        partner_values = per_example(task, "loss", outputs, inputs.partners, batch.lengths)
        values = mixup.blend_losses(inputs.share, values, partner_values)
        # Metrics need one target: that of the larger share.
        targets = jnp.where(inputs.share >= 0.5, targets, inputs.partners)
    predictions = task.predict(outputs, lengths=batch.lengths)
    metrics = per_example(task, "metrics", predictions, targets, batch.lengths)
    means = {name: losses.mean(value, weights=batch.weights) for name, value in metrics.items()}
    return losses.mean(values, weights=batch.weights), (means, outputs, aux)


def per_example(task: Task, method: str, first: Array, targets: Array, lengths: Any) -> Any:
    """Loss or metrics of a task, with a check of their shape `[B]`.

    Raises:
        ExperimentError: The shape is another one.
    """
    values = getattr(task, method)(first, targets, lengths=lengths)
    # A mean over the batch would broadcast silently, with wrong weights for padding.
    for name, value in values.items() if isinstance(values, dict) else [("the loss", values)]:
        if value.shape != targets.shape[:1]:
            raise ExperimentError(
                f"{name} of {type(task).__name__} must be one number per example, "
                f"{list(targets.shape[:1])}, got {list(value.shape)}: do not take the mean over "
                "the batch"
            )
    return values
