"""Errors of real vectors relative to their targets."""

from __future__ import annotations

import math

import jax.numpy as jnp

from snnjax.ops.arguments import as_floating, check_numbers
from snnjax.ops.padding import mask
from snnjax.typing import Array

__all__ = ["median_relative_error"]


def median_relative_error(
    outputs: Array,
    targets: Array,
    *,
    least: float = math.radians(1),
    weights: Array | None = None,
    lengths: Array | None = None,
) -> Array:
    """Median over timesteps and examples of `|o - target| / |target|`.

    Targets shorter than `least` are left out: their relative error has no meaning. The mean of the
    distances themselves is `losses.distance`.

    Args:
        outputs: `[T, B, D]`, floating.
        targets: `[B, T, D]`, floating, of the outputs' unit.
        least: smallest length of a target that counts; 1 degree per second, for targets in rad/s.
        weights: `[B]`, 0 for padding; None is all 1. Other weights do not weigh a median.
        lengths: `[B]` integers, valid timesteps of padded sequences; None is all T.

    Returns:
        A scalar; NaN if no target counts.

    Raises:
        TypeError: If `outputs` or `targets` are not floating point.
        ValueError: If the shapes do not fit, or `least` is not positive.

    Reference:
        Gehrig, Shrestha, Mouritzen, Scaramuzza, "Event-Based Angular Velocity Regression with
        Spiking Networks", ICRA 2020, arXiv:2003.02790.
    """
    owner = "metrics.median_relative_error"
    check_numbers(owner, above=0, least=least)
    outputs, targets = (as_floating(owner, jnp.asarray(a)) for a in (outputs, targets))
    if outputs.ndim != 3 or targets.shape != (outputs.shape[1], len(outputs), outputs.shape[2]):
        raise ValueError(
            f"outputs are [T, B, D] and targets [B, T, D], got {list(outputs.shape)} and "
            f"{list(targets.shape)}: one target vector per example and timestep"
        )
    wanted = jnp.swapaxes(targets, 0, 1).astype(outputs.dtype)
    sizes = jnp.linalg.norm(wanted, axis=-1)
    counts = sizes >= least
    if lengths is not None:
        counts &= mask(lengths, len(outputs))
    if weights is not None:
        counts &= jnp.asarray(weights) != 0
    # Divided by 1 where nothing counts: the NaN of the mask is the only one.
    relative = jnp.linalg.norm(outputs - wanted, axis=-1) / jnp.where(counts, sizes, 1)
    return jnp.nanmedian(jnp.where(counts, relative, jnp.nan))
