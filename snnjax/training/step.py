"""Training step and evaluation step as pure functions, not yet jitted.

    (program, state, batch) -> (state, metrics)

All inputs of a step are arguments, so a replay gives the same bits. Statistics are outputs of the
forward pass and enter the state exactly once, under any memory strategy.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import PartitionSpec

from snnjax import losses, metrics, nn, readout
from snnjax.data import Batch
from snnjax.ops.rounding import narrow, widen
from snnjax.training._loss_scaling import is_overflow, next_scale
from snnjax.training._objective import gradient, per_example, shard_over_batch
from snnjax.training._watch import data_places, neuron_places, tree_place, watch
from snnjax.training.state import Program, TrainState
from snnjax.typing import Array, PyTree

__all__ = ["EvalMetrics", "TrainMetrics", "eval_step", "train_step"]


class TrainMetrics(NamedTuple):
    """Metrics of a training step, scalars.

    Attributes:
        loss: Mean over the batch.
        metrics: Means of the task's metrics over the batch by name, before the update; under mixup
            with respect to the target of the larger share.
        gradient_norm: Global norm, before clipping.
        learning_rate: Learning rate of this step.
        finite: True if loss and gradient are finite, and inputs, targets and membranes, too;
            otherwise the state was left unchanged.
        stream: Peak of the reversible streams as a share of their bound, 0 without streams; from 1
            on the gradient is not exact, and the state was left unchanged.
        loss_scale: Factor of this step's loss, in float16; `()` elsewhere.
        watch: First example that is not finite, by place.
    """

    loss: Array
    metrics: dict[str, Array]
    gradient_norm: Array
    learning_rate: Array
    finite: Array
    stream: Array
    loss_scale: Any = ()
    watch: Any = ()

    def means(self) -> dict[str, Any]:
        """Values to average over the steps of a record."""
        return {"loss": self.loss, **self.metrics, "gradient_norm": self.gradient_norm}

    def latest(self) -> dict[str, Any]:
        """Values that a record takes from its last step."""
        scale = {} if isinstance(self.loss_scale, tuple) else {"loss_scale": self.loss_scale}
        return {"learning_rate": self.learning_rate, **scale}


class EvalMetrics(NamedTuple):
    """Sums over a batch, to add over batches and to divide by `weight`.

    Attributes:
        loss: Sum of the losses.
        metrics: Sums of the task's metrics by name; each clip counts as its recording.
        weight: Number of examples without padding.
        rates: Layer name to firing rate times `weight`; empty unless requested.
        analog: Layer name to True if its outputs are not all 0 or 1, so that it has no rate.
        neurons: Layer name to number of neurons, equal in every batch and not a sum.
        watch: First example that is not finite, by place, and no sum.
    """

    loss: Array
    metrics: dict[str, Array]
    weight: Array
    rates: dict[str, Array]
    analog: dict[str, Array]
    neurons: dict[str, Array]
    watch: Any = ()


def train_step(
    program: Program, state: TrainState, batch: Batch
) -> tuple[TrainState, TrainMetrics]:
    """Updates the parameters once.

    Args:
        program: Static arguments; bind them, then compile by `sharding.compile_step`.
        state: State from `initialize` or from the previous step.
        batch: Batch number `state.position` of the loader.

    Returns:
        The state after the update, and metrics. If the loss or the gradient is not finite, or an
        input, target or membrane, the state is unchanged except for `finite`; under
        `not_finite="skip"`, or if a smaller loss scale may correct it, only the update is skipped.
        A stream beyond its bound is never skipped.
    """
    grads, loss, values, statistics, stream, watched = gradient(program, state, batch)
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads)))
    # Optax raises floats to the integer number of steps, which strict promotion forbids.
    with jax.numpy_dtype_promotion("standard"):
        rate = jnp.asarray(program.schedule(state.step), jnp.float32)
        # Updates are added in float32: bfloat16 parameters would lose the small ones in the sum
        # itself.
        wide = jax.tree.map(widen, state.params)
        updates, slots = program.optimizer.update(grads, state.optimizer, wide)
        params = optax.apply_updates(wide, updates)
    params = jax.tree.map(lambda new, old: narrow(new, old.dtype), params, state.params)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    scale = next_scale(state.loss_scale, finite)
    # No scale of the loss corrects a membrane or the data.
    overflow = is_overflow(state.loss_scale, finite) & watched.clean
    finite = finite & watched.clean
    counted = state._replace(step=state.step + 1, position=state.position + 1, loss_scale=scale)
    after = counted._replace(params=params, optimizer=slots, statistics=statistics)
    # Selected by `where` on the device, since the host learns of the fault some steps later.
    good = state.finite & finite & (stream < 1)
    kept = _where(good, after, state)
    skips = program.experiment.not_finite == "skip"
    if skips or state.loss_scale:
        left_out = ~finite if skips else overflow
        # A NaN stream follows from a NaN loss and is skipped with it.
        passed = state.finite & left_out & ~(stream >= 1)
        kept, good = _where(passed, counted, kept), good | passed
    factor = state.loss_scale.scale if state.loss_scale else ()
    return kept._replace(finite=good), TrainMetrics(
        loss, values, norm, rate, finite, stream, factor, watched
    )


def _where(condition: Array, new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda n, o: jnp.where(condition, n, o), new, old)


def eval_step(
    program: Program, state: TrainState, batch: Batch, *, rates: bool = False
) -> EvalMetrics:
    """Sums of the loss, the metrics and, on request, the firing rates over a batch.

    Args:
        program: Static arguments.
        state: State with the parameters and running statistics.
        batch: Batch of a loader; padding has weight 0.
        rates: Measures the firing rate of every layer.
    """
    # No key: evaluation is not augmented, and a random code uses its fixed key.
    frames = program.experiment.encode(program.experiment, batch.inputs, None)
    state, evaluate = state._replace(optimizer=()), functools.partial(_evaluate, rates=rates)
    if not program.axes:
        return evaluate(program, state, frames, batch)
    cut = PartitionSpec(program.axes)
    specs = (PartitionSpec(), PartitionSpec(None, program.axes), cut)
    return shard_over_batch(program, evaluate, specs)(state, frames, batch)


def _evaluate(
    program: Program, state: TrainState, frames: Array, batch: Batch, *, rates: bool
) -> EvalMetrics:
    network, task = program.network(state), program.task
    start = network.initial_state(len(batch.labels), statistics=state.statistics)
    targets, lengths, weights = batch.labels, batch.lengths, batch.weights
    taps = ("rates",) if rates else ()
    outputs, aux = network(frames, start, training=False, taps=taps, lengths=lengths)
    values = per_example(task, "loss", outputs, targets, lengths)
    predictions = task.predict(outputs, lengths=lengths)
    scores = per_example(task, "evaluation_metrics", predictions, targets, lengths)
    weight = weights.sum()
    firing = metrics.firing_rates(aux.taps, weights=weights, lengths=lengths) if rates else {}
    watched = watch(
        [
            *tree_place("parameters", (state.params, state.constants)),
            *tree_place("statistics", state.statistics),
            *data_places(batch, frames),
            *neuron_places(network, len(batch.labels), aux),
        ],
        len(batch.labels),
        weights=weights,
    )
    sums = EvalMetrics(
        losses.mean(values, weights=weights) * weight,
        # A NaN of a padded example times its weight of 0 would still be NaN.
        {name: jnp.sum(jnp.where(weights == 0, 0, v) * weights) for name, v in scores.items()},
        weight,
        {name: rate * weight for name, rate in firing.items()},
        {
            name: _analog(kinds["analog"], lengths).astype(jnp.int32)
            for name, kinds in aux.taps.items()
        },
        {},
    )
    if program.axes:
        # Booleans have no sum: `analog` is counted here and compared below.
        sums = lax.psum(sums, program.axes)
    return sums._replace(
        watch=watched.across(program.axes, len(batch.labels)),
        analog={name: count > 0 for name, count in sums.analog.items()},
        neurons=_neurons(network, frames, start) if rates else {},
    )


def _analog(marks: Array, lengths: Array | None) -> Array:
    """True if a mark `[T, B]` of a valid timestep is."""
    return marks.any() if lengths is None else (marks & readout.mask(lengths, len(marks))).any()


def _neurons(network: nn.Network, frames: Array, start: nn.State) -> dict[str, Array]:
    """Number of neurons of each layer, from shapes alone."""

    def spikes(network, frames, state):
        return network(frames, state, training=False, taps=("spikes",))[1].taps

    # Without computing anything: only the shapes of the spikes count.
    taps = jax.eval_shape(spikes, network, frames, start)
    counts = {name: math.prod(kinds["spikes"].shape[2:]) for name, kinds in taps.items()}
    return {name: jnp.asarray(count, jnp.int32) for name, count in counts.items()}
