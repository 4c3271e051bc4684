"""The integrate-and-fire neuron without a leak (IF): the LIF with decay 1.

    h[t] = v[t-1] + x[t],   s[t] = [h[t] >= threshold],   v[t] = h[t] - s[t] * threshold

Without a leak, undoing a step does not amplify rounding errors: with reset by subtraction this is
the membrane that can be reversed over any number of steps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from snnjax.neurons._inverses import inverse_or_refusal
from snnjax.neurons.lif import (
    LIFFunction,
    LIFParams,
    LIFState,
    lif,
    lif_inverse,
    lif_scan,
    lif_state,
)
from snnjax.neurons.model import Model, Parameter, Refusal, Sequence, bind_sequence, check_options
from snnjax.neurons.reset import Reset, subtract
from snnjax.surrogate import Surrogate, arctan
from snnjax.typing import Array, bind

__all__ = ["IFParams", "integrate_fire", "integrate_fire_model"]


class IFParams(NamedTuple):
    """Parameters of `integrate_fire`.

    Attributes:
        threshold: membrane potential at which the neuron fires.
    """

    threshold: Parameter


def integrate_fire(
    params: IFParams,
    state: LIFState,
    current: Array,
    *,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
) -> tuple[LIFState, Array]:
    """One timestep of integrate-and-fire neurons, `lif` with decay 1.

        h[t] = v[t-1] + x[t]
        s[t] = [h[t] >= threshold]              derivative: the surrogate's
        v[t] = h[t] - s[t] * threshold          or another rule of `reset`

    Args:
        params: `threshold`, in units of the membrane potential.
        state: membrane potential after the last step, `[B, ...]`.
        current: input current, `[B, ...]`, in units of the membrane potential per timestep.
        spike: spike function and its surrogate derivative.
        reset: effect of a spike on the membrane potential.

    Returns:
        The new state and the spikes, 0 or 1, `[B, ...]`.
    """
    return lif(_lif_params(params, current), state, current, spike=spike, reset=reset)


def integrate_fire_model(
    *,
    threshold: Parameter = 1.0,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
    sequence: Sequence = lif_scan,
) -> Model:
    """Model of integrate-and-fire (IF) neurons, which do not leak.

        h[t] = v[t-1] + x[t]
        s[t] = [h[t] >= threshold]              derivative: the surrogate's
        v[t] = h[t] - s[t] * threshold          or another rule of `reset`

    Currents x `[T, B, ...]` in units of the membrane potential per timestep; spikes s `[T, B,
    ...]`, 0 or 1. With reset by subtraction any number of steps can be undone.

    Args:
        threshold: membrane potential at which a neuron fires, a number or an array that broadcasts
            against one timestep.
        spike: spike function and its surrogate derivative.
        reset: effect of a spike on the membrane potential.
        sequence: whole-sequence function of a LIF, `neurons.lif_scan` or the Pallas kernel
            `neurons.lif_kernel`; unused with a delayed reset.
    """
    check_options("integrate_fire_model", spike=spike, reset=reset, threshold=threshold)
    options: dict[str, Any] = {"spike": spike, "reset": reset}
    bound = bind_sequence(sequence, **options)
    # A hard reset has no inverse, without a leak either.
    inverse = inverse_or_refusal(lif_inverse, decay=1.0, reset=reset)
    return Model(
        bind(integrate_fire, **options),
        IFParams(threshold),
        lif_state,
        # No name is `fixed`: the decay is 1 whatever is learned, so the number of steps stays
        # unlimited.
        bound and LIFFunction(_lif_params, bound),
        inverse if isinstance(inverse, Refusal) else LIFFunction(_lif_params, inverse),
        name="if",
    )


def _lif_params(params: IFParams, current: Array) -> LIFParams:
    # In the dtype of the current: a float32 one would widen bfloat16 currents.
    return LIFParams(jnp.ones((), current.dtype), params.threshold)
