"""Padded sequences: masks of valid timesteps, and sums and means over them."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from snnjax.ops.arguments import is_traced
from snnjax.typing import Array

__all__ = ["mask", "match_axes", "time_mean", "valid_sum"]


def mask(lengths: Array, timesteps: int) -> Array:
    """Marks the valid timesteps of padded sequences.

        mask[t, b] = t < lengths[b]

    Args:
        lengths: `[B]` integers, valid timesteps, in [1, T].
        timesteps: T.

    Returns:
        `[T, B]`, bool.

    Raises:
        TypeError: If `lengths` are not integers.
        ValueError: If `lengths` are not `[B]`, or a known one is outside [1, T].
    """
    # In NumPy: under `jax.jit` the comparisons of a known array would be traced.
    known: Any = lengths if is_traced(lengths) else np.asarray(lengths)
    if not jnp.issubdtype(known.dtype, jnp.integer):
        raise TypeError(f"lengths must be integers, got {known.dtype}: .astype('int32')")
    if known.ndim != 1:
        raise ValueError(f"lengths must be [B], one per example, got {list(known.shape)}")
    if is_traced(known):
        return jnp.arange(timesteps, dtype=known.dtype)[:, None] < known
    if ((known < 1) | (known > timesteps)).any():
        raise ValueError(
            f"lengths must lie in [1, {timesteps}], the number of timesteps, got {known.min()} "
            f"to {known.max()}"
        )
    return jnp.asarray(np.arange(timesteps)[:, None] < known)


def match_axes(valid: Array, values: Array) -> Array:
    """A mask `[T, B]` with as many axes as the values `[T, B, ...]`."""
    return valid.reshape(*valid.shape, *[1] * (values.ndim - 2))


def valid_sum(values: Array, lengths: Array) -> Array:
    """Sum over the valid timesteps, `[T, B, ...] -> [B, ...]`; padding may hold NaN."""
    valid = match_axes(mask(lengths, len(values)), values)
    # `where` and not a product: NaN times 0 is NaN.
    return jnp.sum(jnp.where(valid, values, 0), axis=0)


def time_mean(values: Array, lengths: Array | None) -> Array:
    """Mean over the valid timesteps, `[T, B, ...] -> [B, ...]`; None is all of them."""
    if lengths is None:
        return jnp.mean(values, axis=0)
    sums = valid_sum(values, lengths)
    return sums / jnp.asarray(lengths).astype(sums.dtype).reshape(-1, *[1] * (sums.ndim - 1))
