"""Recurrent wiring of any neuron: its last output is fed back as a current.

    x'[t] = x[t] + connection(weights, s[t-1]),    then the neuron's own step on x'[t]

The feedback is an ordinary Step around a Step, so every memory strategy serves it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from snnjax.typing import Array, PyTree, Step

__all__ = ["Recurrent", "RecurrentParams", "RecurrentState", "dense", "recurrent"]


class RecurrentParams(NamedTuple):
    """Parameters: those of the `neuron` and the `weights` of its feedback connection."""

    neuron: PyTree
    weights: PyTree


class RecurrentState(NamedTuple):
    """State: that of the `neuron` and its last `outputs`, `[B, ...]`."""

    neuron: PyTree
    outputs: Array


def dense(weights: Array, outputs: Array) -> Array:
    """All to all: `outputs @ weights`, `[B, N] @ [N, N] -> [B, N]`."""
    return outputs @ weights


@dataclasses.dataclass(frozen=True)
class Recurrent:
    """A step with feedback; made by `recurrent`."""

    step: Step
    connection: Callable[[PyTree, Array], Array]

    def __call__(
        self, params: RecurrentParams, state: RecurrentState, current: Array
    ) -> tuple[RecurrentState, Array]:
        """One timestep: adds the feedback of the last outputs, then runs the neuron."""
        current = current + self.connection(params.weights, state.outputs)
        neuron, outputs = self.step(params.neuron, state.neuron, current)
        return RecurrentState(neuron, outputs), outputs


def recurrent(step: Step, *, connection: Callable[[PyTree, Array], Array] = dense) -> Recurrent:
    """Feeds a neuron's last output back as a current.

    Args:
        step: any neuron, `(params, state, current) -> (state, outputs)`.
        connection: `(weights, outputs) -> current`; the default is all to all.

    Returns:
        A step over `RecurrentParams` and `RecurrentState`; equal arguments give equal steps.

    Example:
        step = recurrent(lif)
        params = RecurrentParams(LIFParams(decay, threshold), weights)
        state = RecurrentState(lif_state((B, N)), jnp.zeros((B, N)))
        memory.store(step, params, state, currents)
    """
    return Recurrent(step, connection)
