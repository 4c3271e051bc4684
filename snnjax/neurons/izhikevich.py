"""The Izhikevich neuron: bursts, adaptation and resonance by a quadratic membrane.

    dv/dt = 0.04 v^2 + 5 v + 140 - u + x          mV, ms
    du/dt = a (b v - u)
    v >= peak:   spike,  v <- c,  u <- u + d

Reference: Izhikevich, "Simple Model of Spiking Neurons", IEEE Transactions on Neural Networks 14,
2003.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from snnjax.neurons._inverses import center
from snnjax.neurons.model import Model, Parameter, Refusal, check_options
from snnjax.ops.arguments import check_counts, check_numbers
from snnjax.surrogate import Surrogate, arctan
from snnjax.typing import Array, bind

__all__ = ["IzhikevichParams", "IzhikevichState", "izhikevich", "izhikevich_model"]


class IzhikevichParams(NamedTuple):
    """Parameters of `izhikevich`, each a scalar or an array that broadcasts to one timestep.

    Attributes:
        a: rate of the recovery, 1 / ms.
        b: coupling of the recovery to the membrane.
        c: potential after a spike, mV.
        d: recovery per spike.
        peak: potential of a spike, mV.
    """

    a: Parameter
    b: Parameter
    c: Parameter
    d: Parameter
    peak: Parameter


class IzhikevichState(NamedTuple):
    """State of `izhikevich`: membrane potential `v`, mV, and recovery `u`, each `[B, ...]`."""

    v: Array
    u: Array


def _rest(
    shape: tuple[int, ...], *, rest: float, coupling: float, dtype: Any = jnp.float32
) -> IzhikevichState:
    return IzhikevichState(jnp.full(shape, rest, dtype), jnp.full(shape, coupling * rest, dtype))


def izhikevich(
    params: IzhikevichParams,
    state: IzhikevichState,
    current: Array,
    *,
    dt: float,
    substeps: int,
    spike: Surrogate,
) -> tuple[IzhikevichState, Array]:
    """One timestep of Izhikevich neurons.

        h = v after `substeps` Euler steps of dt / substeps,    q = u + dt a (b h - u)
        s = [h >= peak],    v <- c where s, else h,    u <- q + d s

    Args:
        params: see `IzhikevichParams`.
        state: membrane potential and recovery.
        current: `[B, ...]`, mV / ms.
        dt: length of a timestep, ms.
        substeps: Euler steps of the membrane per timestep.
        spike: spike function and its surrogate derivative, of `h - peak` in mV.

    Returns:
        The new state and the spikes, 0 or 1, `[B, ...]`.

    Reference:
        Izhikevich, "Simple Model of Spiking Neurons", IEEE Transactions on Neural Networks 14,
        2003.
    """
    p, h = params, state.v
    for _ in range(substeps):
        h = h + dt / substeps * ((0.04 * h + 5) * h + 140 - state.u + current)
    u = state.u + dt * p.a * (p.b * h - state.u)
    spikes = spike(h - p.peak)
    return IzhikevichState((1 - spikes) * h + spikes * p.c, u + p.d * spikes), spikes


def izhikevich_model(
    *,
    a: Parameter = 0.02,
    b: Parameter = 0.2,
    c: Parameter = -65.0,
    d: Parameter = 8.0,
    peak: Parameter = 30.0,
    dt: float = 1.0,
    substeps: int = 2,
    rest: float = -65.0,
    spike: Surrogate = arctan(alpha=0.1),
) -> Model:
    """Model of Izhikevich neurons.

        dv/dt = 0.04 v^2 + 5 v + 140 - u + x
        du/dt = a (b v - u)
        v >= peak:   spike,  v <- c,  u <- u + d

    Currents x `[T, B, ...]` in mV / ms; spikes s `[T, B, ...]`, 0 or 1. The defaults are a regular
    spiking cell at the published steps, 1 ms with two half steps of the membrane. Fast spiking:
    `a=0.1, d=2`; chattering: `c=-50, d=2`; bursting: `c=-55, d=4`.

    Args:
        a: rate of the recovery, 1 / ms.
        b: coupling of the recovery to the membrane.
        c: potential after a spike, mV.
        d: recovery per spike.
        peak: potential of a spike, mV.
        dt: length of a timestep, ms; each Euler step of the membrane takes `dt / substeps`, at most
            1.
        substeps: Euler steps of the membrane per timestep.
        rest: membrane potential of the state at rest, mV; its recovery is `b * rest`, of the mean b
            where b differs between neurons.
        spike: spike function and its surrogate derivative, of a distance in mV.

    Raises:
        ValueError: a parameter out of range, or an Euler step above 1 ms.

    Reference:
        Izhikevich, "Simple Model of Spiking Neurons", IEEE Transactions on Neural Networks 14,
        2003.
    """
    check_options("izhikevich_model", spike=spike)
    check_numbers("izhikevich_model", above=0, a=a, dt=dt)
    check_numbers("izhikevich_model", b=b, c=c, d=d, peak=peak, rest=rest)
    check_counts("izhikevich_model", substeps=substeps)
    if dt > substeps:
        raise ValueError(
            f"Euler steps of {dt / substeps:g} ms are too long for this membrane, whose rate near "
            "the peak is above 1 / ms: give substeps of at least dt"
        )
    return Model(
        bind(izhikevich, dt=float(dt), substeps=substeps, spike=spike),
        IzhikevichParams(a, b, c, d, peak),
        bind(_rest, rest=float(rest), coupling=center(b)),
        inverse=Refusal(
            "an Izhikevich neuron resets to a fixed potential and forgets its membrane: use "
            "memory.recompute(every)"
        ),
        name="izhikevich",
    )
