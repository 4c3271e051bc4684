"""Static input: currents of an image that is the same at every timestep, computed once.

    y[t] = f(x[0])      for every t

A convolution and its normalisation give the same currents at every timestep if they see the same
image at each; `StaticInput` computes them for the first and repeats them, at the memory and time of
one timestep. `nn.Shared` takes such a layer out of its loop over time.

Reference: the first layer of the released code of Kim et al., 2023, arXiv:2305.18360.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax.nn.contract import Aux, Call, State
from snnjax.typing import Array

__all__ = ["StaticInput"]


class StaticInput(nnx.Module):
    """Runs a layer on the first timestep and repeats its outputs at every timestep.

    For inputs that are the same at every timestep (`encoding.direct`): it is the layer itself then,
    in training too if its batch statistics are those of a timestep. Of other inputs it sees the
    first frame only.

    Args:
        layer: a layer without neurons.

    Raises:
        ValueError: the layer has neurons, which would be different at every timestep (on
            `initial_state`).
    """

    def __init__(self, layer: Any):
        self.layer, self.name = layer, "once"

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """The layer's statistics."""
        state = self.layer.initial_state(shape)
        if jax.tree.leaves(state.neurons):
            raise ValueError(
                "neurons change from timestep to timestep: put them behind "
                "nn.StaticInput, not inside"
            )
        return state

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """`[T, B, ...]` to `[T, B, ...]`, the same at every timestep."""
        outputs, aux = self.layer(inputs[:1], state, call)
        return jnp.broadcast_to(outputs, (len(inputs), *outputs.shape[1:])), aux
