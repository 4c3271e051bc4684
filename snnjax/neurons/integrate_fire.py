"""The integrate-and-fire neuron without a leak (IF): the LIF with decay 1.

    h[t] = v[t-1] + x[t],   s[t] = [h[t] >= threshold],   v[t] = h[t] - s[t] * threshold

Without a leak, undoing a step does not amplify rounding errors: with reset by subtraction this is
the membrane that can be reversed over any number of steps. The sum of inputs is kept, too,

    v[T] + threshold * (number of spikes) = v[0] + sum of x

so that rates follow the mean current: networks of activations become networks of these neurons
(`snnjax.conversion`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from snnjax import surrogate
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
from snnjax.ops.arguments import check_flags, check_numbers
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
    latency: bool = False,
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
        latency: fire before the current arrives, see `integrate_fire_model`.

    Returns:
        The new state and the spikes, 0 or 1, `[B, ...]`.
    """
    if latency:
        spikes = surrogate.strict(spike)(state.v - params.threshold)
        return LIFState(reset(state.v, spikes, params.threshold) + current), spikes
    return lif(_lif_params(params, current), state, current, spike=spike, reset=reset)


def integrate_fire_model(
    *,
    threshold: Parameter = 1.0,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
    initial: float = 0.0,
    latency: bool = False,
    sequence: Sequence = lif_scan,
) -> Model:
    """Model of integrate-and-fire (IF) neurons, which do not leak.

        h[t] = v[t-1] + x[t]
        s[t] = [h[t] >= threshold]              derivative: the surrogate's
        v[t] = h[t] - s[t] * threshold          or another rule of `reset`

    Currents x `[T, B, ...]` in units of the membrane potential per timestep; spikes s `[T, B,
    ...]`, 0 or 1. With reset by subtraction any number of steps can be undone.

    With `latency` a neuron fires on the membrane of the step before, `s[t] = [v[t-1] > threshold]`,
    and resets while it integrates the next current, `v[t] = v[t-1] - s[t] * threshold + x[t]`: a
    spike crosses one layer per timestep.

    Args:
        threshold: membrane potential at which a neuron fires, a number or an array that broadcasts
            against one timestep.
        spike: spike function and its surrogate derivative.
        reset: effect of a spike on the membrane potential.
        initial: membrane potential at rest, before the first timestep. At half the threshold the
            number of spikes of a constant current is rounded to the nearest, not down.
        latency: fire one timestep late, strictly above the threshold.
        sequence: whole-sequence function of a LIF, `neurons.lif_scan` or the Pallas kernel
            `neurons.lif_kernel`; unused with a delayed reset and with `latency`.

    Raises:
        ValueError: a threshold that is not positive; `latency` with a delayed reset.
    """
    check_options("integrate_fire_model", spike=spike, reset=reset, threshold=threshold)
    check_numbers("integrate_fire_model", initial=initial)
    check_flags("integrate_fire_model", latency=latency)
    if latency and reset.delay:
        raise ValueError("integrate_fire_model: latency delays the reset already: leave delay out")
    options: dict[str, Any] = {"spike": spike, "reset": reset}
    # The function of a sequence fires after the charge.
    bound = None if latency else bind_sequence(sequence, **options)
    step = bind(integrate_fire, **options, **({"latency": True} if latency else {}))
    # A hard reset has no inverse, without a leak either.
    inverse = inverse_or_refusal(lif_inverse, decay=1.0, reset=reset)
    return Model(
        step,
        IFParams(threshold),
        bind(_charged, v=float(initial)) if initial else lif_state,
        # No name is `fixed`: the decay is 1 whatever is learned, so the number of steps stays
        # unlimited.
        bound and LIFFunction(_lif_params, bound),
        inverse if isinstance(inverse, Refusal) else LIFFunction(_lif_params, inverse),
        name="if",
    )


def _lif_params(params: IFParams, current: Array) -> LIFParams:
    # In the dtype of the current: a float32 one would widen bfloat16 currents.
    return LIFParams(jnp.ones((), current.dtype), params.threshold)


def _charged(shape: tuple[int, ...], *, v: float, dtype=jnp.float32) -> LIFState:
    return LIFState(jnp.full(shape, v, dtype))
