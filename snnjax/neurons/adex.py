"""The adaptive exponential integrate-and-fire neuron (AdEx).

    C dv/dt     = -g (v - E) + g D exp((v - V) / D) - w + x
    tau_w dw/dt = a (v - E) - w
    v >= peak:    spike,  v <- reset,  w <- w + b

Integrated by forward Euler steps of `dt`; the exponential is evaluated at `min(v, peak)`.

Reference: Brette and Gerstner, "Adaptive Exponential Integrate-and-Fire Model as an Effective
Description of Neuronal Activity", Journal of Neurophysiology 94, 2005.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from snnjax.neurons._inverses import center
from snnjax.neurons.model import Model, Parameter, Refusal, check_options
from snnjax.ops.arguments import check_numbers
from snnjax.surrogate import Surrogate, arctan
from snnjax.typing import Array, bind

__all__ = ["AdExParams", "AdExState", "adex", "adex_model"]


class AdExParams(NamedTuple):
    """Parameters of `adex`, each a scalar or an array that broadcasts against one timestep.

    Attributes:
        capacitance: C, pF.
        conductance: g, nS.
        leak: E, potential at rest, mV.
        onset: V, potential at which the exponential starts, mV.
        slope: D, sharpness of the onset, mV.
        peak: potential of a spike, mV.
        reset: potential after a spike, mV.
        tau_w: time constant of the adaptation, ms.
        a: coupling of the adaptation to the membrane, nS.
        b: adaptation per spike, pA.
    """

    capacitance: Parameter
    conductance: Parameter
    leak: Parameter
    onset: Parameter
    slope: Parameter
    peak: Parameter
    reset: Parameter
    tau_w: Parameter
    a: Parameter
    b: Parameter


class AdExState(NamedTuple):
    """State of `adex`: membrane potential `v`, mV, and adaptation `w`, pA, each `[B, ...]`."""

    v: Array
    w: Array


def _rest(shape: tuple[int, ...], *, leak: float, dtype: Any = jnp.float32) -> AdExState:
    return AdExState(jnp.full(shape, leak, dtype), jnp.zeros(shape, dtype))


def adex(
    params: AdExParams, state: AdExState, current: Array, *, dt: float, spike: Surrogate
) -> tuple[AdExState, Array]:
    """One timestep of adaptive exponential neurons.

        h = v + dt / C (-g (v - E) + g D exp((min(v, peak) - V) / D) - w + x)
        s = [h >= peak],    v <- reset where s, else h
        w <- w + dt / tau_w (a (v - E) - w) + b s            of v before the step

    Args:
        params: see `AdExParams`.
        state: membrane potential and adaptation.
        current: `[B, ...]`, pA.
        dt: length of a timestep, ms.
        spike: spike function and its surrogate derivative, of `h - peak` in mV.

    Returns:
        The new state and the spikes, 0 or 1, `[B, ...]`.

    Reference:
        Brette and Gerstner, "Adaptive Exponential Integrate-and-Fire Model as an Effective
        Description of Neuronal Activity", Journal of Neurophysiology 94, 2005.
    """
    p, v, w = params, state.v, state.w
    # A spike's upswing is not resolved: beyond the peak the exponential would overflow.
    rise = p.slope * jnp.exp((jnp.minimum(v, p.peak) - p.onset) / p.slope)
    h = v + dt / p.capacitance * (p.conductance * (rise - (v - p.leak)) - w + current)
    spikes = spike(h - p.peak)
    w = w + dt / p.tau_w * (p.a * (v - p.leak) - w) + p.b * spikes
    # Not h + s (reset - h): far above the peak the difference would lose the reset.
    return AdExState((1 - spikes) * h + spikes * p.reset, w), spikes


def adex_model(
    *,
    capacitance: Parameter = 281.0,
    conductance: Parameter = 30.0,
    leak: Parameter = -70.6,
    onset: Parameter = -50.4,
    slope: Parameter = 2.0,
    peak: Parameter = 20.0,
    reset: Parameter = -70.6,
    tau_w: Parameter = 144.0,
    a: Parameter = 4.0,
    b: Parameter = 80.5,
    dt: float = 0.1,
    spike: Surrogate = arctan(alpha=0.1),
) -> Model:
    """Model of adaptive exponential integrate-and-fire (AdEx) neurons.

        C dv/dt     = -g (v - E) + g D exp((v - V) / D) - w + x
        tau_w dw/dt = a (v - E) - w
        v >= peak:    spike,  v <- reset,  w <- w + b

    Currents x `[T, B, ...]` in pA; spikes s `[T, B, ...]`, 0 or 1. Any consistent units serve, such
    as C = g = 1 without units. The state at rest is `v = E`, its mean where it differs between
    neurons, and `w = 0`.

    Args:
        capacitance: C, pF.
        conductance: g, nS.
        leak: E, potential at rest, mV.
        onset: V, potential at which the exponential starts, mV.
        slope: D, sharpness of the onset, mV.
        peak: potential of a spike, mV.
        reset: potential after a spike, mV.
        tau_w: time constant of the adaptation, ms.
        a: coupling of the adaptation to the membrane, nS.
        b: adaptation per spike, pA.
        dt: length of a timestep, ms; the Euler step is stable below C / g, 9 ms, and resolves the
            onset at 0.1.
        spike: spike function and its surrogate derivative, of a distance in mV.

    Raises:
        ValueError: a parameter out of range, or a `dt` above C / g or tau_w.

    Reference:
        Brette and Gerstner, "Adaptive Exponential Integrate-and-Fire Model as an Effective
        Description of Neuronal Activity", Journal of Neurophysiology 94, 2005.
    """
    check_options("adex_model", spike=spike)
    check_numbers(
        "adex_model", above=0, capacitance=capacitance, conductance=conductance, slope=slope,
        tau_w=tau_w, dt=dt,
    )  # fmt: skip
    check_numbers("adex_model", leak=leak, onset=onset, peak=peak, reset=reset, a=a, b=b)
    check_numbers("adex_model", above=0, most=1, **_shares(capacitance, conductance, tau_w, dt))
    params = AdExParams(
        capacitance, conductance, leak, onset, slope, peak, reset, tau_w, a, b
    )  # fmt: skip
    return Model(
        bind(adex, dt=float(dt), spike=spike),
        params,
        bind(_rest, leak=center(leak)),
        inverse=Refusal(
            "an AdEx neuron resets to a fixed potential and forgets its membrane: use "
            "memory.recompute(every)"
        ),
        name="adex",
    )


def _shares(
    capacitance: Parameter, conductance: Parameter, tau_w: Parameter, dt: float
) -> dict[str, Any]:
    """Shares of a distance from rest that one step takes back; above 1 it overshoots."""
    return {
        "dt * conductance / capacitance": dt * conductance / capacitance,
        "dt / tau_w": dt / tau_w,
    }
