"""Competition: a neuron that fires holds all others back.

    through a layer     exc i -> inh i -> every exc j != i         N more neurons, 2 N^2 weights
    lateral             exc i -> every exc j != i                  N^2 weights
    lateral, by sums    inhibition[j] = strength (sum_i s[i] - s[j])      one number

All three give neuron `j` the same from the same spikes, the last two bit for bit; through a layer
it arrives one step later. The matrices are what simulators store (BindsNET keeps the one-to-one
connection dense); `stored=True` keeps and multiplies them, for comparisons.

Reference: through a layer: P. U. Diehl, M. Cook, 2015. Lateral: R. V. W. Putra, M. Shafique,
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

__all__ = ["InhibitoryLayer", "LateralInhibition", "others", "through"]


def others(spikes: Array) -> Array:
    """How many others fired: `sum_i s[i] - s[j]`, `[..., N]`."""
    return spikes.sum(-1, keepdims=True) - spikes


def through(spikes: Array, matrix: Array) -> Array:
    """The same through a matrix `1 - I`, or any `[N, N]`; without spikes it is not read."""

    def multiplied(spikes):
        return spikes @ matrix.astype(spikes.dtype)

    return lax.cond(spikes.any(), multiplied, jnp.zeros_like, spikes)


@dataclasses.dataclass(frozen=True)
class LateralInhibition:
    """Directly from neuron to neuron, in the next timestep.

    Args:
        strength: What one spike gives every other neuron: mV of a current-based neuron,
            conductance of the other.
        stored: Keep the `[N, N]` matrix.
        bits: Bits of a stored entry, 32 (float32) or 8.
    """

    strength: float = 17.5
    stored: bool = False
    bits: int = 32

    def matrices(self, neurons: int) -> PyTree:
        """What has to be stored besides the plastic weights."""
        return {"lateral": _all_but_own(neurons, self.bits)} if self.stored else {}

    def rest(self, neurons: int) -> tuple[()]:
        """Nothing to remember."""
        del neurons
        return ()

    def __call__(
        self, state: tuple[()], spikes: Array, matrices: PyTree
    ) -> tuple[tuple[()], Array]:
        """From the spikes of the step before to the inhibition of this one, `[N]`."""
        found = through(spikes, matrices["lateral"]) if self.stored else others(spikes)
        return state, self.strength * found


class InhibitoryLayerState(NamedTuple):
    """State of the inhibitory neurons and their spikes of the step before, `[N]`."""

    cell: Any
    spikes: Array


@dataclasses.dataclass(frozen=True)
class InhibitoryLayer:
    """Through as many inhibitory neurons, one to one and back to all others.

    Args:
        cell: The inhibitory neuron.
        excitation: What a spike gives its inhibitory neuron.
        strength: What a spike of that one gives every other neuron.
        stored: Keep both `[N, N]` matrices, in float32.
    """

    cell: CurrentCell | ConductanceCell
    excitation: float = 22.5
    strength: float = 17.5
    stored: bool = False

    def matrices(self, neurons: int) -> PyTree:
        """What has to be stored besides the plastic weights."""
        if not self.stored:
            return {}
        return {"to_inhibitory": jnp.eye(neurons), "lateral": _all_but_own(neurons, 32)}

    def rest(self, neurons: int) -> InhibitoryLayerState:
        """Inhibitory neurons at rest."""
        return InhibitoryLayerState(self.cell.initial(neurons), jnp.zeros(neurons))

    def __call__(
        self, state: InhibitoryLayerState, spikes: Array, matrices: PyTree
    ) -> tuple[InhibitoryLayerState, Array]:
        """From the spikes of the step before to the inhibition of this one, `[N]`."""
        fired, nothing = state.spikes, jnp.zeros_like(spikes)
        found = through(fired, matrices["lateral"]) if self.stored else others(fired)
        own = through(spikes, matrices["to_inhibitory"]) if self.stored else spikes
        cell, fired, _ = self.cell(state.cell, nothing, self.excitation * own, nothing)
        return InhibitoryLayerState(cell, fired), self.strength * found


def _all_but_own(neurons: int, bits: int) -> Array:
    kinds = {32: jnp.float32, 8: jnp.uint8}
    if bits not in kinds:
        raise ValueError(f"a stored matrix has 32 or 8 bits an entry, got {bits}")
    return 1 - jnp.eye(neurons, dtype=kinds[bits])
