"""The current-based LIF (CUBA): a synapse filters the input before it charges the membrane.

    i[t] = synaptic_decay * i[t-1] + x[t]
    h[t] = decay * v[t-1] + g * i[t],    then fire and reset as a LIF

Reference: Gerstner, Kistler, Naud, Paninski, "Neuronal Dynamics", 2014, chapter 1; discrete form as
in Zenke and Ganguli, "SuperSpike", 2018, arXiv:1705.11146.
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
from snnjax.neurons.lif import LIFParams, LIFState, input_gain, lif, membrane_before
from snnjax.neurons.model import Model, Parameter, check_options
from snnjax.neurons.reset import Reset, subtract
from snnjax.surrogate import Surrogate, arctan
from snnjax.typing import Array, bind

__all__ = [
    "CubaLIFInverse",
    "CubaLIFParams",
    "CubaLIFState",
    "cuba_lif",
    "cuba_lif_inverse",
    "cuba_lif_model",
    "cuba_lif_state",
]


class CubaLIFParams(NamedTuple):
    """Parameters of `cuba_lif`, each a scalar or an array that broadcasts against one timestep.

    Attributes:
        decay: fraction of the membrane potential kept per timestep, in (0, 1].
        synaptic_decay: fraction of the synaptic current kept per timestep, in [0, 1); 0 gives the
            plain LIF.
        threshold: membrane potential at which the neuron fires.
    """

    decay: Parameter
    synaptic_decay: Parameter
    threshold: Parameter


class CubaLIFState(NamedTuple):
    """State of `cuba_lif`: membrane potential `v` and synaptic current `i`, each `[B, ...]`."""

    v: Array
    i: Array


def cuba_lif_state(shape: tuple[int, ...], *, dtype=jnp.float32) -> CubaLIFState:
    """The state at rest, `v = i = 0`, for one timestep of currents of shape `(B, ...)`."""
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
    """One timestep of current-based LIF neurons.

        i[t] = synaptic_decay * i[t-1] + x[t]
        h[t] = decay * v[t-1] + g * i[t]        g = 1, or 1 - decay with `scale_input`
        s[t] = [h[t] >= threshold]              derivative: the surrogate's
        v[t] = h[t] - s[t] * threshold          or another rule of `reset`

    Args:
        params: decays (fractions kept per timestep) and threshold (membrane potential).
        state: membrane potential and synaptic current after the last step, each `[B, ...]`.
        current: input of the synapse, `[B, ...]`, in units of the synaptic current per timestep.
        spike: spike function and its surrogate derivative.
        reset: effect of a spike on the membrane potential.
        scale_input: charge with `(1 - decay) * i`.

    Returns:
        The new state and the spikes, 0 or 1, `[B, ...]`.
    """
    i = params.synaptic_decay * state.i + current
    membrane = LIFParams(params.decay, params.threshold)
    new, spikes = lif(
        membrane, LIFState(state.v), i, spike=spike, reset=reset, scale_input=scale_input
    )
    return CubaLIFState(new.v, i), spikes


@dataclasses.dataclass(frozen=True)
class CubaLIFInverse(LeakInverse):
    """The inverse of `cuba_lif`; made by `cuba_lif_inverse`.

        v[t-1] as for `LIFInverse` with input i[t],    i[t-1] = (i[t] - x[t]) / synaptic_decay

    Attributes:
        fixed: parameters whose smallest values bound `steps`.
    """

    fixed: tuple[str, ...] = ("decay", "synaptic_decay")

    def __call__(
        self, params: CubaLIFParams, after: CubaLIFState, current: Array, spikes: Array
    ) -> CubaLIFState:
        """The state before a step, each `[B, ...]`."""
        # The membrane was charged by the filtered current of this step, which is the state after
        # it.
        v = membrane_before(self, params, after.v, after.i, spikes)
        return CubaLIFState(v, (after.i - current) / params.synaptic_decay)

    def check(self, params: CubaLIFParams, state: CubaLIFState, steps: int) -> Any:
        """True if these parameters and this state allow to undo so many steps in a row."""
        back = reciprocal(params.decay)
        growth = [[back, back - 1 if self.scale_input else back]]
        growth.append([0, reciprocal(params.synaptic_decay)])
        return is_accurate(growth, state, steps, tolerance=self.tolerance)


def cuba_lif_inverse(
    *,
    decay: float,
    synaptic_decay: float,
    reset: Reset = subtract,
    scale_input: bool = False,
    tolerance: float = 1e-2,
) -> CubaLIFInverse:
    """Makes the inverse of `cuba_lif`, for slightly fewer steps than its smaller decay allows.

    The error of the synaptic current adds to that of the membrane potential,
    `e_v <- (e_v + g e_i) / decay`.

    Args:
        decay: smallest decay of the membrane potential.
        synaptic_decay: smallest decay of the synaptic current.
        reset: as for `lif_inverse`.
        scale_input: as in the step.
        tolerance: largest error of the state, as a share of its largest magnitude.

    Returns:
        The inverse, for `memory.reverse(inverse, refresh=inverse.steps)`.

    Raises:
        ValueError: the reset has no inverse, or a decay is outside (0, 1]; with a synaptic decay of
            0 use `lif`, which has an inverse.
    """
    # A decay of 0 has no inverse: the step forgets the synaptic current.
    check_invertible(reset, decay=decay, synaptic_decay=synaptic_decay)
    gain = input_gain(decay, scale_input)
    # Rows: errors of v and i. Undoing v subtracts the current, whose error enters the first row.
    growth = [[1 / decay, gain / decay], [0, 1 / synaptic_decay]]
    return CubaLIFInverse(reset, scale_input, undoable_steps(growth, tolerance), tolerance)


def cuba_lif_model(
    *,
    decay: Parameter = 0.9,
    synaptic_decay: Parameter = 0.8,
    threshold: Parameter = 1.0,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
    scale_input: bool = False,
) -> Model:
    """Model of current-based LIF (CUBA) neurons, with a synaptic and a membrane decay.

        i[t] = synaptic_decay * i[t-1] + x[t]
        h[t] = decay * v[t-1] + g * i[t]        g = 1, or 1 - decay with `scale_input`
        s[t] = [h[t] >= threshold]              derivative: the surrogate's
        v[t] = h[t] - s[t] * threshold          or another rule of `reset`

    Inputs x `[T, B, ...]` in units of the synaptic current per timestep; spikes s `[T, B, ...]`, 0
    or 1. Parameters are numbers or arrays that broadcast against one timestep.

    Args:
        decay: fraction of the membrane potential kept per timestep, in (0, 1].
        synaptic_decay: fraction of the synaptic current kept per timestep, in [0, 1).
        threshold: membrane potential at which a neuron fires.
        spike: spike function and its surrogate derivative.
        reset: effect of a spike on the membrane potential.
        scale_input: charge with `(1 - decay) * i`.

    Reference:
        Gerstner, Kistler, Naud, Paninski, "Neuronal Dynamics", 2014, chapter 1; discrete form as
        in Zenke and Ganguli, "SuperSpike", 2018, arXiv:1705.11146.
    """
    check_options(
        "cuba_lif_model", spike=spike, reset=reset, decay=decay, synaptic_decay=synaptic_decay,
        threshold=threshold,
    )  # fmt: skip
    # The inverse depends on reset and scaling, not on the spike function.
    options: dict[str, Any] = {"reset": reset, "scale_input": scale_input}
    inverse = inverse_or_refusal(
        cuba_lif_inverse,
        decay=smallest(decay),
        synaptic_decay=smallest(synaptic_decay),
        **options,
    )
    return Model(
        bind(cuba_lif, spike=spike, **options),
        CubaLIFParams(decay, synaptic_decay, threshold),
        cuba_lif_state,
        inverse=inverse,
        name="cubalif",
    )
