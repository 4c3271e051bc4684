"""Firing rates: weighted means over time, and the clamp that maps mean currents to rates.

    mean of x over T timesteps      sum_t w[t] x[t],   w[t] = decay^(T-1-t) / sum_s decay^s
    clamp(z, low, high)             z between the bounds, else the bound

With `decay=1` (integrate-and-fire neurons) the mean is the plain one. The sum `v[t] = decay v[t-1]
+ x[t]` of leaky neurons has the same weights, so that these means turn the dynamics of a neuron
into one equation of its mean current and its rate.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from snnjax.typing import Array

__all__ = ["broadcast_steps", "clamp", "mean", "total_weight"]


def total_weight(timesteps: int, *, decay: float = 1.0) -> float:
    """Sum of `decay^t` over T timesteps: T without a leak.

    Args:
        timesteps: T.
        decay: fraction of the membrane potential kept per timestep, in (0, 1].
    """
    return float(timesteps) if decay == 1 else (1 - decay**timesteps) / (1 - decay)


def mean(inputs: Array, *, decay: float = 1.0) -> Array:
    """Weighted mean over time, `[T, ...] -> [...]`; late timesteps weigh most.

        sum_t decay^(T-1-t) x[t] / sum_t decay^t

    Args:
        inputs: sequence, `[T, ...]`, floating.
        decay: fraction of the membrane potential kept per timestep, in (0, 1].
    """
    if decay == 1 or len(inputs) == 1:
        return inputs.mean(0)
    weights = decay ** jnp.arange(len(inputs) - 1, -1, -1, dtype=inputs.dtype)
    weights = weights / total_weight(len(inputs), decay=decay)
    return jnp.tensordot(weights, inputs, 1)


def broadcast_steps(rate: Array, timesteps: int, *, decay: float = 1.0) -> Array:
    """Sequence whose plain mean over time is the rate, `[...] -> [T, ...]`, weighted as `mean`.

        x[t] = rate * T * decay^(T-1-t) / sum_s decay^s

    Args:
        rate: mean over time.
        timesteps: T.
        decay: 1 for equal timesteps.
    """
    if decay == 1:
        return jnp.broadcast_to(rate, (timesteps, *rate.shape))
    weights = decay ** jnp.arange(timesteps - 1, -1, -1, dtype=rate.dtype)
    weights = weights * (timesteps / total_weight(timesteps, decay=decay))
    return weights.reshape(-1, *(1,) * rate.ndim) * rate


def clamp(inputs: Array, low: Array | float, high: Array | float, *, strict: bool = False) -> Array:
    """Values between two bounds, with a stated derivative at the bounds themselves.

        inside the bounds      derivative 1 of the input
        above `high`           derivative 1 of `high`

    Rates of spikes lie on a bound all the time, and libraries differ there: `jnp.clip` has the
    derivative 0.5 at a bound, `lax.clamp` 0.

    Args:
        inputs: any array.
        low: lower bound, without a derivative.
        high: upper bound; broadcasts.
        strict: derivative 0 of inputs that equal a bound, instead of 1.
    """
    low = jax.lax.stop_gradient(jnp.asarray(low, inputs.dtype))
    high = jnp.asarray(high, inputs.dtype)
    inside = jnp.where((inputs > low) & (inputs < high), inputs, jax.lax.stop_gradient(inputs))
    # `where` routes the whole cotangent to one branch, also at a tie, which `minimum` would halve.
    return jnp.where(
        inputs > high, high, jnp.where(inputs < low, low, inside if strict else inputs)
    )
