"""Competition: the spike of a neuron inhibits all other neurons.

    inhibitory layer    exc i -> inh i -> every exc j != i         N more neurons, 2 N^2 weights
    lateral, matrix     exc i -> every exc j != i                  N^2 weights
    lateral, by sums    inhibition[j] = strength (sum_i s[i] - s[j])      one number

All three give neuron `j` the same inhibition from the same spikes, the last two bit for bit; the
inhibitory layer delivers it one step later. `stored=True` keeps and multiplies the matrices, as
simulators do (BindsNET keeps the one-to-one connection dense), for comparisons.

Reference: inhibitory layer: P. U. Diehl, M. Cook, 2015. Lateral: R. V. W. Putra, M. Shafique,
"FSpiNN", 2020, arXiv:2007.08860, and "SpikeDyn", 2021, arXiv:2103.00424 (its abstract says it
replaces inhibitory neurons by direct lateral inhibition).
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from snnjax.plasticity.cells import ConductanceCell, CurrentCell
from snnjax.typing import Array, PyTree

__all__ = ["InhibitoryLayer", "LateralInhibition", "competitor_spikes", "matrix_product"]


def competitor_spikes(spikes: Array) -> Array:
    """Spike count of all other neurons: `sum_i s[i] - s[j]`, `[..., N]`."""
    # Sums of 0 and 1 are exact in float32: equal to the product with 1 - I bit for bit.
    return spikes.sum(-1, keepdims=True) - spikes


def matrix_product(spikes: Array, matrix: Array) -> Array:
    """`spikes @ matrix` for a matrix `[N, N]`; a step without spikes does not read the matrix."""

    def multiply(spikes):
        # The cast is temporary: an 8-bit matrix stays one byte per entry in memory.
        return spikes @ matrix.astype(spikes.dtype)

    # Most timesteps have no spike: the condition saves reading N^2 entries.
    return lax.cond(spikes.any(), multiply, jnp.zeros_like, spikes)


@dataclasses.dataclass(frozen=True)
class LateralInhibition:
    """Inhibition directly from neuron to neuron, in the next timestep.

    Args:
        strength: Inhibition of every other neuron by one spike: mV for current-based neurons,
            conductance in units of the leak for conductance-based ones.
        stored: Keeps the `[N, N]` matrix.
        bits: Bits of a stored entry, 32 (float32) or 8.
    """

    strength: float = 17.5
    stored: bool = False
    bits: int = 32

    def matrices(self, neurons: int) -> PyTree:
        """Stored connections other than the plastic weights."""
        return {"lateral": _all_but_own(neurons, self.bits)} if self.stored else {}

    def initial_state(self, neurons: int) -> tuple[()]:
        """Empty state: lateral inhibition keeps nothing between timesteps."""
        del neurons
        return ()

    def __call__(
        self, state: tuple[()], spikes: Array, matrices: PyTree
    ) -> tuple[tuple[()], Array]:
        """Maps the spikes of the previous timestep to the inhibition of this one, `[N]`."""
        if self.stored:
            counts = matrix_product(spikes, matrices["lateral"])
        else:
            counts = competitor_spikes(spikes)
        # The strength scales the counts, because 8-bit entries hold only 0 and 1.
        return state, self.strength * counts


class InhibitoryLayerState(NamedTuple):
    """State of the inhibitory neurons and their spikes of the previous timestep, `[N]`."""

    cell: Any
    spikes: Array


@dataclasses.dataclass(frozen=True)
class InhibitoryLayer:
    """Inhibition through N inhibitory neurons, excited one to one, each inhibiting all others.

    Args:
        cell: Inhibitory neuron.
        excitation: Input of an inhibitory neuron from one spike of its excitatory neuron.
        strength: Inhibition of every other excitatory neuron by one inhibitory spike.
        stored: Keeps both `[N, N]` matrices, in float32.
    """

    cell: CurrentCell | ConductanceCell
    excitation: float = 22.5
    strength: float = 17.5
    stored: bool = False

    def matrices(self, neurons: int) -> PyTree:
        """Stored connections other than the plastic weights."""
        if not self.stored:
            return {}
        return {"to_inhibitory": jnp.eye(neurons), "lateral": _all_but_own(neurons, 32)}

    def initial_state(self, neurons: int) -> InhibitoryLayerState:
        """State of N inhibitory neurons at rest."""
        return InhibitoryLayerState(self.cell.initial_state(neurons), jnp.zeros(neurons))

    def __call__(
        self, state: InhibitoryLayerState, spikes: Array, matrices: PyTree
    ) -> tuple[InhibitoryLayerState, Array]:
        """Maps the spikes of the previous timestep to the inhibition of this one, `[N]`."""
        # Inhibitory neurons have fixed thresholds and receive no inhibition themselves.
        zeros = jnp.zeros_like(spikes)
        # The inhibitory spikes of the previous step act now: the layer is one step late.
        if self.stored:
            counts = matrix_product(state.spikes, matrices["lateral"])
            excited = matrix_product(spikes, matrices["to_inhibitory"])
        # Excitation is one to one, so the spikes equal their product with the identity.
        else:
            counts, excited = competitor_spikes(state.spikes), spikes
        cell, inhibitory, _ = self.cell(state.cell, zeros, self.excitation * excited, zeros)
        return InhibitoryLayerState(cell, inhibitory), self.strength * counts


def _all_but_own(neurons: int, bits: int) -> Array:
    """`1 - I`, `[N, N]`."""
    dtypes = {32: jnp.float32, 8: jnp.uint8}
    if bits not in dtypes:
        raise ValueError(f"a stored matrix has 32 or 8 bits per entry, got {bits}: set bits=32")
    return 1 - jnp.eye(neurons, dtype=dtypes[bits])
