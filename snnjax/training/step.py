"""One update and one evaluation, as pure functions that are not jitted here.

    (program, state, batch) -> (state, metrics)

Everything a step needs is an argument: replaying it gives the same bits. Statistics come out of
the forward pass and are put into the state once, here, whatever a memory strategy recomputed.
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

from snnjax import losses, metrics, nn
from snnjax.data import Batch
from snnjax.ops.rounding import narrow, widen
from snnjax.training.loss_scaling import after_step, overflowed
from snnjax.training.objective import gradient, judged, over_batch
from snnjax.training.state import Program, TrainState
from snnjax.typing import Array, PyTree

__all__ = ["EvalMetrics", "TrainMetrics", "eval_step", "train_step"]


class TrainMetrics(NamedTuple):
    """What a step tells, scalars.

    Attributes:
        loss: mean over the batch.
        accuracy: share of the batch whose readout is right, before the update; under mixup, the
            label that has the larger share.
        gradient_norm: global norm, before clipping.
        learning_rate: of this step.
        finite: whether loss and gradient are; if not, the state was left as it was.
        stream: share of its bound that a reversible stream used, 0 without one; from 1 on its
            gradient is not exact, and the state was left as it was.
        loss_scale: by which this step's loss was multiplied, in float16; nothing elsewhere.
    """

    loss: Array
    accuracy: Array
    gradient_norm: Array
    learning_rate: Array
    finite: Array
    stream: Array
    loss_scale: Any = ()


class EvalMetrics(NamedTuple):
    """Sums over a batch, to be added up over batches and divided by `weight`.

    Attributes:
        loss: sum of the losses.
        correct: examples whose readout is right; all clips of a recording count as its majority.
        weight: examples; padding counts 0.
        rates: layer name to firing rate times `weight`; empty unless asked for.
        analog: layer name to whether its outputs are not all 0 or 1, so that it has no rate.
        neurons: layer name to how many neurons it has: no sum, every batch says the same.
    """

    loss: Array
    correct: Array
    weight: Array
    rates: dict[str, Array]
    analog: dict[str, Array]
    neurons: dict[str, Array]


def train_step(
    program: Program, state: TrainState, batch: Batch
) -> tuple[TrainState, TrainMetrics]:
    """One update.

    Args:
        program: Static: close over it or bind it, then compile by `compile_step`.
        state: From `initialize`, or from the step before.
        batch: The loader's batch of number `state.position`.

    Returns:
        The state after the update, and metrics. Where the loss or the gradient is not finite, the
        state is returned as it was but for `finite`; under `not_finite="skip"`, or where a smaller
        loss scale may mend it, only the update is left out. A stream past its bound is never
        skipped.
    """
    graded, loss, accuracy, statistics, stream = gradient(program, state, batch)
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(graded)))
    # Optax counts steps in integers and raises floats to them: strict promotion is not for it.
    with jax.numpy_dtype_promotion("standard"):
        rate = jnp.asarray(program.schedule(state.step), jnp.float32)
        wide = jax.tree.map(widen, state.params)
        updates, slots = program.optimizer.update(graded, state.optimizer, wide)
        params = optax.apply_updates(wide, updates)
    params = jax.tree.map(lambda new, old: narrow(new, old.dtype), params, state.params)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    scale = after_step(state.loss_scale, finite)
    counted = state._replace(step=state.step + 1, position=state.position + 1, loss_scale=scale)
    after = counted._replace(params=params, optimizer=slots, statistics=statistics)
    good = state.finite & finite & (stream < 1)
    kept = _where(good, after, state)
    skips = program.experiment.not_finite == "skip"
    if skips or state.loss_scale:
        left_out = ~finite if skips else overflowed(state.loss_scale, finite)
        passed = state.finite & left_out & ~(stream >= 1)  # a stream of NaN was the loss' doing
        kept, good = _where(passed, counted, kept), good | passed
    told = state.loss_scale.scale if state.loss_scale else ()
    said = TrainMetrics(loss, accuracy, norm, rate, finite, stream, told)
    return kept._replace(finite=good), said


def _where(condition: Array, new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda n, o: jnp.where(condition, n, o), new, old)


def eval_step(
    program: Program, state: TrainState, batch: Batch, *, rates: bool = False
) -> EvalMetrics:
    """Sums of loss, right answers and, if asked for, firing rates over a batch.

    Args:
        program: Static.
        state: Its parameters and running statistics are used.
        batch: As a loader gives it; padding has weight 0.
        rates: Whether to look at the spikes of every layer.
    """
    frames = program.experiment.encode(program.experiment, batch.inputs, None)
    state, judge = state._replace(optimizer=()), functools.partial(_judge, rates=rates)
    if not program.axes:
        return judge(program, state, frames, batch)
    cut = PartitionSpec(program.axes)
    specs = (PartitionSpec(), PartitionSpec(None, program.axes), cut)
    return over_batch(program, judge, specs)(state, frames, batch)


def _judge(
    program: Program, state: TrainState, frames: Array, batch: Batch, *, rates: bool
) -> EvalMetrics:
    network = program.network(state)
    start = network.initial_state(len(batch.labels))._replace(statistics=state.statistics)
    outputs, aux = network(frames, start, training=False, taps=("rates",) if rates else ())
    values, logits = judged(program.experiment, outputs, batch.labels)
    weight, clips = batch.weights.sum(), program.experiment.clips
    accuracy = metrics.clip_accuracy(logits, batch.labels, clips=clips, weights=batch.weights)
    fired = {name: kinds["rates"] for name, kinds in aux.taps.items()}
    seen = metrics.firing_rates(fired, weights=batch.weights)
    sums = EvalMetrics(
        losses.mean(values, weights=batch.weights) * weight,
        jnp.round(accuracy * weight),
        weight,
        {name: rate * weight for name, rate in seen.items()},
        {name: kinds["analog"].any().astype(jnp.int32) for name, kinds in aux.taps.items()},
        {},
    )
    if program.axes:
        sums = lax.psum(sums, program.axes)
    return sums._replace(
        analog={name: count > 0 for name, count in sums.analog.items()},
        neurons=_neurons(network, frames, start) if rates else {},
    )


def _neurons(network: nn.Network, frames: Array, start: nn.State) -> dict[str, Array]:
    """How many neurons each layer has: a matter of shapes, nothing is computed."""
    look = lambda network, *given: network(*given, training=False, taps=("spikes",))[1].taps  # noqa: E731
    seen = jax.eval_shape(look, network, frames, start)
    counts = {name: math.prod(kinds["spikes"].shape[2:]) for name, kinds in seen.items()}
    return {name: jnp.asarray(count, jnp.int32) for name, count in counts.items()}
