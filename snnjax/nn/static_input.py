"""Static input: currents of an image that is the same at every timestep, computed once.

    y[t] = f(x[0])      for every t

A convolution and its normalisation map an image that is repeated over time to the same currents at
every timestep. `StaticInput` computes them once, at the memory and time of one timestep, and
broadcasts them. `nn.Shared` computes such a layer before its loop over time.

Reference: the first layer of the released code of Kim et al., 2023, arXiv:2305.18360.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax.nn._checks import check_layer
from snnjax.nn.contract import Aux, Call, State, call_statistics, output_shape
from snnjax.typing import Array

__all__ = ["StaticInput"]


class StaticInput(nnx.Module):
    """Applies a layer to the first timestep and repeats its outputs, `y[t] = layer(x[0])`.

    For inputs that are equal at every timestep (`encoding.direct`), this equals the layer itself;
    in training only if the layer's batch statistics are taken per timestep. Running statistics move
    once per call of the network, in time order too and with `nn.BatchNorm(update="step")`. Later
    frames of other inputs are ignored.

    Args:
        layer: a layer without neurons.

    Raises:
        ValueError: the layer has neurons, whose outputs change over time (on `initial_state`).
    """

    def __init__(self, layer: Any):
        check_layer("nn.StaticInput", layer)
        # The name is part of tap names in saved records.
        self.layer, self.name = layer, "once"

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """Statistics of the layer."""
        state = self.layer.initial_state(shape)
        if jax.tree.leaves(state.neurons):
            raise ValueError(
                "neurons change from timestep to timestep: put them behind "
                "nn.StaticInput, not inside"
            )
        return state._replace(statistics=call_statistics(state.statistics))

    def infer_shape(self, state: State, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the outputs of the layer."""
        return output_shape(self.layer, state, shape)

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Maps `[T, B, ...]` to `[T, B, ...]`, equal at every timestep."""
        outputs, aux = self.layer(inputs[:1], state, call)
        # One image, so one update: in time order this layer runs T times on equal frames.
        aux = aux._replace(statistics=call_statistics(aux.statistics))
        return jnp.broadcast_to(outputs, (len(inputs), *outputs.shape[1:])), aux
