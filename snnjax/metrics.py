"""Metrics: what is reported and not differentiated. Padded examples have weight 0.

    accuracy           share of examples whose largest logit is the label
    top_k_accuracy     share of examples whose label is among the k largest
    confusion_matrix   who is taken for whom
    firing_rates       spikes per neuron and timestep of each layer, from the taps of a forward pass

Over several batches, average these with the sum of each batch's weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from snnjax.typing import Array


def accuracy(logits: Array, labels: Array, *, weights: Array | None = None) -> Array:
    """The share of examples whose largest logit is the label; among equals the first class wins.

        sum_b w[b] [argmax(logits[b]) = label[b]] / sum_b w[b]

    A label whose logit is not a number is never right, so a network that diverged scores 0.

    Args:
        logits: `[B, K]`, floating.
        labels: `[B]`, integers.
        weights: `[B]`, 1 for an example, 0 for padding; None is all 1.

    Returns:
        A scalar in [0, 1], float32; 0 where every weight is 0.

    Raises:
        TypeError: If `logits` are not floating point, or `labels` not integers.
        ValueError: If the shapes do not fit.
    """
    logits, labels = _checked(logits, labels)
    return _mean(_rank(logits, labels) < 1, weights)


def top_k_accuracy(
    logits: Array, labels: Array, *, k: int = 5, weights: Array | None = None
) -> Array:
    """The share of examples whose label is among the k largest logits; k = 1 is `accuracy`.

        sum_b w[b] [label[b] in top_k(logits[b])] / sum_b w[b]

    Args:
        logits: `[B, K]`, floating.
        labels: `[B]`, integers.
        k: In [1, K].
        weights: `[B]`, 1 for an example, 0 for padding; None is all 1.

    Returns:
        A scalar in [0, 1], float32; 0 where every weight is 0.

    Raises:
        TypeError: If `logits` are not floating point, or `labels` not integers.
        ValueError: If the shapes do not fit, or `k` is outside [1, K].
    """
    logits, labels = _checked(logits, labels)
    if not 1 <= k <= logits.shape[-1]:
        raise ValueError(f"k must lie in [1, {logits.shape[-1]}], the number of classes, got {k}")
    return _mean(_rank(logits, labels) < k, weights)


def confusion_matrix(logits: Array, labels: Array, *, weights: Array | None = None) -> Array:
    """Counts who is taken for whom; the diagonal is what is right.

        C[i, j] = sum_b w[b] [label[b] = i] [argmax(logits[b]) = j]

    Counts of several batches add up. A label outside [0, K) is not counted.

    Args:
        logits: `[B, K]`, floating.
        labels: `[B]`, integers in [0, K).
        weights: `[B]`, 1 for an example, 0 for padding; None is all 1.

    Returns:
        `[K, K]`, float32, rows are labels and columns are answers.

    Raises:
        TypeError: If `logits` are not floating point, or `labels` not integers.
        ValueError: If the shapes do not fit.
    """
    logits, labels = _checked(logits, labels)
    classes = jnp.arange(logits.shape[-1])
    answers = jax.nn.one_hot(jnp.argmax(logits, axis=-1), len(classes), dtype=jnp.float32)
    truths = jax.nn.one_hot(labels, len(classes), dtype=jnp.float32)
    truths = truths * _weights(weights, labels.shape)[:, None]
    # Counts have to be exact: by default an accelerator multiplies float32 in fewer bits.
    return jnp.matmul(truths.T, answers, precision=jax.lax.Precision.HIGHEST)


def firing_rates(
    taps: Mapping[str, Array | Mapping[str, Array]], *, weights: Array | None = None
) -> dict[str, Array]:
    """The mean firing rate of each layer, from the taps of a forward pass.

        r = 1/(T N sum_b w[b]) sum over t, b, i of w[b] s[t, b, i]

    A dead layer shows 0; near 1 a layer fires always and its timing says nothing.

    Args:
        taps: Layer name to spikes `[T, B, ...]`, or to a mapping that holds them as "spikes";
            layers that tap something else are left out. Empty taps give an empty result.
        weights: `[B]`, 1 for an example, 0 for padding; None is all 1.

    Returns:
        Layer name to a scalar, float32, spikes per neuron and timestep; the order of `taps`.

    Raises:
        ValueError: If no layer taps its spikes, or spikes have fewer than two axes.

    Example:
        >>> outputs, aux = net(frames, state, training=False, taps=("spikes",))
        >>> firing_rates(aux.taps)
        {'lif2': Array(0.11, dtype=float32), 'lif5': Array(0.07, dtype=float32)}
    """
    spikes = {}
    for name, tap in taps.items():
        if not isinstance(tap, Mapping):
            spikes[name] = tap
        elif "spikes" in tap:
            spikes[name] = tap["spikes"]
    if taps and not spikes:
        raise ValueError(
            f"no layer of {sorted(taps)} taps its spikes: ask the network for taps=('spikes',)"
        )
    return {name: _firing_rate(name, train, weights) for name, train in spikes.items()}


def _rank(logits: Array, labels: Array) -> Array:
    """How many classes come before the label: `[B]`, K where its logit is not a number."""
    classes = jnp.arange(logits.shape[-1], dtype=jnp.int32)
    labels = labels.astype(jnp.int32)[:, None]
    own = jnp.max(jnp.where(classes == labels, logits, -jnp.inf), axis=-1, keepdims=True)
    # Not `logits > own`: written so, a comparison with not-a-number counts against the label.
    before = ~(logits <= own) | ((logits == own) & (classes < labels))
    return jnp.sum(before, axis=-1)


def _firing_rate(name: str, spikes: Array, weights: Array | None) -> Array:
    spikes = jnp.asarray(spikes)
    if spikes.ndim < 2:
        raise ValueError(f"spikes of {name!r} must be [T, B, ...], got {list(spikes.shape)}")
    axes = (0, *range(2, spikes.ndim))
    return _mean(jnp.mean(spikes, axis=axes, dtype=jnp.float32), weights)


def _mean(values: Array, weights: Array | None) -> Array:
    weights = _weights(weights, values.shape)
    norm = jnp.sum(weights)
    summed = jnp.sum(jnp.where(weights == 0, 0, values.astype(jnp.float32)) * weights)
    return summed / jnp.where(norm == 0, 1, norm)


def _weights(weights: Array | None, shape: tuple[int, ...]) -> Array:
    if weights is None:
        return jnp.ones(shape, jnp.float32)
    weights = jnp.asarray(weights)
    if weights.shape != shape:
        raise ValueError(
            f"weights must be one number per example, {list(shape)}, got {list(weights.shape)}"
        )
    return weights.astype(jnp.float32)


def _checked(logits: Array, labels: Array) -> tuple[Array, Array]:
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    if logits.ndim != 2:
        raise ValueError(
            f"logits must be [B, K], got {list(logits.shape)}: outputs [T, B, K] become logits by "
            f"a readout, e.g. readout.rate(outputs)"
        )
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise TypeError(f"logits must be floating point, got {logits.dtype}: .astype('float32')")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels must be integers, got {labels.dtype}: labels.astype('int32')")
    if labels.shape != logits.shape[:1]:
        raise ValueError(
            f"labels must be [B], one class per example, got {list(labels.shape)} for logits "
            f"{list(logits.shape)}: one-hot labels become labels.argmax(-1)"
        )
    return logits, labels
