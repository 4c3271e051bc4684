"""Spike traces: exponentially decaying records of recent spikes.

    x[t] = 1 if it fires at t, else decay x[t-1]        `nearest_neighbour`: the last spike counts
    x[t] = decay x[t-1] + s[t]                          `all_to_all`: all spikes count

with `decay = exp(-dt / tau)` for a time constant `tau` and a timestep `dt`.

Reference: A. Morrison, M. Diesmann, W. Gerstner, "Phenomenological models of synaptic plasticity
based on spike timing", 2008 (nearest-neighbour and all-to-all schemes).
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from snnjax.typing import Array

__all__ = ["Trace", "all_to_all", "nearest_neighbour", "nearest_neighbour_list"]

Trace = Callable[[Array, Array, float], Array]
"""Trace update, `(trace, spikes, decay) -> trace`."""


def nearest_neighbour(trace: Array, spikes: Array, decay: float) -> Array:
    """Updates a trace that each spike sets to 1, so that only the nearest spike counts.

    Args:
        trace: Trace after the previous timestep, `[..., n]`.
        spikes: Spikes, `[..., n]`, 0 or 1.
        decay: Decay per timestep, in (0, 1).

    Returns:
        The new trace, `[..., n]`.
    """
    return jnp.where(spikes > 0, jnp.ones_like(trace), decay * trace)


def nearest_neighbour_list(trace: Array, active: Array, decay: float) -> Array:
    """Updates a nearest-neighbour trace `[n]` by spike indices `[slots]`, padded with n."""
    # The index n of the padding is out of bounds and dropped.
    return (decay * trace).at[active].set(1.0, mode="drop")


def all_to_all(trace: Array, spikes: Array, decay: float) -> Array:
    """Updates a trace that each spike raises by 1, so that all past spikes count.

    Args:
        trace: Trace after the previous timestep, `[..., n]`.
        spikes: Spikes, `[..., n]`, 0 or 1.
        decay: Decay per timestep, in (0, 1).

    Returns:
        The new trace, `[..., n]`.
    """
    return decay * trace + spikes
