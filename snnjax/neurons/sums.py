"""Gradients of parameters that were broadcast: sums over what they were broadcast to."""

from __future__ import annotations

import jax.numpy as jnp

from snnjax.typing import Array

__all__ = ["sum_to"]


def sum_to(array: Array, shape: tuple[int, ...]) -> Array:
    """Sums a broadcast array back to `shape`."""
    extra = array.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(
        extra + i for i, n in enumerate(shape) if n == 1 and array.shape[extra + i] != 1
    )
    return jnp.sum(array, axes).reshape(shape)
