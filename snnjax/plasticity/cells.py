"""The two neurons that unsupervised networks are built of; mV and ms.

Current-based, a spike moves the membrane at once (I is excitation less inhibition):

    v <- rest + (v - rest) exp(-dt / tau) + [not refractory] I

Conductance-based, a spike opens a conductance, in units of that of the leak:

    g_e += excitation,  g_i += inhibition
    tau dv/dt = (rest - v) + g_e (0 - v) + g_i (reversal - v)        unless refractory
    tau_e dg_e/dt = -g_e,  tau_i dg_i/dt = -g_i

The step is exact for conductances held over it, `v <- v_inf + (v - v_inf) exp(-dt (1 + g_e + g_i) /
tau)` with `v_inf = (rest + g_i reversal) / (1 + g_e + g_i)`, and stable whatever they are. Euler's,
the original's, is not: once some 20 neurons fire in one step of 0.5 ms, inhibition of 17 throws the
others across their threshold.

Both fire where `v` reaches `threshold + theta`, are set to `reset`, and are refractory after.

Reference: P. U. Diehl, M. Cook, "Unsupervised learning of digit recognition using
spike-timing-dependent plasticity", 2015, and its released code; the current-based variant is what
H. Hazan et al., "BindsNET: A Machine Learning-Oriented Spiking Neural Networks Library in Python",
2018, arXiv:1806.01423, simulate.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax.numpy as jnp

from snnjax.typing import Array

__all__ = [
    "ConductanceCell",
    "ConductanceState",
    "CurrentCell",
    "CurrentState",
    "conductance_inhibitory",
    "current_inhibitory",
]


class CurrentState(NamedTuple):
    """Membrane `v`, mV, and what is left of the `refractory` period, ms; each `[N]`."""

    v: Array
    refractory: Array


@dataclasses.dataclass(frozen=True)
class CurrentCell:
    """A current-based neuron; defaults are the excitatory one's.

    Args:
        dt: Timestep, ms.
        tau: Time constant of the membrane, ms.
        rest: Where the membrane rests, mV.
        reset: Where a spike leaves it, mV.
        threshold: Where it fires, mV, before the adaptive offset.
        refractory: How long it ignores its input after a spike, ms; it still leaks.
        one_winner: Of all that reach their threshold in a timestep only the one that is furthest
            above it emits its spike; the others are reset and made refractory all the same.
            (BindsNET draws the winner.)
    """

    dt: float = 1.0
    tau: float = 100.0
    rest: float = -65.0
    reset: float = -60.0
    threshold: float = -52.0
    refractory: float = 5.0
    one_winner: bool = True

    def initial(self, neurons: int) -> CurrentState:
        """At rest."""
        return CurrentState(jnp.full(neurons, self.rest), jnp.zeros(neurons))

    def __call__(
        self, state: CurrentState, theta: Array, excitation: Array, inhibition: Array
    ) -> tuple[CurrentState, Array, Array]:
        """One timestep.

        Args:
            state: of the step before.
            theta: offset of the threshold, `[N]`, mV.
            excitation: `[N]`, mV.
            inhibition: `[N]`, mV, subtracted.

        Returns:
            The new state; the spikes, 0 or 1, `[N]`; who reached its threshold, bool, `[N]`.
        """
        current = jnp.where(state.refractory <= 0, excitation - inhibition, 0.0)
        v = self.rest + math.exp(-self.dt / self.tau) * (state.v - self.rest) + current
        over = v - (self.threshold + theta)
        crossed = over >= 0
        spikes = crossed
        if self.one_winner:
            spikes &= jnp.arange(over.size) == jnp.argmax(over)
        left = jnp.where(crossed, self.refractory, state.refractory - self.dt)
        v = jnp.where(crossed, self.reset, v)
        return CurrentState(v, left), spikes.astype(jnp.float32), crossed


class ConductanceState(NamedTuple):
    """Membrane `v`, mV, conductances, and ms since the last spike; each `[N]`."""

    v: Array
    excitation: Array
    inhibition: Array
    since: Array


@dataclasses.dataclass(frozen=True)
class ConductanceCell:
    """A conductance-based neuron; defaults are the excitatory one's.

    Args:
        dt: Timestep, ms.
        tau: Time constant of the membrane, ms.
        rest: Where the membrane rests, mV.
        reset: Where a spike leaves it, mV.
        threshold: Where it fires, mV, before the adaptive offset. The original's -72 mV plus its
            first offset of 20.
        refractory: How long the membrane stays clamped after a spike, ms.
        block: How long no second spike is let through, ms. The released code has a timer that is
            read as 50 ms by its ports and passes after one step if taken literally (0).
        reversal: Where inhibition pulls, mV.
        tau_excitation: Time constant of the excitatory conductance, ms.
        tau_inhibition: Of the inhibitory one.
        start: Membrane before the first presentation, mV; None is `rest`. The original starts its
            neurons 40 mV below.
        euler: Everything by Euler steps, as in the original (a conductance of 1 ms halves in a step
            of 0.5 ms).
    """

    dt: float = 0.5
    tau: float = 100.0
    rest: float = -65.0
    reset: float = -65.0
    threshold: float = -52.0
    refractory: float = 5.0
    block: float = 0.0
    reversal: float = -100.0
    tau_excitation: float = 1.0
    tau_inhibition: float = 2.0
    start: float | None = None
    euler: bool = False

    def initial(self, neurons: int) -> ConductanceState:
        """No conductance open, and no spike for long."""
        start = self.rest if self.start is None else self.start
        return ConductanceState(
            v=jnp.full(neurons, start),
            excitation=jnp.zeros(neurons),
            inhibition=jnp.zeros(neurons),
            since=jnp.full(neurons, 1e6),
        )

    def __call__(
        self, state: ConductanceState, theta: Array, excitation: Array, inhibition: Array
    ) -> tuple[ConductanceState, Array, Array]:
        """One timestep; arguments and results as for `CurrentCell`, in units of the leak."""
        g_e, g_i = state.excitation + excitation, state.inhibition + inhibition
        since = state.since + self.dt
        v = jnp.where(since > self.refractory, self._charged(state.v, g_e, g_i), state.v)
        free = since > max(self.refractory, self.block)
        spikes = (v > self.threshold + theta) & free
        v, since = jnp.where(spikes, self.reset, v), jnp.where(spikes, 0.0, since)
        g_e, g_i = g_e * self._kept(self.tau_excitation), g_i * self._kept(self.tau_inhibition)
        return ConductanceState(v, g_e, g_i, since), spikes.astype(jnp.float32), spikes

    def _charged(self, v: Array, g_e: Array, g_i: Array) -> Array:
        """The membrane after one timestep."""
        if self.euler:
            flow = (self.rest - v) - g_e * v + g_i * (self.reversal - v)
            return v + self.dt / self.tau * flow
        total = 1 + g_e + g_i
        goal = (self.rest + g_i * self.reversal) / total
        return goal + (v - goal) * jnp.exp(-self.dt / self.tau * total)

    def _kept(self, tau: float) -> float:
        """Share of a conductance after one timestep."""
        return 1 - self.dt / tau if self.euler else math.exp(-self.dt / tau)


def current_inhibitory(*, dt: float = 1.0) -> CurrentCell:
    """The current-based inhibitory neuron: fires in the step that excites it."""
    return CurrentCell(
        dt=dt, tau=10.0, rest=-60.0, reset=-45.0, threshold=-40.0, refractory=2.0, one_winner=False
    )


def conductance_inhibitory(*, dt: float = 0.5, euler: bool = False) -> ConductanceCell:
    """The conductance-based inhibitory neuron of the original."""
    return ConductanceCell(
        dt=dt,
        tau=10.0,
        rest=-60.0,
        reset=-45.0,
        threshold=-40.0,
        refractory=2.0,
        reversal=-85.0,
        euler=euler,
    )
