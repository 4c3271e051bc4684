"""The leaky integrate-and-fire neuron (LIF).

    charge   h[t] = decay * v[t-1] + g * x[t]        g = 1, or 1 - decay with `scale_input`
    fire     s[t] = [h[t] >= threshold]              derivative: the surrogate's
    reset    v[t] = h[t] - s[t] * threshold          or another rule of `neurons.reset`

`lif` is one timestep, to be scanned by any strategy of `snnjax.memory`. `lif_scan` is the whole
sequence with a hand-written derivative that keeps only `h`.

Reference: Lapicque 1907; the discrete form after Wu, Deng, Li, Zhu, Shi, "Spatio-Temporal
Backpropagation for Training High-Performance Spiking Neural Networks", 2018, arXiv:1706.02609.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from snnjax.neurons.decay import sum_to
from snnjax.neurons.reset import Reset, subtract
from snnjax.ops.isolate import isolate
from snnjax.surrogate import Surrogate, arctan
from snnjax.typing import Array

__all__ = ["LIFParams", "LIFState", "charge", "lif", "lif_scan", "lif_state"]


class LIFParams(NamedTuple):
    """Parameters of `lif`, each a scalar or an array that broadcasts against one timestep.

    Attributes:
        decay: membrane kept per timestep, in (0, 1]; see `euler_decay` and `exponential_decay`.
        threshold: membrane potential at which the neuron fires.
    """

    decay: Array
    threshold: Array


class LIFState(NamedTuple):
    """State of `lif`: the membrane potential `v`, `[B, ...]`, after the reset."""

    v: Array


def lif_state(shape: tuple[int, ...], *, dtype=jnp.float32) -> LIFState:
    """The resting state: `v = 0`, of the shape of one timestep of current, `(B, ...)`."""
    return LIFState(jnp.zeros(shape, dtype))


def lif(
    params: LIFParams,
    state: LIFState,
    current: Array,
    *,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
    scale_input: bool = False,
) -> tuple[LIFState, Array]:
    """One timestep of leaky integrate-and-fire neurons (equation above).

    Args:
        params: `decay` and `threshold`.
        state: the membrane after the last step, `[B, ...]`.
        current: input current, `[B, ...]`, in the unit of the membrane potential per timestep.
        spike: the spike function and its surrogate derivative.
        reset: what a spike does to the membrane.
        scale_input: charge with `(1 - decay) * current`, so that a constant current is the
            membrane's fixed point whatever the decay.

    Returns:
        The new state and the spikes, 0 or 1, `[B, ...]`.
    """
    before = state.v
    if reset.delay:
        before = reset(params.decay * before, spike(before - params.threshold), params.threshold)
        h = before + input_gain(params.decay, scale_input) * current
        return LIFState(h), spike(h - params.threshold)
    h = charge(params.decay, before, current, scale_input=scale_input)
    v, spikes = fire_and_reset(spike, reset, params.threshold, h)
    return LIFState(v), spikes


def charge(decay: Array, v: Array, current: Array, *, scale_input: bool = False) -> Array:
    """`h = decay * v + g * current`: the one expression for charging, in every pass.

    Two ways of writing it differ in the last bit, which is enough to flip a spike. So do two ways
    of compiling it: of a sum of two products either may be fused with the sum, hence one product.
    """
    if scale_input:
        return current + decay * (v - current)
    return decay * v + current


def lif_scan(
    params: LIFParams,
    state: LIFState,
    xs: Array,
    *,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
    scale_input: bool = False,
) -> tuple[LIFState, Array]:
    """A whole sequence of `lif` that keeps only the pre-reset membrane for its derivative.

    Equal in value to `memory.store(lif, params, state, xs)`. With `G_s`, `G_v` the cotangents of
    the spikes and of the membrane after the reset, the backward pass runs from the last step:

        G_h[t]   = G_s[t] * s'(h[t] - threshold) + G_v[t] * dv/dh[t]
        G_x[t]   = g * G_h[t]              G_v[t-1] += decay * G_h[t]
        G_decay += (v[t-1] - x[t] if scale_input else v[t-1]) * G_h[t]

    where spikes, `v` and `x` are derived again from `h`. Kept: `T` membranes (4 bytes per neuron
    and step in float32) whatever is differentiated, and no extra forward pass. `memory.store` keeps
    as many where the reset subtracts and decay and threshold are not differentiated, two for a
    detached hard reset, three for a full one or for differentiated parameters, four for both. Do
    not use it for forward-mode differentiation or second derivatives: use `memory.store(lif, ...)`.

    Args:
        params: as for `lif`.
        state: the membrane before the first step, `[B, ...]`.
        xs: currents, `[T, B, ...]`.
        spike: as for `lif`.
        reset: as for `lif`, but not delayed.
        scale_input: as for `lif`; the gradient of `decay` then needs `decay < 1` (it is NaN at 1,
            where the neuron has no input), and its rounding error may grow as `1 / (1 - decay)`.

    Returns:
        The state after the last step and the spikes, `[T, B, ...]`.

    Raises:
        ValueError: the reset is delayed.
        AssertionError: the membranes have another shape than a step's currents.
        TypeError: forward-mode differentiation was asked for (raised by JAX).

    Reference:
        Backpropagation through time. That `h` alone suffices is also what the kernels of
        spikingjelly 2.0 rest on: Huang, Fang, Hao, Ma, Tian, "Towards Lossless Memory-efficient
        Training of Spiking Neural Networks via Gradient Checkpointing and Spike Compression", ICLR
        2026.
    """
    if reset.delay:
        raise ValueError(
            "lif_scan keeps one membrane per step and a delayed reset needs two: scan the step "
            "instead, memory.store(lif, ...) or memory.recompute(every)(lif, ...)"
        )
    import chex

    chex.assert_shape(state.v, xs.shape[1:], custom_message="one membrane per current of a step")
    # As a sum of membrane and current would be: a decay in the dtype of integer currents is 0.
    dtype = jnp.result_type(state.v, xs)
    params = LIFParams(*(jnp.asarray(p, dtype) for p in params))
    outputs: Any = _whole(spike, reset, scale_input, params, state.v, xs.astype(dtype))
    v, spikes = outputs
    return LIFState(v), spikes


def input_gain(decay: Array, scale_input: bool):
    """The factor of the current in `charge`: 1, or `1 - decay`."""
    return 1 - decay if scale_input else 1


def decay_slope(decay: Array, v: Array, h: Array, *, scale_input: bool) -> Array:
    """`dh/d(decay)` of `h = charge(decay, v, x)`, without `x`.

    Under `scale_input` it is `v - x`, and `x` is in `h`: `h - v = (1 - decay) (x - v)`.
    """
    return (v - h) / (1 - decay) if scale_input else v


def fire_and_reset(
    spike: Surrogate, reset: Reset, threshold: Array, h: Array
) -> tuple[Array, Array]:
    """The membrane after the reset, and the spikes: the one expression for both, in every pass."""
    spikes = spike(h - threshold)
    return reset(h, spikes, threshold), spikes


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _whole(spike, reset, scale_input, params, v, xs):
    if not len(xs):
        return v, xs
    return _replaced(spike, reset, scale_input, params, v, xs, spikes=True)


def whole_forward(spike, reset, scale_input, params, v, xs):
    """The last membrane and the spikes; what the backward pass needs, `(params, v, hs)`."""
    if not len(xs):
        return (v, xs), (params, v, xs)
    last, hs = _replaced(spike, reset, scale_input, params, v, xs, spikes=False)
    return (last, spike(hs - params.threshold)), (params, v, hs)


def _replaced(spike, reset, scale_input, params, v, xs, *, spikes):
    """The last membrane, and the spikes or the membranes before the reset.

    They take the place of the currents, each one step after it was made: a write and then a read of
    the same array is what XLA does in place, and a loop that fills an array of its own begins with
    zeros in it.
    """
    charged = functools.partial(charge, params.decay, scale_input=scale_input)
    fire = functools.partial(fire_and_reset, spike, reset, params.threshold)

    def step(carry, t):
        h, seq = carry
        after, fired = fire(h)
        made = fired if spikes else h
        seq = lax.dynamic_update_index_in_dim(seq, made, t - 1, 0)
        x = lax.dynamic_index_in_dim(seq, t, keepdims=False)
        return (charged(after, x), seq), None

    start = (charged(v, xs[0]), _joined(xs))
    (h, seq), _ = lax.scan(step, start, jnp.arange(1, len(xs), dtype=jnp.uint32))
    last, fired = fire(h)
    return last, seq.at[-1].set(fired if spikes else h)


def whole_backward(spike, reset, scale_input, residuals, cotangents):
    """The cotangents of parameters, first membrane and currents; equation in `lif_scan`."""
    params, first, hs = residuals
    g_last, g_spikes = cotangents
    gain = input_gain(params.decay, scale_input)
    fire = functools.partial(fire_and_reset, spike, reset)
    decay_gradient = functools.partial(_decay_gradient, params.decay, scale_input)
    if not len(hs):
        return LIFParams(*(jnp.zeros_like(p) for p in params)), g_last, g_spikes
    if len(hs) == 1:
        start = (jnp.zeros_like(params.threshold), g_spikes[0])
        g_threshold, g_h = _undone_alone(fire, start, params.threshold, hs[0], g_last)
        g_params = LIFParams(decay_gradient(first, hs[0], g_h), g_threshold)
        return g_params, params.decay * g_h, (gain * g_h)[None]

    g_spikes = _joined(g_spikes)

    def undo(h, g_v, g_s):
        (v, _), pull = jax.vjp(fire, params.threshold, h)
        return v, *pull((g_v, g_s))

    def step(carry, t):
        later, g_h, g_params, g_seq = carry
        # The currents' cotangents take the place of the spikes', as in the forward pass.
        g_seq = lax.dynamic_update_index_in_dim(g_seq, gain * g_h, t + 1, 0)
        h, g_s = (lax.dynamic_index_in_dim(a, t, keepdims=False) for a in (hs, g_seq))
        v, g_threshold, g_before = undo(h, params.decay * g_h, g_s)
        # The membrane before step t+1 is known only here, one step further back.
        g_decay = decay_gradient(v, later, g_h)
        g_params = LIFParams(g_params.decay + g_decay, g_params.threshold + g_threshold)
        return (h, g_before, g_params, g_seq), None

    _, g_threshold, g_h = undo(hs[-1], g_last, g_spikes[-1])
    g_params = LIFParams(jnp.zeros_like(params.decay), g_threshold)
    before = jnp.arange(len(hs) - 1, dtype=jnp.uint32)
    (later, g_h, g_params, g_seq), _ = lax.scan(
        step, (hs[-1], g_h, g_params, g_spikes), before, reverse=True
    )
    g_decay = g_params.decay + decay_gradient(first, later, g_h)
    return g_params._replace(decay=g_decay), params.decay * g_h, g_seq.at[0].set(gain * g_h)


_whole.defvjp(whole_forward, whole_backward)


def _joined(sequence):
    """The same array, in the mesh of the context if there is one: what is written into it is.

    JAX wants the shardings of both to be equal, and only arithmetic moves an array from outside.
    """
    return sequence * jnp.ones((), sequence.dtype)


def _decay_gradient(decay, scale_input, v_before, h, g_h):
    slope = decay_slope(decay, v_before, h, scale_input=scale_input)
    return sum_to(slope * g_h, decay.shape)


def _undone_alone(fire, carry, threshold, h, g_v):
    """`(anything, g_spikes)` to `(g_threshold, g_h)` of one step, by itself (`ops.isolate`).

    XLA:CPU would write the expression into each place that reads it, with the step's forward pass
    in front of it, and copy `g_v` besides.
    """

    def pulled(carry, threshold, h, g_v):
        _, pull = jax.vjp(fire, threshold, h)
        return pull((g_v, carry[1]))

    return isolate(pulled, carry, threshold, h, g_v)
