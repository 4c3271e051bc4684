"""Absolute refractory period around any spiking neuron.

    n > 0:   state and n fixed in place, s = 0, n <- n - 1        the current is lost
    n = 0:   the neuron's own step;  n <- period where it fires

The period wraps one step in another, so every memory strategy but a reversal applies.

Reference: Gerstner, Kistler, Naud, Paninski, "Neuronal Dynamics", 2014, chapter 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from snnjax.neurons.model import Model, Refusal
from snnjax.ops.arguments import check_counts, shorten
from snnjax.typing import Array, PyTree, Step, bind

__all__ = ["RefractoryState", "refractory_model"]


class RefractoryState(NamedTuple):
    """State of the `neuron`, and `left`, the timesteps that it still rests, `[B, ...]`."""

    neuron: PyTree
    left: Array


def refractory_model(model: Model, *, period: int) -> Model:
    """Adds an absolute refractory period to a neuron.

        left > 0    the state stands still, s = 0, left <- left - 1
        left = 0    the neuron's own step; left <- period where s = 1

    After a spike the neuron ignores its currents for `period` timesteps, its membrane held where
    the reset put it, so that two spikes are at least `period + 1` steps apart. No gradient passes
    through the count. The parameters are those of the neuron, under their own names.

    Args:
        model: any spiking neuron whose state has one entry per neuron.
        period: length in timesteps, at least 1.

    Returns:
        A model with `state.neuron` and `state.left`, and without an inverse.

    Raises:
        TypeError: no model.
        ValueError: a period below 1; a neuron without spikes; a state without one entry per neuron
            (on a call).

    Example:
        layer = nn.Neuron(neurons.refractory_model(neurons.lif_model(), period=2))
    """
    if not isinstance(model, Model):
        raise TypeError(
            f"refractory_model takes a model, such as neurons.lif_model(), got {shorten(model)}"
        )
    check_counts("refractory_model", period=period)
    if not model.spiking:
        raise ValueError(
            f"{model.name} neurons have no spikes to rest after: give a spiking neuron, such as "
            "neurons.lif_model()"
        )
    return dataclasses.replace(
        model,
        step=bind(_refractory, step=model.step, period=period),
        initial_state=bind(_awake, neuron=model.initial_state),
        # A whole-sequence function knows no rest between its steps.
        sequence=None,
        inverse=Refusal(
            "a refractory period discards currents, so that nothing tells a resting neuron from a "
            "silent one backwards: use memory.recompute(every)"
        ),
        name=f"refractory_{model.name}",
    )


def _awake(
    shape: tuple[int, ...], *, neuron: Callable[..., PyTree], **options: Any
) -> RefractoryState:
    left = jnp.zeros(shape, options.get("dtype", jnp.float32))
    return RefractoryState(neuron(shape, **options), left)


def _refractory(
    params: PyTree, state: RefractoryState, current: Array, *, step: Step, period: int
) -> tuple[RefractoryState, Array]:
    # A float in a loop with a derivative; half, so that rounding never moves it.
    resting = state.left > 0.5
    after, spikes = step(params, state.neuron, current)
    spikes = jnp.where(resting, 0, spikes)
    held = jax.tree.map(lambda old, new: _hold(resting, old, new), state.neuron, after)
    fired = jax.lax.stop_gradient(spikes)
    # In the dtype of the currents, as the other parts of the state.
    waited = jnp.maximum(state.left - 1, 0).astype(fired.dtype)
    return RefractoryState(held, jnp.where(fired > 0, period, waited)), spikes


def _hold(resting: Array, old: Array, new: Array) -> Array:
    # Leading axes, such as those of past inputs, broadcast.
    if jnp.shape(new)[-resting.ndim :] != resting.shape:
        raise ValueError(
            f"a refractory period needs a state with one entry per neuron, {list(resting.shape)}, "
            f"and this neuron has {list(jnp.shape(new))}: put the period into its own step"
        )
    return jnp.where(resting, old, new)
