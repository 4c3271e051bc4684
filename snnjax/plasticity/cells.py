"""Current-based and conductance-based neurons of unsupervised networks; mV and ms.

Current-based: a spike moves the membrane at once (I is excitation less inhibition):

    v <- rest + (v - rest) exp(-dt / tau) + [not refractory] I

Conductance-based: a spike opens a conductance, in units of the leak conductance:

    g_e += excitation,  g_i += inhibition
    tau dv/dt = (rest - v) + g_e (0 - v) + g_i (reversal - v)        unless refractory
    tau_e dg_e/dt = -g_e,  tau_i dg_i/dt = -g_i

The step is exact for conductances that are constant over it, `v <- v_inf + (v - v_inf) exp(-dt (1 +
g_e + g_i) / tau)` with `v_inf = (rest + g_i reversal) / (1 + g_e + g_i)`, and stable for every
conductance. The Euler step of the original is not: once some 20 neurons fire in one step of 0.5 ms,
an inhibition of 17 throws the other neurons across their threshold.

Both neurons fire where `v` reaches `threshold + theta`, are set to `reset`, and are refractory
afterwards.

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
    """Membrane potential `v`, mV, and remaining `refractory` period, ms; each `[N]`."""

    v: Array
    refractory: Array


@dataclasses.dataclass(frozen=True)
class CurrentCell:
    """Current-based neuron; the defaults are those of the excitatory neuron.

    Args:
        dt: Timestep, ms.
        tau: Time constant of the membrane, ms.
        rest: Resting potential, mV.
        reset: Potential after a spike, mV.
        threshold: Firing threshold, mV, before the adaptive offset.
        refractory: Refractory period, ms: the neuron ignores its input and still leaks.
        one_winner: Lets only the neuron furthest above its threshold emit its spike in a timestep;
            the others that crossed are reset and made refractory all the same. (BindsNET draws the
            winner at random.)
    """

    dt: float = 1.0
    tau: float = 100.0
    rest: float = -65.0
    reset: float = -60.0
    threshold: float = -52.0
    refractory: float = 5.0
    one_winner: bool = True

    def initial_state(self, neurons: int) -> CurrentState:
        """State of N neurons at rest."""
        return CurrentState(jnp.full(neurons, self.rest), jnp.zeros(neurons))

    def __call__(
        self, state: CurrentState, theta: Array, excitation: Array, inhibition: Array
    ) -> tuple[CurrentState, Array, Array]:
        """Advances the neurons by one timestep.

        Args:
            state: State after the previous timestep.
            theta: Adaptive offset of the threshold, `[N]`, mV.
            excitation: Excitatory input, `[N]`, mV.
            inhibition: Inhibitory input, `[N]`, mV, subtracted.

        Returns:
            The new state; the spikes, 0 or 1, `[N]`; the mask of the neurons that reached their
            threshold, bool, `[N]`.
        """
        # A refractory neuron ignores its input but leaks, as in BindsNET.
        current = jnp.where(state.refractory <= 0, excitation - inhibition, 0.0)
        v = self.rest + math.exp(-self.dt / self.tau) * (state.v - self.rest) + current
        excess = v - (self.threshold + theta)
        crossed = excess >= 0
        spikes = crossed
        if self.one_winner:
            # argmax returns one index also where no neuron crossed: hence the conjunction.
            spikes &= jnp.arange(excess.size) == jnp.argmax(excess)
        refractory = jnp.where(crossed, self.refractory, state.refractory - self.dt)
        v = jnp.where(crossed, self.reset, v)
        # The losers' thresholds rise too, so the crossings are returned beside the spikes.
        return CurrentState(v, refractory), spikes.astype(jnp.float32), crossed


class ConductanceState(NamedTuple):
    """Membrane `v`, mV, conductances, and the time `since` the last spike, ms; each `[N]`."""

    v: Array
    excitation: Array
    inhibition: Array
    since: Array


@dataclasses.dataclass(frozen=True)
class ConductanceCell:
    """Conductance-based neuron; the defaults are those of the excitatory neuron.

    Args:
        dt: Timestep, ms.
        tau: Time constant of the membrane, ms.
        rest: Resting potential, mV.
        reset: Potential after a spike, mV.
        threshold: Firing threshold, mV, before the adaptive offset: the original's -72 mV plus its
            initial offset of 20.
        refractory: Time for which the membrane stays clamped after a spike, ms.
        block: Time for which a second spike is suppressed, ms. Ports of the released code read its
            timer as 50 ms; taken literally it passes after one step (0).
        reversal: Reversal potential of the inhibition, mV.
        tau_excitation: Time constant of the excitatory conductance, ms.
        tau_inhibition: Time constant of the inhibitory conductance, ms.
        start: Membrane potential before the first presentation, mV; None is `rest`. The original
            starts its neurons 40 mV below.
        euler: Integrates everything by Euler steps, as the original does (a conductance with a time
            constant of 1 ms halves in a step of 0.5 ms).
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

    def initial_state(self, neurons: int) -> ConductanceState:
        """State of N neurons with closed conductances and no recent spike."""
        start = self.rest if self.start is None else self.start
        return ConductanceState(
            v=jnp.full(neurons, start),
            excitation=jnp.zeros(neurons),
            inhibition=jnp.zeros(neurons),
            # In ms, longer than every refractory period and block: any neuron may fire at once.
            since=jnp.full(neurons, 1e6),
        )

    def __call__(
        self, state: ConductanceState, theta: Array, excitation: Array, inhibition: Array
    ) -> tuple[ConductanceState, Array, Array]:
        """Advances the neurons by one timestep.

        Args:
            state: State after the previous timestep.
            theta: Adaptive offset of the threshold, `[N]`, mV.
            excitation: Excitatory conductance to open, `[N]`, in units of the leak.
            inhibition: Inhibitory conductance to open, `[N]`, in units of the leak.

        Returns:
            The new state; the spikes, 0 or 1, `[N]`; the same spikes as a mask, bool, `[N]`.
        """
        g_e, g_i = state.excitation + excitation, state.inhibition + inhibition
        elapsed = state.since + self.dt
        # Conductances open and decay also while the membrane is clamped.
        v = jnp.where(elapsed > self.refractory, self._integrate(state.v, g_e, g_i), state.v)
        ready = elapsed > max(self.refractory, self.block)
        spikes = (v > self.threshold + theta) & ready
        v, elapsed = jnp.where(spikes, self.reset, v), jnp.where(spikes, 0.0, elapsed)
        g_e, g_i = g_e * self._decay(self.tau_excitation), g_i * self._decay(self.tau_inhibition)
        return ConductanceState(v, g_e, g_i, elapsed), spikes.astype(jnp.float32), spikes

    def _integrate(self, v: Array, g_e: Array, g_i: Array) -> Array:
        """Membrane potential after one timestep, mV."""
        if self.euler:
            # The excitatory reversal potential is 0 mV: g_e (0 - v).
            flow = (self.rest - v) - g_e * v + g_i * (self.reversal - v)
            return v + self.dt / self.tau * flow
        total = 1 + g_e + g_i
        v_inf = (self.rest + g_i * self.reversal) / total
        return v_inf + (v - v_inf) * jnp.exp(-self.dt / self.tau * total)

    def _decay(self, tau: float) -> float:
        """Fraction of a conductance that remains after one timestep."""
        return 1 - self.dt / tau if self.euler else math.exp(-self.dt / tau)


def current_inhibitory(*, dt: float = 1.0) -> CurrentCell:
    """Makes the current-based inhibitory neuron, which fires in the step that excites it."""
    # All inhibitory neurons may fire together: each answers to one excitatory neuron.
    return CurrentCell(
        dt=dt, tau=10.0, rest=-60.0, reset=-45.0, threshold=-40.0, refractory=2.0, one_winner=False
    )


def conductance_inhibitory(*, dt: float = 0.5, euler: bool = False) -> ConductanceCell:
    """Makes the conductance-based inhibitory neuron of the original."""
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
