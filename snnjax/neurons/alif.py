"""The adaptive leaky integrate-and-fire neuron (ALIF): every spike raises the threshold.

    theta[t] = threshold + strength * a[t-1]         the effective threshold
    h[t]     = decay * v[t-1] + g * x[t]
    s[t]     = [h[t] >= theta[t]]
    v[t]     = reset(h[t], s[t], threshold)          a spike subtracts the baseline threshold
    a[t]     = adaptation_decay * a[t-1] + s[t]

Reference: Bellec, Scherr, Subramoney, Hajek, Salaj, Legenstein, Maass, "A solution to the learning
dilemma for recurrent networks of spiking neurons", Nature Communications 11, 2020.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp

from snnjax.neurons._inverses import (
    LeakInverse,
    check_invertible,
    inverse_or_refusal,
    is_accurate,
    reciprocal,
    smallest,
    undoable_steps,
)
from snnjax.neurons.lif import charge, membrane_before
from snnjax.neurons.model import Model, Parameter, check_options
from snnjax.neurons.reset import Reset, subtract
from snnjax.surrogate import Surrogate, arctan
from snnjax.typing import Array, bind

__all__ = [
    "ALIFInverse",
    "ALIFParams",
    "ALIFState",
    "alif",
    "alif_inverse",
    "alif_model",
    "alif_state",
]


class ALIFParams(NamedTuple):
    """Parameters of `alif`, each a scalar or an array that broadcasts against one timestep.

    Attributes:
        decay: fraction of the membrane potential kept per timestep, in (0, 1].
        threshold: baseline threshold, in units of the membrane potential.
        adaptation_decay: fraction of the adaptation kept per timestep, in (0, 1].
        strength: rise of the threshold per spike, in units of the membrane potential.
    """

    decay: Parameter
    threshold: Parameter
    adaptation_decay: Parameter
    strength: Parameter


class ALIFState(NamedTuple):
    """State of `alif`: membrane potential `v` and adaptation `a`, each `[B, ...]`."""

    v: Array
    a: Array


def alif_state(shape: tuple[int, ...], *, dtype=jnp.float32) -> ALIFState:
    """The state at rest, `v = a = 0`, for one timestep of currents of shape `(B, ...)`."""
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
    """One timestep of adaptive LIF neurons.

        h[t] = decay * v[t-1] + g * x[t]              g = 1, or 1 - decay with `scale_input`
        s[t] = [h[t] >= threshold + strength * a[t-1]]
        v[t] = h[t] - s[t] * threshold                or another rule of `reset`
        a[t] = adaptation_decay * a[t-1] + s[t]

    Args:
        params: decays (fractions kept per timestep), threshold and strength (membrane potential).
        state: membrane potential and adaptation after the last step, each `[B, ...]`.
        current: input current, `[B, ...]`, in units of the membrane potential per timestep.
        spike: spike function and its surrogate derivative.
        reset: effect of a spike on the membrane potential; must not be delayed.
        scale_input: charge with `(1 - decay) * current`.

    Returns:
        The new state and the spikes, 0 or 1, `[B, ...]`.

    Raises:
        ValueError: the reset is delayed.

    Reference:
        Bellec et al., "A solution to the learning dilemma for recurrent networks of spiking
        neurons", Nature Communications 11, 2020.
    """
    # A delayed reset recomputes the last spikes from the state, which no longer holds the threshold
    # they were compared with.
    if reset.delay:
        raise ValueError("an ALIF has no delayed reset: use subtract, zero, to(value) or none")
    h = charge(params.decay, state.v, current, scale_input=scale_input)
    # The threshold rises by the adaptation before this spike: a spike raises that of the next step.
    spikes = spike(h - (params.threshold + params.strength * state.a))
    v = reset(h, spikes, params.threshold)
    return ALIFState(v, params.adaptation_decay * state.a + spikes), spikes


@dataclasses.dataclass(frozen=True)
class ALIFInverse(LeakInverse):
    """The inverse of `alif`; made by `alif_inverse`.

        v[t-1] as for `LIFInverse`,    a[t-1] = (a[t] - s[t]) / adaptation_decay

    Attributes:
        fixed: parameters whose smallest values bound `steps`.
    """

    fixed: tuple[str, ...] = ("decay", "adaptation_decay")

    def __call__(
        self, params: ALIFParams, after: ALIFState, current: Array, spikes: Array
    ) -> ALIFState:
        """The state before a step, each `[B, ...]`."""
        v = membrane_before(self, params, after.v, current, spikes)
        # With the spikes given, the effective threshold is not needed.
        return ALIFState(v, (after.a - spikes) / params.adaptation_decay)

    def check(self, params: ALIFParams, state: ALIFState, steps: int) -> Any:
        """True if these parameters and this state allow to undo so many steps in a row."""
        growth = [[reciprocal(params.decay), 0], [0, reciprocal(params.adaptation_decay)]]
        return is_accurate(growth, state, steps, tolerance=self.tolerance)


def alif_inverse(
    *,
    decay: float,
    adaptation_decay: float,
    reset: Reset = subtract,
    scale_input: bool = False,
    tolerance: float = 1e-2,
) -> ALIFInverse:
    """Makes the inverse of `alif`, for as many steps as the smaller of its decays allows.

    Args:
        decay: smallest decay of the membrane potential.
        adaptation_decay: smallest decay of the adaptation.
        reset: as for `lif_inverse`.
        scale_input: as in the step.
        tolerance: as for `lif_inverse`.

    Returns:
        The inverse, for `memory.reverse(inverse, refresh=inverse.steps)`.

    Raises:
        ValueError: the reset has no inverse, or a decay is outside (0, 1].
    """
    check_invertible(reset, decay=decay, adaptation_decay=adaptation_decay)
    # Diagonal: given the spikes, the two parts are undone independently.
    growth = [[1 / decay, 0], [0, 1 / adaptation_decay]]
    return ALIFInverse(reset, scale_input, undoable_steps(growth, tolerance), tolerance)


def alif_model(
    *,
    decay: Parameter = 0.9,
    threshold: Parameter = 1.0,
    adaptation_decay: Parameter = 0.97,
    strength: Parameter = 0.2,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
    scale_input: bool = False,
) -> Model:
    """Model of adaptive LIF (ALIF) neurons, whose threshold rises with every spike.

        h[t] = decay * v[t-1] + g * x[t]              g = 1, or 1 - decay with `scale_input`
        s[t] = [h[t] >= threshold + strength * a[t-1]]
        v[t] = h[t] - s[t] * threshold                or another rule of `reset`
        a[t] = adaptation_decay * a[t-1] + s[t]

    Currents x `[T, B, ...]` in units of the membrane potential per timestep; spikes s `[T, B,
    ...]`, 0 or 1. Parameters are numbers or arrays that broadcast against one timestep.

    Args:
        decay: fraction of the membrane potential kept per timestep, in (0, 1].
        threshold: baseline threshold, in units of the membrane potential.
        adaptation_decay: fraction of the adaptation kept per timestep, in (0, 1].
        strength: rise of the threshold per spike, in units of the membrane potential.
        spike: spike function and its surrogate derivative.
        reset: effect of a spike on the membrane potential; must not be delayed.
        scale_input: charge with `(1 - decay) * x`.

    Reference:
        Bellec, Scherr, Subramoney, Hajek, Salaj, Legenstein, Maass, "A solution to the learning
        dilemma for recurrent networks of spiking neurons", Nature Communications 11, 2020.
    """
    check_options(
        "alif_model", spike=spike, reset=reset, decay=decay, threshold=threshold,
        adaptation_decay=adaptation_decay, strength=strength,
    )  # fmt: skip
    options: dict[str, Any] = {"reset": reset, "scale_input": scale_input}
    # The inverse depends on reset and scaling, not on the spike function.
    inverse = inverse_or_refusal(
        alif_inverse,
        # The smallest decay amplifies errors most, so it bounds the number of steps.
        decay=smallest(decay),
        adaptation_decay=smallest(adaptation_decay),
        **options,
    )
    return Model(
        bind(alif, spike=spike, **options),
        ALIFParams(decay, threshold, adaptation_decay, strength),
        alif_state,
        inverse=inverse,
        name="alif",
    )
