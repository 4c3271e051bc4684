"""Averages over the examples of a batch in which padding has weight 0."""

from __future__ import annotations

import jax.numpy as jnp

from snnjax.typing import Array

__all__ = ["example_weights", "weighted_mean"]


def weighted_mean(values: Array, weights: Array | None) -> Array:
    """`sum_b w[b] values[b] / sum_b w[b]`, float32; 0 where every weight is 0.

    Args:
        values: `[B]`; where the weight is 0 they may be anything, not-a-number too.
        weights: `[B]`; None is all 1.
    """
    weights = example_weights(weights, values.shape)
    norm = jnp.sum(weights)
    summed = jnp.sum(jnp.where(weights == 0, 0, values.astype(jnp.float32)) * weights)
    return summed / jnp.where(norm == 0, 1, norm)


def example_weights(weights: Array | None, shape: tuple[int, ...]) -> Array:
    """Weights as float32, all 1 where None is given.

    Raises:
        ValueError: If they are not one number per example.
    """
    if weights is None:
        return jnp.ones(shape, jnp.float32)
    weights = jnp.asarray(weights)
    if weights.shape != shape:
        raise ValueError(
            f"weights must be one number per example, {list(shape)}, got {list(weights.shape)}"
        )
    return weights.astype(jnp.float32)
