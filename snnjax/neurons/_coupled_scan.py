"""A whole sequence of `coupled_lif`; its derivative recovers inputs and membranes from the outputs.

    kept   T C outputs of 4 bytes, T C spikes of 1 bit, (T / refresh) C membranes of 4 bytes

As in the paper, the inputs and membranes of each step are not kept. The outputs exist anyway if the
next layer keeps its input; beyond them the node keeps `1/8 + 4 / refresh` bytes per neuron and
step, against 8 of `memory.store` (20 with differentiated parameters) and 4 of `lif_scan` for a
plain LIF. The outputs are real numbers, though: after a plain LIF a synapse can keep its input at
one bit per spike (`memory.packed`), and then a plain LIF and its synapse together need no more
memory than this node and its synapse.

The paper claims 58.65 times less memory per node, against a node whose bytes it does not state.
Beyond its outputs, and with a refresh every 4 steps, this function keeps 8 / (1/8 + 4/4) = 7.1
times less than the same node under `memory.store` (17.8 times with differentiated parameters) and
3.6 times less than `lif_scan`; not counting the refreshed membranes, 64, 160 and 32 times less.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from snnjax.neurons._inverses import largest, smallest
from snnjax.neurons.coupled import (
    CoupledLIFInverse,
    CoupledLIFParams,
    CoupledLIFState,
    advance,
    coupled_lif,
    coupled_lif_inverse,
    halves,
    undo,
)
from snnjax.neurons.decay import sum_to
from snnjax.ops.arguments import is_traced
from snnjax.ops.derivative import refuse_second_derivative
from snnjax.ops.trees import nan_unless
from snnjax.surrogate import Surrogate, arctan
from snnjax.typing import Array

__all__ = ["coupled_lif_scan"]


def coupled_lif_scan(
    params: CoupledLIFParams,
    state: CoupledLIFState,
    xs: Array,
    *,
    spike: Surrogate = arctan(),
    refresh: int | None = 4,
) -> tuple[CoupledLIFState, Array]:
    """Whole sequence of `coupled_lif`, inverted and differentiated in one pass from its end.

    Equal in value to `memory.store(coupled_lif, params, state, xs)`. With `a1, a2` the cotangents
    of the outputs, `b1, b2` those of the membranes after a step, `p = s'(m - threshold)` and
    `k = 1 - decay`, the backward pass is, from the last step (`<-` overwrites):

        g2 = a2 p2 + b2 (1 - s2)      a1 <- a1 + k g2      b1 <- b1 + decay g2
        g1 = a1 p1 + b1 (1 - s1)
        G_x1 = beta a2 + k g1         G_v1 = alpha b2 + decay g1
        G_x2 = beta a1                G_v2 = alpha b1
        G_decay     += g1 (v1 - x1) + g2 (w1 - y1)        G_alpha += b1 v2 + b2 v1
        G_threshold -= a1 p1 + a2 p2                      G_beta  += a1 x2 + a2 x1

    The inverse recovers `m`, `v` and `x` on the way, so no step runs a second time. Outputs are
    exact. The gradient has the rounding errors of the recovered membranes, which grow by the factor
    of `coupled_lif_inverse` per step back until the next refresh, and those of the recovered
    inputs, about `2^-23 |y| / beta` at every step.

    Do not use it for forward-mode differentiation or second derivatives (refused): use
    `memory.store(coupled_lif, ...)`. For a float32 gradient as exact as that of `store`, use
    `memory.recompute(every)`.

    Args:
        params: as for `coupled_lif`; `alpha` and `beta` must not be 0.
        state: membrane potentials before the first step, each `[B, ..., C/2]`.
        xs: currents, `[T, B, ..., C]`, C even, in units of the membrane potential per timestep.
        spike: as for `coupled_lif`.
        refresh: largest number of steps undone in a row; every `refresh`-th state is kept. In
            float32 at most `coupled_lif_inverse(decay=..., alpha=...).steps`. None keeps only the
            last state.

    Returns:
        The state after the last step and the outputs, `[T, B, ..., C]`.

    Raises:
        ValueError: the number of channels is odd; `refresh` is not a positive number of steps, or
            more than the dtype can undo with these parameters. If they are traced (`jax.jit`), the
            gradient is NaN instead.
        AssertionError: the membranes have another shape than half of a step's currents.
        TypeError: forward-mode differentiation (raised by JAX) or a second derivative was
            requested.

    Reference:
        After Lei et al., "Towards Zero Memory Footprint Spiking Neural Network Training", 2023,
        arXiv:2308.08649; the equations are ours (see `neurons.coupled`).
    """
    if refresh is not None and (isinstance(refresh, bool) or refresh < 1):
        raise ValueError(f"refresh must be a positive number of steps or None, got {refresh!r}")
    import chex

    half = jax.eval_shape(halves, xs)[0].shape[1:]
    message = "one membrane per current of a step, in halves"
    chex.assert_shape(list(state), half, custom_message=message)
    every = max(1, len(xs) if refresh is None else min(refresh, len(xs)))
    dtype = jnp.result_type(state.v1, xs)
    accurate = _check_growth(params, state, every)
    # One dtype, so that the inverse repeats the step's arithmetic bit for bit.
    params = CoupledLIFParams(*(jnp.asarray(p, dtype) for p in params))
    state = jax.tree.map(lambda v: v.astype(dtype), state)
    outputs: Any = _sequence(spike, every, params, state, xs.astype(dtype), accurate)
    return outputs


def _check_growth(params, state, every):
    """None if so many steps can be undone, a traced boolean if only the program knows."""
    accurate = CoupledLIFInverse(None).check(params, state, every)
    if is_traced(accurate):
        return accurate
    decay, alpha = largest(params.decay), smallest(params.alpha)
    # The limit of the inverse is that of float32: float64 can undo far more steps.
    if state.v1.dtype == jnp.float32 and decay is not None and alpha is not None:
        steps = coupled_lif_inverse(decay=decay, alpha=alpha).steps
        accurate = steps is None or every <= steps
        limit = f"refresh={steps}"
    else:
        limit = "a smaller refresh"
    if not accurate:
        raise ValueError(
            f"this node cannot be undone for {every} steps before its rounding error matters: use "
            f"{limit}, or memory.recompute(every)"
        )
    return None


_NO_SECOND = (
    "coupled_lif_scan has no second derivative, since it keeps spikes as bits: use "
    "memory.store(coupled_lif, ...)"
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sequence(spike, every, params, state, xs, accurate):
    del every, accurate
    return lax.scan(lambda state, x: coupled_lif(params, state, x, spike=spike), state, xs)


def _sequence_forward(spike, every, params, state, xs, accurate):
    params, state, xs = refuse_second_derivative((params, state, xs), _NO_SECOND)
    # One slot per segment, the last one possibly short.
    slots = max(1, -(-len(xs) // every))
    kept = jax.tree.map(lambda v: jnp.zeros((slots, *v.shape), v.dtype), state)

    def step(carry, inputs):
        (state, kept), (t, x) = carry, inputs
        state, y, spikes = advance(spike, params, state, x)
        # Each step writes its segment's slot, so that the segment's last state stays there.
        kept = jax.tree.map(
            lambda slot, v: lax.dynamic_update_index_in_dim(slot, v, t // every, 0), kept, state
        )
        # The paper keeps no spikes. A membrane that rounding moves across the threshold would then
        # give a wrong spike, and a wrong state as far back as the next refresh (float32, decay =
        # alpha = beta = 0.5: none of 262,144 neurons after 5 steps, 19 after 8).
        return (state, kept), (y, jnp.packbits(spikes > 0, axis=-1))

    (last, kept), (ys, bits) = lax.scan(step, (state, kept), (jnp.arange(len(xs)), xs))
    return (last, ys), (params, kept, ys, bits, accurate)


def _sequence_backward(spike, every, residuals, cotangents):
    params, kept, ys, bits, accurate = residuals
    g_last, g_ys = cotangents
    # Every step back multiplies by it.
    g_last = nan_unless(accurate, g_last)
    last = jax.tree.map(lambda slots: slots[-1], kept)

    def step(carry, inputs):
        after, g_after, g_params = carry
        t, y, packed, g_y = inputs
        # At the end of a segment the walk restarts from the kept state, free of rounding errors.
        after = jax.tree.map(
            lambda slots, v: jnp.where(
                (t + 1) % every == 0,
                lax.dynamic_index_in_dim(slots, t // every, keepdims=False),
                v,
            ),
            kept,
            after,
        )
        spikes = jnp.unpackbits(packed, axis=-1, count=y.shape[-1]).astype(y.dtype)
        # Inverse and pullback share the membranes m1 and m2.
        before, more, g_before, g_x = _pull(spike, params, after, y, spikes, g_after, g_y)
        return (before, g_before, jax.tree.map(jnp.add, g_params, more)), g_x

    zeros = jax.tree.map(jnp.zeros_like, params)
    (_, g_first, g_params), g_xs = lax.scan(
        step, (last, g_last, zeros), (jnp.arange(len(ys)), ys, bits, g_ys), reverse=True
    )
    return g_params, g_first, g_xs, None


_sequence.defvjp(_sequence_forward, _sequence_backward)


def _pull(spike, params, after, outputs, spikes, g_after, g_outputs):
    """One step back: the state before it, and the cotangents of params, state and input."""
    (y1, y2), (s1, s2), (a1, a2) = halves(outputs), halves(spikes), halves(g_outputs)
    # Each output carries the other group's input, scaled by beta.
    x1, x2 = (y2 - s2) / params.beta, (y1 - s1) / params.beta
    before, m1, m2 = undo(params, after, y1, x1, spikes)
    p1, p2 = (spike.derivative(m - params.threshold) for m in (m1, m2))
    b1, b2 = g_after
    leak, beta, alpha = params.decay, params.beta, params.alpha

    g2 = a2 * p2 + b2 * (1 - s2)
    a1, b1 = a1 + (1 - leak) * g2, b1 + leak * g2
    g1 = a1 * p1 + b1 * (1 - s1)
    g_x = jnp.concatenate([beta * a2 + (1 - leak) * g1, beta * a1], -1)
    g_before = CoupledLIFState(alpha * b2 + leak * g1, alpha * b1)
    g_params = CoupledLIFParams(
        decay=g1 * (before.v1 - x1) + g2 * (after.v1 - y1),
        threshold=-(a1 * p1 + a2 * p2),
        alpha=b1 * before.v2 + b2 * before.v1,
        beta=a1 * x2 + a2 * x1,
    )
    g_params = jax.tree.map(lambda g, p: sum_to(g, p.shape), g_params, params)
    return before, g_params, g_before, g_x
