"""Poisson spike trains as lists of indices, at a cost proportional to spikes instead of inputs.

The superposition of independent Poisson trains with rates `r[i]` is one Poisson train with rate
`R = sum r`, and each of its spikes belongs to input `i` with probability `r[i] / R`:

    gaps between spikes   Exp(1) / R         spike k falls into timestep floor(sum of gaps up to k)
    index of a spike      i with cumulative rate above u R,  u uniform

This takes two random numbers per spike instead of one per input and timestep. The spikes of a
timestep are a list of indices, padded with the number of inputs, an index out of range:

    drive[t] = sum over k of weights[active[t, k]]         padding adds nothing

Reference: J. F. C. Kingman, "Poisson Processes", 1993 (superposition and colouring).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from snnjax.encoding import _checks as checks
from snnjax.typing import Array, Key

__all__ = ["poisson_lists", "spike_slots"]


def poisson_lists(key: Key, rates: Array, *, timesteps: int, slots: int) -> Array:
    """Draws independent Poisson trains as lists of the active inputs of each timestep.

    An input that fires twice in a timestep is listed twice.

    Args:
        key: A typed key; use a new one for every example.
        rates: `[n]`, spikes per timestep, at least 0; not bounded by 1.
        timesteps: T, at least 1.
        slots: Capacity of a timestep in spikes, see `spike_slots`; excess spikes are lost.

    Returns:
        Indices `[T, slots]`, int32, first the spikes of a timestep and then padding with `n`.

    Raises:
        TypeError: If `key` is not one typed key, or `rates` are no numbers.
        ValueError: If `timesteps` or `slots` is below 1, `rates` is not a vector, or a concrete
            rate is negative or not finite.
    """
    checks.typed_key(key)
    rates = checks.numbers("rates", rates)
    timesteps = checks.positive_integer("timesteps", timesteps)
    slots = checks.positive_integer("slots", slots)
    if rates.ndim != 1 or rates.size == 0:
        raise ValueError(
            f"rates are one example's, [n], got {list(rates.shape)}: flatten an image, and use "
            "jax.vmap over examples"
        )
    # A sorted search over cumulative rates needs them to grow; NaN would silence the whole train.
    if checks.concrete((rates >= 0) & (rates < jnp.inf)) is False:
        raise ValueError(
            f"rates are spikes per timestep, finite and at least 0, got {float(rates.min()):g} to "
            f"{float(rates.max()):g}: jnp.maximum(rates, 0)"
        )
    inputs, capacity = rates.size, timesteps * slots
    gaps_key, index_key = jax.random.split(key)
    cumulative = jnp.cumsum(rates.astype(jnp.float32))
    total = cumulative[-1]
    # A total rate of zero makes every gap infinite: no spike falls into the window.
    times = jnp.cumsum(jax.random.exponential(gaps_key, (capacity,))) / total
    uniform = jax.random.uniform(index_key, (capacity,))
    indices = jnp.searchsorted(cumulative, uniform * total, side="right")
    # u * total may round up to the total, one past the last input.
    indices = jnp.minimum(indices, inputs - 1).astype(jnp.int32)
    # Spike times are sorted: the spikes of timestep t are those from first[t] to first[t + 1].
    first = jnp.searchsorted(times, jnp.arange(timesteps + 1, dtype=times.dtype))
    place = first[:-1, None] + jnp.arange(slots)
    is_spike = (place < first[1:, None]) & (place < capacity)
    return jnp.where(is_spike, indices[jnp.minimum(place, capacity - 1)], inputs)


def spike_slots(total: float, *, overflow: float = 1e-6) -> int:
    """Number of slots that holds all spikes of a timestep, except with probability `overflow`.

    The least `k` with `P(Poisson(total) > k) <= overflow`.

    Args:
        total: Sum of the rates, in spikes per timestep.
        overflow: Admissible share of timesteps that lose spikes, in (0, 1).

    Returns:
        Slots, at least 1.

    Raises:
        ValueError: If `total` is negative or not finite, or `overflow` is outside (0, 1).
    """
    if not (math.isfinite(total) and total >= 0):
        raise ValueError(f"total is spikes per timestep, at least 0, got {total}")
    if not 0 < overflow < 1:
        raise ValueError(
            f"overflow is a share of the timesteps, in (0, 1), got {overflow}: 1e-6 is usual"
        )
    slots, term = 0, math.exp(-total)
    cumulative = term
    # Ends the loop where rounding keeps 1 - cumulative above a tiny overflow.
    bound = math.ceil(total + 20 * math.sqrt(total) + 20)
    # The first term underflows, and with it all others: the loop would count to the bound.
    if term == 0:
        return bound
    while 1 - cumulative > overflow and slots < bound:
        slots += 1
        term *= total / slots
        cumulative += term
    return max(slots, 1)
