"""Accuracy, its variants for clips and top-k answers, the confusion matrix, and weighted means."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from snnjax.ops.arguments import check_counts, check_numbers
from snnjax.typing import Array

__all__ = [
    "accuracy",
    "clip_accuracy",
    "confusion_matrix",
    "correct",
    "example_weights",
    "top_k_accuracy",
    "weighted_mean",
]


def accuracy(logits: Array, labels: Array, *, weights: Array | None = None) -> Array:
    """Share of examples whose largest logit is the label; of equal logits the first class wins.

        sum_b w[b] [argmax(logits[b]) = label[b]] / sum_b w[b]

    A NaN logit of the label counts as wrong, so that a diverged network scores 0.

    Args:
        logits: `[B, K]`, floating.
        labels: `[B]`, integers.
        weights: `[B]`, 1 for an example, 0 for padding; None is all 1.

    Returns:
        A scalar in [0, 1], float32; 0 if all weights are 0.

    Raises:
        TypeError: If `logits` are not floating point, or `labels` not integers.
        ValueError: If the shapes do not fit.
    """
    logits, labels = _validate(logits, labels)
    # A rank and not an argmax, so that a NaN logit of the label counts as wrong.
    return weighted_mean(_rank(logits, labels) < 1, weights)


def correct(logits: Array, labels: Array) -> Array:
    """Marks the examples whose largest logit is the label: the terms of `accuracy`.

    Args:
        logits: `[B, K]`, floating.
        labels: `[B]`, integers.

    Returns:
        `[B]`, float32, 1 or 0.

    Raises:
        TypeError: If `logits` are not floating point, or `labels` not integers.
        ValueError: If the shapes do not fit.
    """
    logits, labels = _validate(logits, labels)
    return (_rank(logits, labels) < 1).astype(jnp.float32)


def clip_accuracy(
    logits: Array, labels: Array, *, clips: int, weights: Array | None = None
) -> Array:
    """Share of recordings with strictly more than half of their clips classified correctly.

        sum_r w[r] [2 sum_k right[r, k] > clips] / sum_r w[r]

    A tie or a plurality of the clips is not enough. With one clip it is `accuracy`.

    Args:
        logits: `[B, K]`, floating; every `clips` consecutive examples are one recording.
        labels: `[B]`, integers.
        clips: Clips per recording.
        weights: `[B]`, 1 for an example, 0 for padding; a recording with a clip of weight 0 is not
            counted. None is all 1.

    Returns:
        A scalar in [0, 1], float32; 0 if all weights are 0.

    Raises:
        TypeError: If `logits` are not floating point, or `labels` not integers.
        ValueError: If the shapes do not fit, or B is not a multiple of `clips`.

    Reference:
        Yao, Hu, Zhao, Wang, Zhang, Xu, Li, "Inherent Redundancy in Spiking Neural Networks", ICCV
        2023, arXiv:2308.08227 (the rule of its released code, with ten clips).
    """
    logits, labels = _validate(logits, labels)
    check_counts("metrics.clip_accuracy", clips=clips)
    if len(labels) % clips:
        raise ValueError(
            f"{len(labels)} examples are not whole recordings of {clips} clips: give a batch that "
            "is a multiple of clips"
        )
    right = (_rank(logits, labels) < 1).reshape(-1, clips)
    # The least weight of its clips: padding must not complete a recording.
    recording_weights = example_weights(weights, labels.shape).reshape(-1, clips).min(-1)
    return weighted_mean(2 * right.sum(-1) > clips, recording_weights)


def top_k_accuracy(
    logits: Array, labels: Array, *, k: int = 5, weights: Array | None = None
) -> Array:
    """Share of examples whose label is among the k largest logits; k = 1 is `accuracy`.

        sum_b w[b] [label[b] in top_k(logits[b])] / sum_b w[b]

    Args:
        logits: `[B, K]`, floating.
        labels: `[B]`, integers.
        k: Number of answers, in [1, K].
        weights: `[B]`, 1 for an example, 0 for padding; None is all 1.

    Returns:
        A scalar in [0, 1], float32; 0 if all weights are 0.

    Raises:
        TypeError: If `logits` are not floating point, or `labels` not integers.
        ValueError: If the shapes do not fit, or `k` is outside [1, K].
    """
    logits, labels = _validate(logits, labels)
    check_counts("metrics.top_k_accuracy", k=k)
    if k > logits.shape[-1]:
        raise ValueError(f"k must lie in [1, {logits.shape[-1]}], the number of classes, got {k}")
    return weighted_mean(_rank(logits, labels) < k, weights)


def confusion_matrix(logits: Array, labels: Array, *, weights: Array | None = None) -> Array:
    """Counts of each pair of label and answer; the diagonal counts correct answers.

        C[i, j] = sum_b w[b] [label[b] = i] [argmax(logits[b]) = j]

    Matrices of several batches can be added. Labels outside [0, K), and examples with a NaN logit,
    are not counted.

    Args:
        logits: `[B, K]`, floating.
        labels: `[B]`, integers in [0, K).
        weights: `[B]`, 1 for an example, 0 for padding; None is all 1.

    Returns:
        `[K, K]`, float32; rows are labels, columns are answers.

    Raises:
        TypeError: If `logits` are not floating point, or `labels` not integers.
        ValueError: If the shapes do not fit.
    """
    logits, labels = _validate(logits, labels)
    classes = jnp.arange(logits.shape[-1])
    # `argmax` would take a NaN for the largest logit, and count it as an answer.
    best = jnp.where(jnp.isnan(logits).any(-1), -1, jnp.argmax(logits, axis=-1))
    answers = jax.nn.one_hot(best, len(classes), dtype=jnp.float32)
    truths = jax.nn.one_hot(labels, len(classes), dtype=jnp.float32)
    # Weights enter one factor only: the product counts them once.
    truths = truths * example_weights(weights, labels.shape)[:, None]
    # Counts must be exact: by default an accelerator multiplies float32 with fewer bits.
    return jnp.matmul(truths.T, answers, precision=jax.lax.Precision.HIGHEST)


def _rank(logits: Array, labels: Array) -> Array:
    """Number of classes ranked before the label, `[B]`; K if the label's logit is NaN."""
    classes = jnp.arange(logits.shape[-1], dtype=jnp.int32)
    labels = labels.astype(jnp.int32)[:, None]
    # By a mask and not by a gather: a label outside [0, K) has -inf and counts as wrong.
    own = jnp.max(jnp.where(classes == labels, logits, -jnp.inf), axis=-1, keepdims=True)
    # Not `logits > own`, which is False for NaN: a NaN must count against the label.
    before = ~(logits <= own) | ((logits == own) & (classes < labels))
    return jnp.sum(before, axis=-1)


