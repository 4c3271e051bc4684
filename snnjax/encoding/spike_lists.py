"""Poisson spike trains as lists of who fires: what costs is the spikes, not the inputs.

Independent Poisson trains of rates `r[i]` are, together, one Poisson train of rate `R = sum r`, and
each of its spikes belongs to input `i` with probability `r[i] / R`. So it is drawn:

    gaps between spikes   Exp(1) / R         spike k falls into timestep floor(sum of gaps up to k)
    who                   i with cumulative rate above u R,  u uniform

which takes two random numbers per spike instead of one per input and timestep. A timestep's spikes
are a list of indices, padded with the number of inputs, which is no index:

    drive[t] = sum over k of weights[active[t, k]]         padding adds nothing

Reference: J. F. C. Kingman, "Poisson Processes", 1993 (superposition and colouring).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from snnjax.encoding import checks
from snnjax.typing import Array, Key

__all__ = ["dense_spikes", "poisson_lists", "slots_for"]


def poisson_lists(key: Key, rates: Array, *, timesteps: int, slots: int) -> Array:
    """Who fires at each timestep, of independent Poisson trains.

    An input that fires twice in a timestep is listed twice.

    Args:
        key: A typed key; a new one for every example.
        rates: `[n]`, spikes per timestep, at least 0; not bounded by 1.
        timesteps: T, at least 1.
        slots: Spikes of one timestep at most, see `slots_for`; later ones of a fuller timestep are
            lost.

    Returns:
        Indices `[T, slots]`, int32, those of a timestep first and then padding with `n`.

    Raises:
        ValueError: `timesteps` or `slots` is below 1, or `rates` is no vector.
    """
    timesteps = checks.positive_integer("timesteps", timesteps)
    slots = checks.positive_integer("slots", slots)
    if rates.ndim != 1:
        raise ValueError(
            f"rates are one example's, [n], got {list(rates.shape)}: flatten an image, and use "
            "jax.vmap over examples"
        )
    inputs, most = rates.size, timesteps * slots
    gaps, who = jax.random.split(key)
    cumulative = jnp.cumsum(rates.astype(jnp.float32))
    total = cumulative[-1]
    # A rate of zero makes every gap infinite: no spike falls into the window.
    times = jnp.cumsum(jax.random.exponential(gaps, (most,))) / total
    chosen = jnp.searchsorted(cumulative, jax.random.uniform(who, (most,)) * total, side="right")
    chosen = jnp.minimum(chosen, inputs - 1).astype(jnp.int32)
    first = jnp.searchsorted(times, jnp.arange(timesteps + 1, dtype=times.dtype))
    place = first[:-1, None] + jnp.arange(slots)
    there = (place < first[1:, None]) & (place < most)
    return jnp.where(there, chosen[jnp.minimum(place, most - 1)], inputs)


def dense_spikes(active: Array, *, inputs: int) -> Array:
    """The same spikes as a train, how often each input fires.

    Args:
        active: `[..., slots]`, indices padded with `inputs`.
        inputs: n.

    Returns:
        `[..., n]`, float32, mostly 0 and 1.
    """
    return jax.nn.one_hot(active, inputs, dtype=jnp.float32).sum(-2)


def slots_for(total: float, *, lost: float = 1e-6) -> int:
    """Slots that hold the spikes of a timestep but for a share `lost` of all timesteps.

    The least `k` with `P(Poisson(total) > k) <= lost`.

    Args:
        total: Sum of the rates, spikes per timestep.
        lost: Share of the timesteps that may lose spikes, in (0, 1).

    Raises:
        ValueError: `total` is negative or not finite, or `lost` is outside (0, 1).
    """
    if not (math.isfinite(total) and total >= 0):
        raise ValueError(f"total is spikes per timestep, at least 0, got {total}")
    if not 0 < lost < 1:
        raise ValueError(f"lost is a share of the timesteps, in (0, 1), got {lost}: 1e-6 is usual")
    slots, term = 0, math.exp(-total)
    below = term
    while 1 - below > lost and slots < total + 20 * math.sqrt(total) + 20:
        slots += 1
        term *= total / slots
        below += term
    return max(slots, 1)
