"""Leaky integrate-and-fire neurons without a reset, parallel over time.

    charge   h[t] = decay * h[t-1] + g * x[t]        g = 1, or 1 - decay with `scale_input`
    fire     s[t] = [h[t] >= threshold]

Without a reset the recurrence is linear, so timesteps compose associatively:

    (a, b) then (a', b')   =   (a a', a' b + b')     (a, b) is the map h <- a h + b

A prefix sum takes `log2 T` rounds, each parallel over time, instead of `T` steps. The neuron is
`lif` with `reset=none`, but the sums are grouped differently: membranes agree to rounding, and a
spike can differ if its membrane is within rounding of the threshold.

References: Martin, Cundy, "Parallelizing Linear Recurrent Neural Nets Over Sequence Length", 2018,
arXiv:1709.04057 (the prefix sum and its derivative); Fang et al., "Parallel Spiking Neurons with
High Efficiency and Ability to Learn Long-term Dependencies", NeurIPS 2023, arXiv:2304.12760 (LIF
neurons without a reset are parallel over time).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from snnjax.neurons.decay import sum_to
from snnjax.neurons.lif import LIFParams, LIFState, input_gain
from snnjax.surrogate import Surrogate, arctan
from snnjax.typing import Array

__all__ = ["gated_recurrence", "linear_recurrence", "reset_free_lif_scan"]


def linear_recurrence(decay: Array, first: Array, xs: Array) -> Array:
    """`v[t] = decay * v[t-1] + x[t]` at all timesteps, by `jax.lax.associative_scan`.

    Differentiable in both modes; a derivative keeps several arrays of the size of `xs`.

    Args:
        decay: fraction kept per timestep, a scalar or broadcastable against one timestep.
        first: `v` before the first timestep, `[B, ...]`.
        xs: `[T, B, ...]`.

    Returns:
        `[T, B, ...]`.
    """
    if not len(xs):
        return xs
    decay = jnp.asarray(decay, xs.dtype)
    # The initial state enters the first element, so the prefix sum needs no extra one.
    start = decay * first + xs[0]
    return _recur(decay, jnp.concatenate([start[None], xs[1:]]), reverse=False)


def gated_recurrence(gates: Array, first: Array, xs: Array) -> Array:
    """`v[t] = gates[t] * v[t-1] + x[t]` at all timesteps, by `jax.lax.associative_scan`.

    Args:
        gates: fraction kept at each timestep, `[T, B, ...]`.
        first: `v` before the first timestep, `[B, ...]`.
        xs: `[T, B, ...]`, at least one timestep.

    Returns:
        `[T, B, ...]`.
    """
    start = gates[0] * first + xs[0]
    return _recur_gated(gates, jnp.concatenate([start[None], xs[1:]]))


def reset_free_lif_scan(
    params: LIFParams,
    state: LIFState,
    xs: Array,
    *,
    spike: Surrogate = arctan(),
    scale_input: bool = False,
) -> tuple[LIFState, Array]:
    """Whole sequence of LIF neurons without a reset, parallel over time.

        h[t] = decay * h[t-1] + g * x[t],    s[t] = [h[t] >= threshold]

    Equal to `memory.store` of `lif` with `reset=none` up to rounding. The derivative is written by
    hand: with `G_s`, `G_v` the cotangents of the spikes and of the last membrane,

        G_h[t]   = G_s[t] * s'(h[t] - threshold) + decay * G_h[t+1],    G_h[T-1] += G_v
        G_x[t]   = g * G_h[t]
        G_decay  = sum over t of (h[t-1] - x[t] if scale_input else h[t-1]) * G_h[t]

    the same recurrence backwards. It keeps `T` membranes, 4 bytes per neuron and step in float32,
    as `lif_scan` does. A prefix sum does more arithmetic than a loop in fewer rounds: on a device
    with few parallel lanes, measure it against `lif_scan` with `reset=none`. Second derivatives are
    exact too, in forward or reverse mode over the gradient. Do not use it for forward mode first:
    use `memory.store(lif, ...)`.

    Args:
        params: `decay` (fraction kept per timestep) and `threshold` (membrane potential).
        state: membrane potential before the first step, `[B, ...]`.
        xs: currents, `[T, B, ...]`, in units of the membrane potential per timestep.
        spike: spike function and its surrogate derivative.
        scale_input: charge with `(1 - decay) * x`; the gradient of `decay` then needs `decay < 1`.

    Returns:
        The state after the last step and the spikes, `[T, B, ...]`.

    Raises:
        TypeError: the first derivative was requested in forward mode (raised by JAX).
    """
    if not len(xs):
        return state, xs
    dtype = jnp.result_type(state.v, xs)
    params = LIFParams(*(jnp.asarray(p, dtype) for p in params))
    v, xs = state.v.astype(dtype), xs.astype(dtype)
    outputs: Any = _sequence(spike, scale_input, params, v, xs)
    v, spikes = outputs
    return LIFState(v), spikes


def _compose(earlier, later):
    """Composition of two affine maps of the membrane, `(a, b)` for `h <- a h + b`."""
    return earlier[0] * later[0], later[0] * earlier[1] + later[1]


# Jitted: outside a jit, each operation of the prefix sum would compile by itself.
@functools.partial(jax.jit, static_argnames="reverse")
def _recur(decay: Array, xs: Array, *, reverse: bool) -> Array:
    shape = (1,) * (xs.ndim - 1 - decay.ndim) + decay.shape
    # Broadcast over time only: a scalar decay costs T numbers, not an array of the size of `xs`.
    decays = jnp.broadcast_to(decay.reshape(shape), (len(xs), *shape))
    return lax.associative_scan(_compose, (decays, xs), reverse=reverse)[1]


@jax.jit
def _recur_gated(gates: Array, xs: Array) -> Array:
    return lax.associative_scan(_compose, (gates, xs))[1]


def _fire(spike: Surrogate, threshold: Array, hs: Array) -> Array:
    return spike(hs - threshold)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sequence(spike, scale_input, params, v, xs):
    return _sequence_forward(spike, scale_input, params, v, xs)[0]


def _sequence_forward(spike, scale_input, params, v, xs):
    hs = linear_recurrence(params.decay, v, input_gain(params.decay, scale_input) * xs)
    return (hs[-1], _fire(spike, params.threshold, hs)), (params, v, hs)


def _sequence_backward(spike, scale_input, residuals, cotangents):
    params, first, hs = residuals
    g_last, g_spikes = cotangents
    # Spikes follow from the kept membranes; their slope is recomputed instead of kept.
    _, pull = jax.vjp(functools.partial(_fire, spike), params.threshold, hs)
    g_threshold, g_hs = pull(g_spikes)
    end = g_hs[-1] + g_last
    # The cotangent of the last membrane enters at the end, as the first one enters the start.
    g_hs = _recur(params.decay, jnp.concatenate([g_hs[:-1], end[None]]), reverse=True)
    slope = jnp.concatenate([first[None], hs[:-1]])
    if scale_input:  # dh/d(decay) = v - x, where h - v = (1 - decay) (x - v) gives x
        slope = (slope - hs) / (1 - params.decay)
    g_decay = sum_to(slope * g_hs, params.decay.shape)
    g_params = LIFParams(g_decay, g_threshold)
    return g_params, params.decay * g_hs[0], input_gain(params.decay, scale_input) * g_hs


_sequence.defvjp(_sequence_forward, _sequence_backward)
