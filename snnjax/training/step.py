"""One update and one evaluation, as pure functions that are not jitted here.

    (program, state, batch) -> (state, metrics)

Everything a step needs is an argument: replaying it gives the same bits. Statistics come out of
the forward pass and are put into the state once, here, whatever a memory strategy recomputed.
Examples are blended by `training.mixup` where the experiment asks for it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from snnjax import losses, metrics, nn
from snnjax.data import Batch
from snnjax.training import mixup
from snnjax.training.errors import ExperimentError
from snnjax.training.experiment import Experiment
from snnjax.training.state import Program, TrainState
from snnjax.typing import Array, Key, PyTree

__all__ = ["EvalMetrics", "Given", "TrainMetrics", "eval_step", "given", "objective", "train_step"]


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
    """

    loss: Array
    accuracy: Array
    gradient_norm: Array
    learning_rate: Array
    finite: Array
    stream: Array


class Given(NamedTuple):
    """What a training step gives its network.

    Attributes:
        frames: encoded inputs, `[T, B, *input_shape]`, blended under mixup.
        share: of an example's own label in its loss, a scalar, see `training.mixup`; None is all.
        key: for dropout.
    """

    frames: Array
    share: Array | None
    key: Key


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
        state is returned as it was but for `finite`.
    """
    frames, share, key = given(program, state, batch)
    graded = jax.value_and_grad(objective, has_aux=True)
    (loss, (accuracy, _, aux)), gradient = graded(
        state.params, program, state, frames, batch, key, share=share
    )
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(gradient)))
    # Optax counts steps in integers and raises floats to them: strict promotion is not for it.
    with jax.numpy_dtype_promotion("standard"):
        rate = jnp.asarray(program.schedule(state.step), jnp.float32)
        updates, slots = program.optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
    after = state._replace(
        step=state.step + 1,
        position=state.position + 1,
        params=params,
        optimizer=slots,
        statistics=aux.statistics,
    )
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    stream = nn.stream_use(aux.statistics)
    good = state.finite & finite & (stream < 1)
    kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), after, state)
    return kept._replace(finite=good), TrainMetrics(loss, accuracy, norm, rate, finite, stream)


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
        return Given(frames, None, network_key)
    # A third key beside the two, so that mixup leaves augmentation and dropout as they were.
    share = mixup.share(jax.random.fold_in(key, 2), experiment, state.step, program.steps)
    return Given(mixup.mix(frames, share), share, network_key)


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
    network = program.network(state)
    start = network.initial_state(len(batch.labels))._replace(statistics=state.statistics)
    outputs, aux = network(frames, start, training=False, taps=("rates",) if rates else ())
    values, logits = _judge(program.experiment, outputs, batch.labels)
    weight, clips = batch.weights.sum(), program.experiment.clips
    accuracy = metrics.clip_accuracy(logits, batch.labels, clips=clips, weights=batch.weights)
    fired = {name: kinds["rates"] for name, kinds in aux.taps.items()}
    seen = metrics.firing_rates(fired, weights=batch.weights)
    return EvalMetrics(
        losses.mean(values, weights=batch.weights) * weight,
        jnp.round(accuracy * weight),
        weight,
        {name: rate * weight for name, rate in seen.items()},
        {name: kinds["analog"].any() for name, kinds in aux.taps.items()},
        _neurons(network, frames, start) if rates else {},
    )


def _neurons(network: nn.Network, frames: Array, start: nn.State) -> dict[str, Array]:
    """How many neurons each layer has: a matter of shapes, nothing is computed."""
    look = lambda network, *given: network(*given, training=False, taps=("spikes",))[1].taps  # noqa: E731
    seen = jax.eval_shape(look, network, frames, start)
    counts = {name: math.prod(kinds["spikes"].shape[2:]) for name, kinds in seen.items()}
    return {name: jnp.asarray(count, jnp.int32) for name, count in counts.items()}


def objective(
    params: PyTree,
    program: Program,
    state: TrainState,
    frames: Array,
    batch: Batch,
    key: Key,
    *,
    share: Array | None = None,
    taps: tuple[str, ...] = (),
) -> tuple[Array, tuple[Array, Array, nn.Aux]]:
    """What a step differentiates.

    Args:
        params: Differentiated, in place of those of the state.
        program: Static.
        state: Its constants and running statistics are used.
        frames: Encoded inputs, `[T, B, *input_shape]`.
        batch: Its labels and weights are used.
        key: For dropout.
        share: Of the labels in the loss, see `Given`; the rest goes to those of the batch reversed.
        taps: What to look at, see `nn.Network`.

    Returns:
        The loss, and the accuracy, the outputs `[T, B, K]` and what else left the network.
    """
    network = nnx.merge(program.graphdef, params, state.constants)
    # Membranes start at rest with every batch; statistics go on from the step before.
    start = network.initial_state(len(batch.labels))._replace(statistics=state.statistics)
    outputs, aux = network(frames, start, training=True, key=key, taps=taps)
    values, logits = _judge(program.experiment, outputs, batch.labels)
    labels = batch.labels
    if share is not None:
        others, _ = _judge(program.experiment, outputs, labels[::-1])
        values = mixup.blend(share, values, others)
        labels = jnp.where(share >= 0.5, labels, labels[::-1])
    accuracy = metrics.accuracy(logits, labels, weights=batch.weights)
    return losses.mean(values, weights=batch.weights), (accuracy, outputs, aux)


def _judge(experiment: Experiment, outputs: Array, labels: Array) -> tuple[Array, Array]:
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
