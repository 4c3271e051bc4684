"""Quantisation-aware training: a network that runs on rounded weights.

    y = layer(round(w))(x),      dL/dw := dL/d(round(w))           where nothing is clipped

The layer holds full-precision weights, which accumulate small updates, and computes with rounded
copies, which are the weights that `quantization.store` packs. It adds no state, so training,
checkpoints and memory strategies work unchanged.
"""

from __future__ import annotations

import dataclasses

import jax
from flax import nnx

from snnjax.nn._checks import check_layer
from snnjax.nn.contract import Aux, Call, Layer, MemoryRequest, Placed, State, place, replace
from snnjax.ops.arguments import shorten
from snnjax.quantization import quantize
from snnjax.quantization.plans import Plan
from snnjax.typing import Array

__all__ = ["Quantized"]


class Quantized(nnx.Module):
    """A layer that computes with rounded weights, usually the body of a network.

        y = layer(round(w))(x),      dL/dw := dL/d(round(w))           where nothing is clipped

        network = nn.Network(nn.Quantized(network.body, plan), network.input_shape)

    `quantization.store(body.layer, body.plan)` stores the trained weights. Rounding costs one pass
    over the weights per call (per timestep in `order="time"`), and a rounded copy of them for the
    derivative. Taps, states and statistics are those of the layer.

    Args:
        layer: layer of the contract `nn.contract.Layer`.
        plan: arrays to round and their quantizers, see `quantization.plans`; frozen and comparable,
            with deterministic rounding, since the full-precision weights keep small updates.

    Raises:
        ValueError: the plan selects no array of the layer, or rounds stochastically.

    Example:
        nn.Quantized(network.body, quantization.plans.Kernels(quantization.Quantizer(4)))

    Reference:
        Jacob, Kligys, Chen, Zhu, Tang, Howard, Adam, Kalenichenko, "Quantization and Training of
        Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2017, arXiv:1712.05877
        (rounding in the forward pass of training). The grids here are those of `quantization`.
    """

    def __init__(self, layer: Layer, plan: Plan):
        check_layer("nn.Quantized", layer)
        if not callable(plan):
            raise TypeError(
                "nn.Quantized takes a plan, such as quantization.plans.Kernels("
                f"quantization.Quantizer(4)), got {shorten(plan)}"
            )
        # Raises on a plan that does not fit the layer; nothing is computed.
        jax.eval_shape(lambda layer: quantize(layer, plan), layer)
        self.layer, self.plan, self.name = layer, plan, "quantized"

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """State of the layer at rest."""
        return self.layer.initial_state(shape)

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Inputs `[T, B, ...]` through the layer with rounded weights."""
        # Rounded in every call, so that the gradient reaches the full-precision weights.
        rounded = quantize(self.layer, self.plan)
        return rounded(inputs, state, call)

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Applies the strategy to the layer, with its own cuts over depth."""
        placed = place(self.layer, dataclasses.replace(request, cut=request.strategy.depth))
        return placed._replace(layer=replace(self, layer=placed.layer), role=None)
