"""Quantisation-aware training: a network that runs on rounded weights.

    y = layer(round(w))(x),      dL/dw := dL/d(round(w))           where nothing is clipped

The layer holds full-precision weights, which collect the small updates, and runs on their rounded
copies: `quantization.store` packs the very weights that were trained and evaluated. No
state is added, so training, checkpoints and strategies go on as they do.
"""

from __future__ import annotations

import dataclasses

import jax
from flax import nnx

from snnjax.nn.contract import Aux, Call, Layer, MemoryRequest, Placed, State, place, replace
from snnjax.quantization import quantize
from snnjax.quantization.plans import Plan
from snnjax.typing import Array

__all__ = ["Quantized"]


class Quantized(nnx.Module):
    """A layer on rounded weights; usually the whole body of a network.

        network = nn.Network(nn.Quantized(network.body, plan), network.input_shape)

    To store it, take the layer out again: `quantization.store(body.layer, body.plan)`. Rounding
    costs a pass over the weights per call (per timestep in `order="time"`), and a rounded copy of
    them for the derivative. Taps, states and statistics are those of the layer.

    Args:
        layer: any layer of the contract `nn.contract.Layer`.
        plan: which arrays, and how, see `quantization.plans`; frozen and comparable, and none that
            rounds stochastically: behind the rounding nothing is lost.

    Raises:
        ValueError: the plan finds nothing in the layer, or rounds stochastically.

    Example:
        nn.Quantized(network.body, quantization.plans.Kernels(quantization.Quantizer(4)))

    Reference:
        Jacob, Kligys, Chen, Zhu, Tang, Howard, Adam, Kalenichenko, "Quantization and Training of
        Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2017, arXiv:1712.05877
        (rounding in the forward pass of training). The grids here are those of `quantization`.
    """

    def __init__(self, layer: Layer, plan: Plan):
        # Raises on a plan that does not fit the layer.
        jax.eval_shape(lambda layer: quantize(layer, plan), layer)
        self.layer, self.plan, self.name = layer, plan, "quantized"

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """That of the layer."""
        return self.layer.initial_state(shape)

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """`[T, B, ...]` through the layer with its weights on their grids."""
        rounded = quantize(self.layer, self.plan)
        return rounded(inputs, state, call)

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Places the strategy in the layer, as if it stood alone."""
        placed = place(self.layer, dataclasses.replace(request, cut=request.strategy.depth))
        return placed._replace(layer=replace(self, layer=placed.layer), role=None)
