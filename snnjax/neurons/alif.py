"""The adaptive leaky integrate-and-fire neuron (ALIF): every spike raises the threshold.

    theta[t] = threshold + strength * a[t-1]         the effective threshold
    h[t]     = decay * v[t-1] + g * x[t]
    s[t]     = [h[t] >= theta[t]]
    v[t]     = reset(h[t], s[t], threshold)          the baseline is what a spike subtracts
    a[t]     = adaptation_decay * a[t-1] + s[t]

Reference: Bellec, Scherr, Subramoney, Hajek, Salaj, Legenstein, Maass, "A solution to the learning
dilemma for recurrent networks of spiking neurons", Nature Communications 11, 2020.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from snnjax.neurons.lif import charge
from snnjax.neurons.reset import Reset, subtract
from snnjax.surrogate import Surrogate, arctan
from snnjax.typing import Array

__all__ = ["ALIFParams", "ALIFState", "alif", "alif_state"]


class ALIFParams(NamedTuple):
    """Parameters of `alif`, each a scalar or an array that broadcasts against one timestep.

    Attributes:
        decay: membrane kept per timestep, in (0, 1].
        threshold: baseline threshold, in the unit of the membrane potential.
        adaptation_decay: adaptation kept per timestep, in (0, 1].
        strength: rise of the threshold per spike, in the unit of the membrane potential.
    """

    decay: Array
    threshold: Array
    adaptation_decay: Array
    strength: Array


class ALIFState(NamedTuple):
    """State of `alif`: membrane `v` after the reset and adaptation `a`, each `[B, ...]`."""

    v: Array
    a: Array


def alif_state(shape: tuple[int, ...], *, dtype=jnp.float32) -> ALIFState:
    """The resting state: membrane and adaptation 0, of the shape of one step, `(B, ...)`."""
    return ALIFState(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))


def alif(
    params: ALIFParams,
    state: ALIFState,
    current: Array,
    *,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
    scale_input: bool = False,
) -> tuple[ALIFState, Array]:
    """One timestep of adaptive LIF neurons (equation above).

    Args:
        params: membrane and adaptation parameters.
        state: membrane and adaptation after the last step, `[B, ...]`.
        current: input current, `[B, ...]`.
        spike: the spike function and its surrogate derivative.
        reset: what a spike does to the membrane; must not be delayed.
        scale_input: charge with `(1 - decay) * current`.

    Returns:
        The new state and the spikes, `[B, ...]`.

    Raises:
        ValueError: the reset is delayed.
    """
    if reset.delay:
        raise ValueError("an ALIF has no delayed reset: use subtract, zero, to(value) or none")
    h = charge(params.decay, state.v, current, scale_input=scale_input)
    spikes = spike(h - (params.threshold + params.strength * state.a))
    v = reset(h, spikes, params.threshold)
    return ALIFState(v, params.adaptation_decay * state.a + spikes), spikes
