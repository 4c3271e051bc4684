"""Neurons of spyx (`spyx.nn.LIF`)."""

from __future__ import annotations

import jax.numpy as jnp

from snnjax import surrogate
from snnjax.neurons.lif import LIFParams, LIFState, lif_state
from snnjax.neurons.model import Model
from snnjax.neurons.reset import subtract
from snnjax.surrogate import Surrogate
from snnjax.typing import Array, bind

__all__ = ["spyx_lif"]

# Their default surrogate, `axn.superspike(k=25)`.
_SUPERSPIKE = surrogate.fast_sigmoid(alpha=25.0)


def spyx_lif(
    beta: float,
    *,
    threshold: float = 1.0,
    spike: Surrogate = _SUPERSPIKE,
    dtype=jnp.float32,
) -> Model:
    """Model of `spyx.nn.LIF`, which reads spikes from the membrane *before* the input arrives.

    Theirs: `s = [V > threshold]` of the previous step, then `V = beta * V + x - s * threshold`,
    differentiated through `s`. The spike trains are those of `bind(lif, spike=strict(spike),
    reset=delayed(subtract))` one step late: the first output belongs to the initial state, and the
    spikes of the last membrane are never returned. Train with `lif` and that reset; use this model
    to reproduce outputs of spyx.

    Args:
        beta: decay per timestep, clipped to [0, 1] as theirs is.
        threshold: membrane potential; fires strictly above it.
        spike: surrogate, made strict here; their default is `axn.superspike(k=25)`. Their
            `axn.arctan(k)` is our `arctan(alpha=2 * k)` divided by `pi * k`.
        dtype: dtype of the parameters.
    """
    decay = jnp.asarray(min(max(beta, 0.0), 1.0), dtype)
    return Model(
        bind(_late_lif, spike=surrogate.strict(spike)),
        LIFParams(decay, jnp.asarray(threshold, dtype)),
        lif_state,
        name="lif",
    )


def _late_lif(params: LIFParams, state: LIFState, current: Array, *, spike: Surrogate):
    # The membrane before the input: `lif` would fire after the charge.
    spikes = spike(state.v - params.threshold)
    v = subtract(params.decay * state.v, spikes, params.threshold) + current
    return LIFState(v), spikes
