"""The current-based LIF (CUBA): the input is filtered by a synapse before it charges the membrane.

    i[t] = synaptic_decay * i[t-1] + x[t]
    h[t] = decay * v[t-1] + g * i[t],    then fire and reset as a LIF

Reference: Gerstner, Kistler, Naud, Paninski, "Neuronal Dynamics", 2014, chapter 1; discrete form as
in Zenke and Ganguli, "SuperSpike", 2018, arXiv:1705.11146.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from snnjax.neurons.lif import LIFParams, LIFState, lif
from snnjax.neurons.reset import Reset, subtract
from snnjax.surrogate import Surrogate, arctan
from snnjax.typing import Array

__all__ = ["CubaLIFParams", "CubaLIFState", "cuba_lif", "cuba_lif_state"]


class CubaLIFParams(NamedTuple):
    """Parameters of `cuba_lif`, each a scalar or an array that broadcasts against one timestep.

    Attributes:
        decay: membrane kept per timestep, in (0, 1].
        synaptic_decay: synaptic current kept per timestep, in [0, 1); 0 gives the plain LIF.
        threshold: membrane potential at which the neuron fires.
    """

    decay: Array
    synaptic_decay: Array
    threshold: Array


class CubaLIFState(NamedTuple):
    """State of `cuba_lif`: membrane `v` and synaptic current `i`, each `[B, ...]`."""

    v: Array
    i: Array


def cuba_lif_state(shape: tuple[int, ...], *, dtype=jnp.float32) -> CubaLIFState:
    """The resting state: membrane and synaptic current 0, of the shape of one step, `(B, ...)`."""
    return CubaLIFState(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))


def cuba_lif(
    params: CubaLIFParams,
    state: CubaLIFState,
    current: Array,
    *,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
    scale_input: bool = False,
) -> tuple[CubaLIFState, Array]:
    """One timestep of current-based LIF neurons; arguments and results as for `lif`."""
    i = params.synaptic_decay * state.i + current
    membrane = LIFParams(params.decay, params.threshold)
    new, spikes = lif(
        membrane, LIFState(state.v), i, spike=spike, reset=reset, scale_input=scale_input
    )
    return CubaLIFState(new.v, i), spikes
