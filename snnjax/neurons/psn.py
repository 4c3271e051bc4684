"""Parallel spiking neurons (PSN): no reset, all timesteps at once.

Without a reset the membrane potential is a weighted sum of the currents, with learnable weights:

    PSN       H = W X                                     W [T, T], learned
    masked    H = (lambda M_k + (1 - lambda)) * W X       M_k[t, s] = [t - k < s <= t]
    sliding   H[t] = sum over i < k of w[i] X[t-k+1+i]    w [k], the same at all timesteps
    fire      S[t] = [H[t] >= B[t]]                       B [T]; a scalar for the sliding PSN

with X `[T, B, ...]` the currents: a product over time for each neuron. The PSN depends on its whole
window, past and future; the masked PSN with `lambda = 1` and the sliding PSN on the last `k`
timesteps only. Currents before the first timestep are zero.

Reference: Fang, Yu, Zhou, Chen, Chen, Ma, Masquelier, Tian, "Parallel Spiking Neurons with High
Efficiency and Ability to Learn Long-term Dependencies", NeurIPS 2023, arXiv:2304.12760.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from snnjax.neurons.model import Model, Parameter, check_options
from snnjax.ops.arguments import check_counts
from snnjax.surrogate import Surrogate, arctan
from snnjax.typing import Array, bind

__all__ = [
    "PSNParams",
    "SlidingPSNParams",
    "SlidingPSNState",
    "masked_weights",
    "psn",
    "psn_membranes",
    "sliding_psn",
    "sliding_psn_model",
    "sliding_psn_scan",
    "sliding_psn_state",
    "sliding_weights",
]


class PSNParams(NamedTuple):
    """Parameters of `psn`.

    Attributes:
        weights: `W`, `[T, T]`; row t weighs the currents for the membrane potential at t.
        threshold: `B`, `[T]`, membrane potential at which a neuron fires at t.
    """

    weights: Array
    threshold: Array


class SlidingPSNParams(NamedTuple):
    """Parameters of `sliding_psn`.

    Attributes:
        weights: `w`, `[k]`; the last entry weighs the present current.
        threshold: `B`, a scalar or broadcastable against one timestep.
    """

    weights: Array
    threshold: Parameter


class SlidingPSNState(NamedTuple):
    """State of `sliding_psn`.

    Attributes:
        v: last membrane potential, `[B, ...]`, for taps; the next step does not read it.
        inputs: last `k - 1` currents, `[k - 1, B, ...]`, oldest first.
    """

    v: Array
    inputs: Array


def psn(params: PSNParams, xs: Array, *, spike: Surrogate = arctan()) -> Array:
    """Stateless spikes of a whole window of parallel spiking neurons.

        H = W X,    S[t] = [H[t] >= B[t]]

    A derivative keeps the currents and the slope of every spike: 8 bytes per neuron and timestep in
    float32, twice those of `lif_scan`.

    Args:
        params: weights `W` `[T, T]` and thresholds `B` `[T]`; for a masked PSN the weights from
            `masked_weights`.
        xs: currents, `[T, B, ...]`, in units of the membrane potential.
        spike: spike function and its surrogate derivative.

    Returns:
        Spikes, 0 or 1, `[T, B, ...]`.

    Raises:
        ValueError: the weights have another number of timesteps.

    Reference:
        Fang, Yu, Zhou, Chen, Chen, Ma, Masquelier, Tian, "Parallel Spiking Neurons with High
        Efficiency and Ability to Learn Long-term Dependencies", NeurIPS 2023, arXiv:2304.12760.
    """
    h = psn_membranes(params, xs)
    threshold = jnp.asarray(params.threshold, xs.dtype)
    return spike(h - threshold.reshape(-1, *(1,) * (xs.ndim - 1)))


def psn_membranes(params: PSNParams, xs: Array) -> Array:
    """Membrane potentials `H = W X`, `[T, B, ...]`; arguments and errors as for `psn`."""
    shape = jnp.shape(params.weights)
    if shape != (len(xs), len(xs)):
        raise ValueError(
            f"weights over time of shape {list(shape)} do not fit a window of {len(xs)} timesteps: "
            "a PSN has one row per timestep, and sliding_psn_scan takes any number of them"
        )
    weights = jnp.asarray(params.weights, xs.dtype)
    # By default GPUs and TPUs round the factors of a product, which could flip spikes.
    return jnp.einsum("ts,s...->t...", weights, xs, precision="highest")


def masked_weights(weights: Array, *, order: int, masking: float | Array = 1.0) -> Array:
    """Weights of a masked PSN: weights outside of the last `order` timesteps fade out.

        (lambda M_k + (1 - lambda)) * W,       M_k[t, s] = 1 where t - k < s <= t, else 0

    Progressive masking raises `lambda` from 0 to 1 in training, which turns a PSN into one without
    future inputs.

    Args:
        weights: `W`, `[T, T]`.
        order: `k`, number of timesteps in a neuron's window, at least 1; `T` is the lower triangle.
        masking: `lambda` in [0, 1]; at 1 the weights outside of the band, and their derivatives,
            are exactly 0.

    Returns:
        `[T, T]`.
    """
    steps = jnp.arange(len(weights))
    back = steps[:, None] - steps[None, :]
    band = ((back >= 0) & (back < order)).astype(weights.dtype)
    masking = jnp.asarray(masking, weights.dtype)
    return (masking * band + (1 - masking)) * weights


def sliding_weights(order: int) -> Array:
    """Initial weights of a sliding PSN, `(.., 1/4, 1/2, 1)`, `[order]` float32.

    They make a LIF neuron of decay 1/2 without a reset, cut off after `order` timesteps.
    """
    return 0.5 ** jnp.arange(order - 1, -1, -1, dtype=jnp.float32)


def sliding_psn_state(shape: tuple[int, ...], *, order: int, dtype=jnp.float32) -> SlidingPSNState:
    """The state at rest, past currents 0, for one timestep of currents of shape `(B, ...)`."""
    return SlidingPSNState(jnp.zeros(shape, dtype), jnp.zeros((order - 1, *shape), dtype))


def sliding_psn(
    params: SlidingPSNParams,
    state: SlidingPSNState,
    current: Array,
    *,
    spike: Surrogate = arctan(),
) -> tuple[SlidingPSNState, Array]:
    """One timestep of sliding parallel spiking neurons, for streams and for any memory strategy.

        H[t] = sum over i < k of w[i] X[t-k+1+i],    S[t] = [H[t] >= B]

    The step has no inverse: currents that leave the window of `k` timesteps are discarded.

    Args:
        params: weights `w` `[k]` and threshold `B`.
        state: the last `k - 1` currents.
        current: input current, `[B, ...]`, in units of the membrane potential.
        spike: spike function and its surrogate derivative.

    Returns:
        The new state and the spikes, 0 or 1, `[B, ...]`.
    """
    # The sequence function on one timestep, so step and sequence have one order of summation.
    state, spikes = sliding_psn_scan(params, state, current[None], spike=spike)
    return state, spikes[0]


def sliding_psn_scan(
    params: SlidingPSNParams,
    state: SlidingPSNState,
    xs: Array,
    *,
    spike: Surrogate = arctan(),
) -> tuple[SlidingPSNState, Array]:
    """Whole sequence of `sliding_psn`, of any length, as `k` products with shifted currents.

        H[t] = sum over i < k of w[i] X[t-k+1+i],    S[t] = [H[t] >= B]

    Equal in value to scanning the step. Its derivative keeps as many bytes as that of `psn`. With
    `G` the cotangent of the membranes, 0 before and after the sequence, it is:

        G_X[s] = sum over i < k of w[i] G[s+k-1-i],     G_w[i] = sum over t of G[t] X[t-k+1+i]

    Second derivatives are exact too, in forward or reverse mode over the gradient. Do not use it
    for forward mode first: use `memory.store(sliding_psn, ...)`.

    Args:
        params: as for `sliding_psn`.
        state: the last `k - 1` currents before the sequence.
        xs: currents, `[T, B, ...]`.
        spike: as for `sliding_psn`.

    Returns:
        The state after the last timestep and the spikes, `[T, B, ...]`.

    Raises:
        ValueError: the state does not hold `k - 1` currents.
        TypeError: the first derivative was requested in forward mode (raised by JAX).
    """
    order = len(params.weights)
    if len(state.inputs) != order - 1:
        raise ValueError(
            f"a sliding PSN of order {order} has the last {order - 1} currents in its state, got "
            f"{len(state.inputs)}: make it with sliding_psn_state(shape, order={order})"
        )
    # The state of an empty sequence has no new membrane.
    if not len(xs):
        return state, xs
    weights, threshold = (jnp.asarray(p, xs.dtype) for p in params)
    # The past currents in front: every window then has `order` entries.
    currents = jnp.concatenate([state.inputs, xs])
    # One timestep is the step inside a scan: plain autodiff, so forward mode works there.
    h = (_slide if len(xs) == 1 else _slide_sequence)(weights, currents)
    return SlidingPSNState(h[-1], currents[len(xs) :]), spike(h - threshold)


def _slide(weights: Array, currents: Array) -> Array:
    # One expression for step and sequence: another order of summation could flip a spike.
    timesteps = len(currents) - len(weights) + 1
    h = weights[0] * currents[:timesteps]
    for shift in range(1, len(weights)):
        h = h + weights[shift] * currents[shift : shift + timesteps]
    return h


# Derivative by hand: one sum over shifts that XLA fuses, see `_backward`.
@jax.custom_vjp
def _slide_sequence(weights: Array, currents: Array) -> Array:
    return _slide(weights, currents)


def _forward(weights: Array, currents: Array):
    return _slide(weights, currents), (weights, currents)


def _backward(residuals, cotangent: Array):
    weights, currents = residuals
    order, steps = len(weights), len(cotangent)
    shifted = (currents[shift : shift + steps] for shift in range(order))
    g_weights = jnp.stack([jnp.sum(cotangent * part) for part in shifted])
    # lax.pad instead of a concatenation with zeros: XLA fuses it into the sum.
    zero, others = jnp.zeros((), cotangent.dtype), [(0, 0, 0)] * (cotangent.ndim - 1)
    padded = (
        jax.lax.pad(cotangent, zero, [(shift, order - 1 - shift, 0), *others])
        for shift in range(order)
    )
    g_currents = sum(weight * part for weight, part in zip(weights, padded, strict=True))
    return g_weights, g_currents


_slide_sequence.defvjp(_forward, _backward)


def sliding_psn_model(*, order: int, spike: Surrogate = arctan()) -> Model:
    """Model of sliding parallel spiking neurons (PSN) with `order` weights.

        H[t] = sum over i < k of w[i] X[t-k+1+i],    S[t] = [H[t] >= B]

    Currents X `[T, B, ...]` in units of the membrane potential; spikes S `[T, B, ...]`, 0 or 1.
    Weights start at `(.., 1/4, 1/2, 1)` and the threshold B at 1.

    Args:
        order: `k`, number of timesteps in the window, at least 1.
        spike: spike function and its surrogate derivative.

    Reference:
        Fang, Yu, Zhou, Chen, Chen, Ma, Masquelier, Tian, "Parallel Spiking Neurons with High
        Efficiency and Ability to Learn Long-term Dependencies", NeurIPS 2023, arXiv:2304.12760.
    """
    check_options("sliding_psn_model", spike=spike)
    check_counts("sliding_psn_model", order=order)
    options: dict[str, Any] = {"spike": spike}
    return Model(
        bind(sliding_psn, **options),
        SlidingPSNParams(sliding_weights(order), 1.0),
        bind(sliding_psn_state, order=order),
        bind(sliding_psn_scan, **options),
        name="sliding_psn",
    )
