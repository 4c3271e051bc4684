"""Feedback around any neuron: its last output returns as a current.

    x'[t] = x[t] + connection(weights, s[t-1]),    then the neuron's own step on x'[t]

The feedback wraps one Step in another, so every memory strategy applies.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from snnjax.neurons.model import Model, Refusal
from snnjax.typing import Array, PyTree, Step, bind

__all__ = ["Recurrent", "RecurrentParams", "RecurrentState", "dense", "recurrent_model"]


class RecurrentParams(NamedTuple):
    """Parameters of the `neuron`, and `weights` of its feedback connection."""

    neuron: PyTree
    weights: PyTree


class RecurrentState(NamedTuple):
    """State of the `neuron`, and its last `outputs`, `[B, ...]`."""

    neuron: PyTree
    outputs: Array


def dense(weights: Array, outputs: Array) -> Array:
    """All-to-all connection, `outputs @ weights`, `[B, N] @ [N, N] -> [B, N]`."""
    return outputs @ weights


@dataclasses.dataclass(frozen=True)
class Recurrent:
    """A step with feedback.

    Attributes:
        step: the neuron's own step.
        connection: `(weights, outputs) -> current`.
    """

    step: Step
    connection: Callable[[PyTree, Array], Array] = dense

    def __call__(
        self, params: RecurrentParams, state: RecurrentState, current: Array
    ) -> tuple[RecurrentState, Array]:
        """One timestep: adds the feedback of the last outputs, then runs the neuron."""
        current = current + self.connection(params.weights, state.outputs)
        neuron, outputs = self.step(params.neuron, state.neuron, current)
        return RecurrentState(neuron, outputs), outputs


def recurrent_model(
    model: Model, weights: PyTree, *, connection: Callable[[PyTree, Array], Array] = dense
) -> Model:
    """Adds feedback to a neuron.

        x'[t] = x[t] + connection(weights, s[t-1]),    then the neuron's own step on x'[t]

    Args:
        model: any neuron.
        weights: weights of the connection; `[N, N]`, from row to column, for all-to-all feedback
            of N neurons.
        connection: `(weights, outputs) -> current`; the default is `outputs @ weights`.

    Returns:
        A model with `params.neuron`, `params.weights`, `state.neuron` and `state.outputs`, and
        without an inverse.

    Example:
        model = recurrent_model(lif_model(decay=0.9), weights)
        memory.store(model.step, model.params, model.initial_state((B, N)), currents)
    """
    return Model(
        # No whole-sequence function: the feedback makes every current depend on the step before.
        Recurrent(model.step, connection),
        RecurrentParams(model.params, weights),
        bind(_silent_state, neuron=model.initial_state),
        # The spikes of the step before are part of its input, and neither the state nor the outputs
        # hold them afterwards.
        inverse=Refusal(
            "neurons with feedback have no inverse, since the spikes that were fed back are not "
            "known backwards: use memory.recompute(every)"
        ),
        spiking=model.spiking,
        rest=model.rest,
        name=f"recurrent_{model.name}",
    )


def _silent_state(
    shape: tuple[int, ...], *, neuron: Callable[..., PyTree], **options: Any
) -> RecurrentState:
    return RecurrentState(
        # Silent: no spikes return at the first timestep.
        neuron(shape, **options),
        jnp.zeros(shape, options.get("dtype", jnp.float32)),
    )