def _validate(logits: Array, labels: Array) -> tuple[Array, Array]:
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


def weighted_mean(values: Array, weights: Array | None) -> Array:
    """Weighted mean, `sum_b w[b] values[b] / sum_b w[b]`; 0 if all weights are 0.

    Args:
        values: `[B]`; values of weight 0 are ignored, also NaN.
        weights: `[B]`; None is all 1.

    Returns:
        A scalar, float32.
    """
    weights = example_weights(weights, values.shape)
    norm = jnp.sum(weights)
    # where before the product: 0 * NaN would be NaN.
    summed = jnp.sum(jnp.where(weights == 0, 0, values.astype(jnp.float32)) * weights)
    return summed / jnp.where(norm == 0, 1, norm)


def example_weights(weights: Array | None, shape: tuple[int, ...]) -> Array:
    """Converts weights to float32, all 1 for None.

    Args:
        weights: `[B]` or None.
        shape: Required shape.

    Returns:
        `[B]`, float32.

    Raises:
        ValueError: If `weights` has another shape.
    """
    if weights is None:
        return jnp.ones(shape, jnp.float32)
    weights = jnp.asarray(weights)
    if weights.shape != shape:
        raise ValueError(
            f"weights must be one number per example, {list(shape)}, got {list(weights.shape)}"
        )
    check_numbers("a weighted metric", least=0, weights=weights)
    return weights.astype(jnp.float32)
