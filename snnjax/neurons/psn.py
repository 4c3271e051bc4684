"""Parallel spiking neurons (PSN): without a reset, all timesteps at once.

Without a reset a membrane is a weighted sum of what came in, and the weights can be learned:

    PSN       H = W X                                     W [T, T], learned
    masked    H = (lambda M_k + (1 - lambda)) * W X       M_k[t, s] = [t - k < s <= t]
    sliding   H[t] = sum over i < k of w[i] X[t-k+1+i]    w [k], the same at all timesteps
    fire      S[t] = [H[t] >= B[t]]                       B [T], or one B of the sliding one

with X `[T, B, ...]` the currents, a product over time for each neuron by itself. The PSN looks at
its whole window, past and future. The masked one of `lambda = 1` and the sliding one look at the
last `k` timesteps only; before the first one, currents are zero.

Reference: Fang, Yu, Zhou, Chen, Chen, Ma, Masquelier, Tian, "Parallel Spiking Neurons with High
Efficiency and Ability to Learn Long-term Dependencies", NeurIPS 2023, arXiv:2304.12760.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from snnjax.surrogate import Surrogate, arctan
from snnjax.typing import Array

__all__ = [
    "PSNParams",
    "SlidingPSNParams",
    "SlidingPSNState",
    "masked_weights",
    "psn",
    "psn_membranes",
    "sliding_psn",
    "sliding_psn_scan",
    "sliding_psn_state",
    "sliding_weights",
]


class PSNParams(NamedTuple):
    """Parameters of `psn`.

    Attributes:
        weights: `W`, `[T, T]`; row t makes the membrane at t.
        threshold: `B`, `[T]`, the membrane potential at which a neuron fires at t.
    """

    weights: Array
    threshold: Array


class SlidingPSNParams(NamedTuple):
    """Parameters of `sliding_psn`.

    Attributes:
        weights: `w`, `[k]`; the last one is of the current timestep.
        threshold: `B`, a scalar or broadcastable against one timestep.
    """

    weights: Array
    threshold: Array


class SlidingPSNState(NamedTuple):
    """State of `sliding_psn`.

    Attributes:
        v: the last membrane potential, `[B, ...]`; only looked at, the next one does not need it.
        inputs: the last `k - 1` currents, `[k - 1, B, ...]`, oldest first.
    """

    v: Array
    inputs: Array


def psn(params: PSNParams, xs: Array, *, spike: Surrogate = arctan()) -> Array:
    """Spikes of a whole window; there is no state.

    A derivative keeps the currents and the slope of every spike: 8 bytes per neuron and timestep in
    float32, twice what `lif_scan` keeps.

    Args:
        params: weights and thresholds; for a masked PSN the weights from `masked_weights`.
        xs: currents, `[T, B, ...]`.
        spike: the spike function and its surrogate derivative.

    Returns:
        Spikes, 0 or 1, `[T, B, ...]`.

    Raises:
        ValueError: the weights are of another number of timesteps.
    """
    h = psn_membranes(params, xs)
    threshold = jnp.asarray(params.threshold, xs.dtype)
    return spike(h - threshold.reshape(-1, *(1,) * (xs.ndim - 1)))


def psn_membranes(params: PSNParams, xs: Array) -> Array:
    """`H`, `[T, B, ...]`; arguments and errors as for `psn`."""
    shape = jnp.shape(params.weights)
    if shape != (len(xs), len(xs)):
        raise ValueError(
            f"weights over time of shape {list(shape)} do not fit a window of {len(xs)} timesteps: "
            "a PSN has one row per timestep, and sliding_psn_scan takes any number of them"
        )
    weights = jnp.asarray(params.weights, xs.dtype)
    return jnp.einsum("ts,s...->t...", weights, xs, precision="highest")


def masked_weights(weights: Array, *, order: int, masking: float | Array = 1.0) -> Array:
    """Weights of a masked PSN: those outside of the last `order` timesteps fade out.

        (lambda M_k + (1 - lambda)) * W,       M_k[t, s] = 1 where t - k < s <= t, else 0

    Progressive masking raises `lambda` from 0 to 1 in training, so that a PSN becomes one that
    needs no future inputs.

    Args:
        weights: `W`, `[T, T]`.
        order: `k`, the timesteps that a neuron looks at, at least 1; `T` is the lower triangle.
        masking: `lambda` in [0, 1]; at 1 the weights outside of the band, and the derivatives by
            them, are 0 exactly.

    Returns:
        `[T, T]`.
    """
    steps = jnp.arange(len(weights))
    back = steps[:, None] - steps[None, :]
    band = ((back >= 0) & (back < order)).astype(weights.dtype)
    masking = jnp.asarray(masking, weights.dtype)
    return (masking * band + (1 - masking)) * weights


def sliding_weights(order: int) -> Array:
    """The weights that a sliding PSN starts with, `(.., 1/4, 1/2, 1)`, `[order]` float32.

    It is then a LIF neuron of decay 1/2 without a reset that forgets after `order` timesteps.
    """
    return 0.5 ** jnp.arange(order - 1, -1, -1, dtype=jnp.float32)


def sliding_psn_state(shape: tuple[int, ...], *, order: int, dtype=jnp.float32) -> SlidingPSNState:
    """No current so far, of the shape of one timestep, `(B, ...)`."""
    return SlidingPSNState(jnp.zeros(shape, dtype), jnp.zeros((order - 1, *shape), dtype))


def sliding_psn(
    params: SlidingPSNParams,
    state: SlidingPSNState,
    current: Array,
    *,
    spike: Surrogate = arctan(),
) -> tuple[SlidingPSNState, Array]:
    """One timestep of sliding parallel spiking neurons, for streams and for any memory strategy.

    It forgets what left its window of `k` timesteps, so it has no inverse.

    Args:
        params: weights and threshold.
        state: the currents before this one.
        current: input current, `[B, ...]`.
        spike: the spike function and its surrogate derivative.

    Returns:
        The new state and the spikes, 0 or 1, `[B, ...]`.
    """
    state, spikes = sliding_psn_scan(params, state, current[None], spike=spike)
    return state, spikes[0]


def sliding_psn_scan(
    params: SlidingPSNParams,
    state: SlidingPSNState,
    xs: Array,
    *,
    spike: Surrogate = arctan(),
) -> tuple[SlidingPSNState, Array]:
    """A whole sequence of `sliding_psn`, of any length, in `k` products with shifted currents.

    Equal in value to scanning the step. A derivative keeps what `psn` keeps. That of the sum is
    written by hand, with `G` the cotangent of the membranes, 0 before and after the sequence:

        G_X[s] = sum over i < k of w[i] G[s+k-1-i],     G_w[i] = sum over t of G[t] X[t-k+1+i]

    Not for forward-mode or second derivatives: use `memory.store(sliding_psn, ...)`.

    Args:
        params: as for `sliding_psn`.
        state: the currents before the first one.
        xs: currents, `[T, B, ...]`.
        spike: as for `sliding_psn`.

    Returns:
        The state after the last timestep and the spikes, `[T, B, ...]`.

    Raises:
        ValueError: the state is of another order.
        TypeError: forward-mode differentiation was asked for (raised by JAX).
    """
    order = len(params.weights)
    if len(state.inputs) != order - 1:
        raise ValueError(
            f"a sliding PSN of order {order} has the last {order - 1} currents in its state, got "
            f"{len(state.inputs)}: make it with sliding_psn_state(shape, order={order})"
        )
    if not len(xs):
        return state, xs
    weights, threshold = (jnp.asarray(p, xs.dtype) for p in params)
    currents = jnp.concatenate([state.inputs, xs])
    h = (_slide if len(xs) == 1 else _slide_whole)(weights, currents)
    return SlidingPSNState(h[-1], currents[len(xs) :]), spike(h - threshold)


def _slide(weights: Array, currents: Array) -> Array:
    """One expression for step and sequence: another order of summation could flip a spike."""
    timesteps = len(currents) - len(weights) + 1
    h = weights[0] * currents[:timesteps]
    for shift in range(1, len(weights)):
        h = h + weights[shift] * currents[shift : shift + timesteps]
    return h


@jax.custom_vjp
def _slide_whole(weights: Array, currents: Array) -> Array:
    return _slide(weights, currents)


def _forward(weights: Array, currents: Array):
    return _slide(weights, currents), (weights, currents)


def _backward(residuals, cotangent: Array):
    weights, currents = residuals
    order, steps = len(weights), len(cotangent)
    shifted = (currents[shift : shift + steps] for shift in range(order))
    g_weights = jnp.stack([jnp.sum(cotangent * part) for part in shifted])
    # Padded by lax, and not joined to zeros: XLA then fuses the shifts into the sum.
    zero, others = jnp.zeros((), cotangent.dtype), [(0, 0, 0)] * (cotangent.ndim - 1)
    padded = (
        jax.lax.pad(cotangent, zero, [(shift, order - 1 - shift, 0), *others])
        for shift in range(order)
    )
    g_currents = sum(weight * part for weight, part in zip(weights, padded, strict=True))
    return g_weights, g_currents


_slide_whole.defvjp(_forward, _backward)
