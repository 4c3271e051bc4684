"""Losses per example, `[B]`, and their mean over a batch that may be padded.

    cross_entropy            of logits [B, K], after a readout
    sigmoid_cross_entropy    of logits [B, K] of labels that do not exclude each other
    rate_cross_entropy       of the time mean of outputs [T, B, K]
    temporal_cross_entropy   at every timestep (TET)
    rate_mse                 firing rates against target rates
    distance                 Euclidean distance to a real target, at every timestep from one on
    spike_rate_penalty       firing rates outside a band

The batch axis remains until `mean`, since the last batch of an evaluation is padded with examples
of weight 0. An example with a NaN among its outputs has a loss of NaN; its outputs get no gradient,
which would be NaN times a weight of 0, and `mean` turns a NaN that counts into a gradient of NaN.
Losses are computed in float32 or wider, whatever the dtype of the outputs. Labels and weights are
checked if they are concrete, that is not under jit. With `lengths`, losses of outputs `[T, B, K]`
ignore the padding of shorter sequences.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from snnjax.ops.arguments import as_floating, check_counts, check_numbers, is_traced
from snnjax.ops.padding import mask, match_axes, time_mean
from snnjax.typing import Array


def mean(values: Array, *, weights: Array | None = None) -> Array:
    """Weighted mean over a batch, in which padding has weight 0.

        sum_b w[b] v[b] / sum_b w[b],  0 if all weights are 0

    Args:
        values: `[B]`, losses per example.
        weights: `[B]`, 1 for an example, 0 for padding, or any share; None is all 1. Values of
            weight 0 are ignored, also NaN, and have a gradient of 0.

    Returns:
        A scalar.

    Raises:
        TypeError: If `values` are not floating point.
        ValueError: If `weights` do not have the shape of `values`, or a known weight is negative
            or not finite.
    """
    values = as_floating("losses.mean", jnp.asarray(values))
    if weights is None:
        return _poison(jnp.mean(values))
    weights = jnp.asarray(weights)
    if weights.shape != values.shape:
        raise ValueError(
            f"weights must be one number per example, {list(values.shape)}, got "
            f"{list(weights.shape)}"
        )
    check_numbers("losses.mean", least=0, weights=weights)
    weights = weights.astype(values.dtype)
    # where before the product: 0 * NaN would be NaN, in the value and in the gradient.
    summed = jnp.sum(jnp.where(weights == 0, 0, values) * weights)
    norm = jnp.sum(weights)
    return _poison(summed / jnp.where(norm == 0, 1, norm))


def cross_entropy(logits: Array, labels: Array, *, label_smoothing: float = 0.0) -> Array:
    """Softmax cross entropy of logits, after a readout.

        L = -sum_k q[k] log softmax(logits)[k],  q = (1 - a) onehot(label) + a / K

    Args:
        logits: `[B, K]`, floating.
        labels: `[B]`, integers in [0, K).
        label_smoothing: a, in [0, 1).

    Returns:
        `[B]`, nats.

    Raises:
        TypeError: If `logits` are not floating point, or `labels` not integers.
        ValueError: If the shapes do not fit, a concrete label is outside [0, K), or
            `label_smoothing` is outside [0, 1).
    """
    logits = _validate("logits", logits, rank=2, letters="[B, K]")
    labels = _labels(labels, logits)
    check_numbers(
        "losses.cross_entropy", least=0, below=1, usual=0.1, label_smoothing=label_smoothing
    )
    return _defined(logits, lambda x: _cross_entropy(x, labels, label_smoothing))


def sigmoid_cross_entropy(logits: Array, targets: Array) -> Array:
    """Mean sigmoid cross entropy over K labels that do not exclude each other (multi-label).

        L = -1/K sum_k (q[k] log s(x[k]) + (1 - q[k]) log(1 - s(x[k]))),   s(x) = 1 / (1 + e^-x)

    Args:
        logits: x, `[B, K]`, floating.
        targets: q, `[B, K]`, floating, 1 where a label applies and 0 elsewhere, or its probability.

    Returns:
        `[B]`, nats.

    Raises:
        TypeError: If `logits` or `targets` are not floating point.
        ValueError: If the shapes differ, or a concrete target is outside [0, 1].
    """
    logits = _validate("logits", logits, rank=2, letters="[B, K]")
    targets = as_floating("losses.sigmoid_cross_entropy", jnp.asarray(targets))
    if targets.shape != logits.shape:
        raise ValueError(
            f"targets must be {list(logits.shape)}, one number per logit, got "
            f"{list(targets.shape)}: single classes [B] take losses.cross_entropy"
        )
    check_numbers("losses.sigmoid_cross_entropy", least=0, most=1, targets=targets)
    targets = targets.astype(logits.dtype)
    return _defined(logits, lambda x: optax.sigmoid_binary_cross_entropy(x, targets).mean(-1))


def rate_cross_entropy(
    outputs: Array,
    labels: Array,
    *,
    label_smoothing: float = 0.0,
    lengths: Array | None = None,
) -> Array:
    """Cross entropy of the time mean: one answer for the whole window.

        L = CE(1/T sum_t o[t], label)

    Args:
        outputs: `[T, B, K]`, floating: spikes, membrane potentials or logits per timestep.
        labels: `[B]`, integers in [0, K).
        label_smoothing: Share of the target spread evenly over the classes, in [0, 1).
        lengths: `[B]` integers, valid timesteps of padded sequences; None is all T.

    Returns:
        `[B]`, nats.

    Raises:
        TypeError: If `outputs` are not floating point, or `labels` not integers.
        ValueError: If the shapes do not fit, a concrete label is outside [0, K), or
            `label_smoothing` is outside [0, 1).
    """
    outputs = _validate("outputs", outputs, rank=3, letters="[T, B, K]")
    labels = _labels(labels, outputs)
    check_numbers(
        "losses.rate_cross_entropy", least=0, below=1, usual=0.1, label_smoothing=label_smoothing
    )
    logits = time_mean(outputs, lengths)
    return _defined(logits, lambda x: _cross_entropy(x, labels, label_smoothing))


def temporal_cross_entropy(
    outputs: Array,
    labels: Array,
    *,
    regularization: float = 0.05,
    phi: float = 1.0,
    label_smoothing: float = 0.0,
    lengths: Array | None = None,
) -> Array:
    """Temporal efficient training (TET): cross entropy at every timestep.

        L = (1 - lambda) 1/T sum_t CE(o[t], label) + lambda 1/T sum_t MSE(o[t], phi)

    The second term bounds the outputs of single timesteps. Since the cross entropy is convex, the
    first term is never below `rate_cross_entropy`.

    Args:
        outputs: `[T, B, K]`, floating: membrane potentials or logits per timestep.
        labels: `[B]`, integers in [0, K).
        regularization: lambda, in [0, 1].
        phi: Target of the second term, in the unit of the outputs; the paper uses the firing
            threshold.
        label_smoothing: Share of the target spread evenly over the classes, in [0, 1).
        lengths: `[B]` integers, valid timesteps of padded sequences; None is all T.

    Returns:
        `[B]`.

    Raises:
        TypeError: If `outputs` are not floating point, or `labels` not integers.
        ValueError: If the shapes do not fit, a concrete label is outside [0, K), or
            `regularization` is outside [0, 1] or `label_smoothing` outside [0, 1).

    Reference:
        S. Deng, Y. Li, S. Zhang, S. Gu, "Temporal Efficient Training of Spiking Neural Network via
        Gradient Re-weighting", ICLR 2022, arXiv:2202.11946.
    """
    owner = "losses.temporal_cross_entropy"
    check_numbers(owner, least=0, most=1, usual=0.05, regularization=regularization)
    check_numbers(owner, least=0, below=1, usual=0.1, label_smoothing=label_smoothing)
    check_numbers(owner, phi=phi)
    outputs = _validate("outputs", outputs, rank=3, letters="[T, B, K]")
    labels = _labels(labels, outputs)
    if lengths is not None:
        # Padding may hold NaN, which would make the loss of its example undefined.
        outputs = jnp.where(match_axes(mask(lengths, len(outputs)), outputs), outputs, 0)

    def loss(outputs: Array) -> Array:
        # Mapped over timesteps, because all of them share the labels.
        losses = jax.vmap(lambda logits: _cross_entropy(logits, labels, label_smoothing))(outputs)
        distance = optax.squared_error(outputs, jnp.full_like(outputs, phi))
        if lengths is None:
            distances = jnp.mean(distance, axis=(0, 2))
        else:
            distances = time_mean(jnp.mean(distance, axis=-1), lengths)
        return (1 - regularization) * time_mean(losses, lengths) + regularization * distances

    return _defined(outputs, loss, axis=1)


def rate_mse(
    outputs: Array,
    labels: Array,
    *,
    correct: float = 1.0,
    incorrect: float = 0.0,
    lengths: Array | None = None,
) -> Array:
    """Mean squared error of firing rates against target rates of the correct and other classes.

        L = 1/K sum_k (1/T sum_t o[t, k] - target[k])^2
        target[k] = correct if k is the label, else incorrect

    Targets below 1 and above 0, for instance 0.8 and 0.1, keep the other neurons from falling
    silent.

    Args:
        outputs: `[T, B, K]`, floating, spikes.
        labels: `[B]`, integers in [0, K).
        correct: Target rate of the correct class, in spikes per timestep.
        incorrect: Target rate of the other classes, in spikes per timestep.
        lengths: `[B]` integers, valid timesteps of padded sequences; None is all T.

    Returns:
        `[B]`, in squared spikes per timestep.

    Raises:
        TypeError: If `outputs` are not floating point, or `labels` not integers.
        ValueError: If the shapes do not fit, or a concrete label is outside [0, K).
    """
    outputs = _validate("outputs", outputs, rank=3, letters="[T, B, K]")
    labels = _labels(labels, outputs)
    check_numbers("losses.rate_mse", correct=correct, incorrect=incorrect)
    rates = time_mean(outputs, lengths)
    # In the dtype of the rates, so that the difference is not widened.
    target = jax.nn.one_hot(labels, rates.shape[-1], dtype=rates.dtype)
    target = incorrect + (correct - incorrect) * target
    return _defined(rates, lambda x: jnp.mean(optax.squared_error(x, target), axis=-1))


def distance(
    outputs: Array, targets: Array, *, start: int = 0, lengths: Array | None = None
) -> Array:
    """Mean Euclidean distance of the outputs from a target of each timestep.

        L = 1 / (T - start) sum over t >= start of |o[t] - target[t]|

    Outputs before `start` have no influence, and a gradient of exactly 0: spikes need time to reach
    the last layer. Published as "RMSE" of an angular velocity, it is a mean and no root.

    Args:
        outputs: `[T, B, D]`, floating.
        targets: `[B, T, D]`, floating, of the outputs' unit.
        start: first timestep that counts, in [0, T).
        lengths: `[B]` integers, valid timesteps of padded sequences, each in place of T; None is
            all T.

    Returns:
        `[B]`, in the unit of the outputs. The gradient at a distance of 0 is 0. Under `jax.jit` the
        loss of a sequence that ends before `start` is NaN.

    Raises:
        TypeError: If `outputs` or `targets` are not floating point.
        ValueError: If the shapes do not fit, or `start` is outside [0, T) or not below a known
            length.

    Reference:
        M. Gehrig, S. B. Shrestha, D. Mouritzen, D. Scaramuzza, "Event-Based Angular Velocity
        Regression with Spiking Networks", ICRA 2020, arXiv:2003.02790.
    """
    outputs = _validate("outputs", outputs, rank=3, letters="[T, B, D]")
    targets = as_floating("losses.distance", jnp.asarray(targets))
    if targets.shape != (outputs.shape[1], outputs.shape[0], outputs.shape[2]):
        steps, batch, size = outputs.shape
        raise ValueError(
            f"targets must be [B, T, D], here {[batch, steps, size]}, got {list(targets.shape)}: "
            "one target vector per example and timestep"
        )
    check_counts("losses.distance", least=0, start=start)
    known = lengths is not None and not is_traced(lengths)
    shortest = min(len(outputs), *np.asarray(lengths).tolist()) if known else len(outputs)
    if start >= shortest:
        raise ValueError(
            f"start={start} leaves nothing of a sequence of {shortest} timesteps: give one below "
            "their number"
        )
    targets = jnp.swapaxes(targets, 0, 1).astype(outputs.dtype)
    if lengths is not None:
        valid = match_axes(mask(lengths, len(outputs)), outputs)
        # Padding may hold NaN, which would make the loss of its example undefined.
        outputs, targets = (jnp.where(valid, values, 0) for values in (outputs, targets))
        lengths = jnp.maximum(jnp.asarray(lengths) - start, 0)
    targets = targets[start:]

    def loss(outputs: Array) -> Array:
        squared = jnp.sum(jnp.square(outputs - targets), -1)
        # The root has no derivative at 0; replaced before it, since infinity times 0 is NaN.
        root = jnp.sqrt(jnp.where(squared > 0, squared, 1))
        return time_mean(jnp.where(squared > 0, root, 0), lengths)

    return _defined(outputs[start:], loss, axis=1)


def spike_rate_penalty(
    spikes: Array, *, lower: float = 0.0, upper: float = 1.0, lengths: Array | None = None
) -> Array:
    """Penalty for firing rates outside a band: silent neurons below, costly ones above.

        r[i] = 1/T sum_t s[t, i]
        L = 1/N sum_i (max(lower - r[i], 0)^2 + max(r[i] - upper, 0)^2)

    Value and gradient are 0 inside the band. Add it to a loss with a small factor, per layer.

    Args:
        spikes: `[T, B, ...]`, floating, of N neurons.
        lower: Lowest firing rate, in spikes per timestep, in [0, upper].
        upper: Highest firing rate, in spikes per timestep.
        lengths: `[B]` integers, valid timesteps of padded sequences; None is all T.

    Returns:
        `[B]`, in squared spikes per timestep.

    Raises:
        TypeError: If `spikes` are not floating point.
        ValueError: If `spikes` have fewer than two axes, or the band is empty.

    Reference:
        F. Zenke, T. P. Vogels, "The Remarkable Robustness of Surrogate Gradient Learning for
        Instilling Complex Function in Spiking Neural Networks", Neural Computation 33, 2021.
    """
    check_numbers("losses.spike_rate_penalty", least=0, lower=lower, upper=upper)
    if lower > upper:
        raise ValueError(f"the band must be 0 <= lower <= upper, got [{lower}, {upper}]")
    spikes = _validate("spikes", spikes, rank=None, letters="[T, B, ...]")
    rates = time_mean(spikes, lengths)

    def penalty(rates: Array) -> Array:
        outside = jnp.maximum(lower - rates, 0) + jnp.maximum(rates - upper, 0)
        # At most one of the terms is nonzero, so the square of the sum is the sum of the squares.
        return jnp.mean(outside**2, axis=tuple(range(1, rates.ndim)))

    return _defined(rates, penalty)


def _defined(outputs: Array, loss: Callable[[Array], Array], *, axis: int = 0) -> Array:
    """Loss per example; NaN for an example without a defined one, whose outputs get gradient 0.

    Args:
        outputs: Array with the examples at `axis`.
        loss: Function of the outputs, `[B]`.
        axis: Axis of the examples.
    """
    others = tuple(i for i in range(outputs.ndim) if i != axis)
    # The maximum is NaN or +inf where any output is; a class excluded by -inf has a defined loss.
    bad = ~jnp.isfinite(outputs.max(others))
    rows = jnp.expand_dims(bad, others)
    # Replaced before the loss: its derivative at NaN, times a cotangent of 0, would be NaN.
    values = loss(jnp.where(rows, 0, outputs))
    return jnp.where(bad, jnp.nan, values)


def _poison(loss: Array) -> Array:
    """The loss; if it is NaN, its gradient is NaN, too."""
    # A constant factor: bits of the loss stay, and a NaN reaches every example that counts.
    return loss * jax.lax.stop_gradient(jnp.where(jnp.isnan(loss), loss, 1))


def _cross_entropy(logits: Array, labels: Array, label_smoothing: float) -> Array:
    if label_smoothing == 0.0:
        # The integer form avoids the one-hot targets `[B, K]`.
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    target = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(target, label_smoothing))


def _validate(name: str, array: Array, *, rank: int | None, letters: str) -> Array:
    array = jnp.asarray(array)
    if array.ndim < 2 or (rank is not None and array.ndim != rank) or 0 in array.shape[:1]:
        raise ValueError(
            f"{name} must be {letters}, got {list(array.shape)}: outputs [T, B, K] become logits "
            f"[B, K] by a readout, e.g. readout.rate(outputs)"
        )
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating point, got {array.dtype}: use .astype('float32')")
    # Sums over classes and examples need more than the 8 or 11 bits of 16-bit outputs.
    return array if jnp.finfo(array.dtype).bits >= 32 else array.astype(jnp.float32)


def _labels(labels: Array, outputs: Array) -> Array:
    labels = jnp.asarray(labels)
    # Batch and classes are the last two axes of logits and of outputs alike.
    batch, classes = outputs.shape[-2:]
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(
            f"labels must be integers, got {labels.dtype}: one-hot labels become "
            f"labels.argmax(-1), others labels.astype('int32')"
        )
    if labels.shape != (batch,):
        raise ValueError(
            f"labels must be [B], one class per example, got {list(labels.shape)} for a batch of "
            f"{batch}: one-hot labels become labels.argmax(-1)"
        )
    try:
        inside = bool(jnp.all((labels >= 0) & (labels < classes)))
    except jax.errors.ConcretizationTypeError:
        inside = True  # traced labels cannot be checked
    if not inside:
        raise ValueError(
            f"labels must lie in [0, {classes}), got {labels.min()} to {labels.max()}: make the "
            f"network's classes as many as the labels, and count from 0"
        )
    return labels
