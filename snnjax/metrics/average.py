"""Weighted averages over the examples of a batch, in which padding has weight 0."""

from __future__ import annotations

import jax.numpy as jnp

from snnjax.typing import Array

__all__ = ["example_weights", "weighted_mean"]


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
    summed = jnp.sum(jnp.where(weights == 0, 0, values.astype(jnp.float32)) * weights)
    # where before the product: 0 * NaN would be NaN.
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
    return weights.astype(jnp.float32)
