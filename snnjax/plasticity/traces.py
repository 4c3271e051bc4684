"""Traces: how recently a neuron fired, forgotten exponentially.

    x[t] = 1 if it fires at t, else decay x[t-1]        `latest`: the last spike counts
    x[t] = decay x[t-1] + s[t]                          `summed`: all spikes count

With `decay = exp(-dt / tau)`, as a trace with time constant `tau` has after a timestep `dt`.

Reference: A. Morrison, M. Diesmann, W. Gerstner, "Phenomenological models of synaptic plasticity
based on spike timing", 2008 (nearest-neighbour and all-to-all schemes).
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from snnjax.typing import Array

__all__ = ["Trace", "latest", "latest_of_list", "summed"]

Trace = Callable[[Array, Array, float], Array]
"""`(trace, spikes, decay) -> trace`."""


def latest(trace: Array, spikes: Array, decay: float) -> Array:
    """Set to 1 by a spike: only the nearest spike counts.

    Args:
        trace: `[..., n]`, of the step before.
        spikes: `[..., n]`, 0 or 1.
        decay: kept per timestep, in (0, 1).
    """
    return jnp.where(spikes > 0, jnp.ones_like(trace), decay * trace)


def latest_of_list(trace: Array, active: Array, decay: float) -> Array:
    """`latest` for a list of who fires, `[slots]`, padded with `n`; the trace is `[n]`."""
    return (decay * trace).at[active].set(1.0, mode="drop")


def summed(trace: Array, spikes: Array, decay: float) -> Array:
    """Raised by 1 by a spike: all spikes of the past count. Arguments as for `latest`."""
    return decay * trace + spikes
