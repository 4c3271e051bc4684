"""Neurons that have a whole window at once, as layers: no reset, so no loop over time.

    nn.PSN(timesteps, rngs=rngs)                    sees its whole window, past and future
    nn.PSN(timesteps, order=k, rngs=rngs)           the last k timesteps of it

Equations and reference: `neurons.psn`; causal ones for windows of any length and for streams are in
`nn.parallel_streaming`. They stand where an `nn.LIF` does: currents come in and spikes go out,
which the next synapse can keep as bits. Without a reset nothing holds a neuron back: what is above
its threshold for long fires at every timestep.

Nothing is scanned here, so there is nothing that a memory strategy over time could act on: it is
refused. Over depth these layers are part of their block as any other.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import metrics, neurons
from snnjax.memory import Strategy
from snnjax.nn.contract import Aux, Call, MemoryRequest, Placed, State, replace
from snnjax.nn.ma import fan_in_uniform
from snnjax.nn.neuron import Constant
from snnjax.nn.taps import counted, tapped
from snnjax.ops.rounding import widen
from snnjax.surrogate import Surrogate, arctan
from snnjax.typing import Array

__all__ = ["PSN", "products_over_time", "refuse_time", "with_masking"]


class PSN(nnx.Module):
    """Parallel spiking neurons, `S = [W X >= B]`; the layer looks at its whole window.

    It is an exception to causality that the laws name: spikes depend on later currents, so it has
    no streaming form and `order="time"` refuses it. The layer has `T^2 + T` parameters, and all of
    its neurons have the same. With an `order` it is the masked PSN: in training `masking` is raised
    from 0 to 1 by making the network anew, which traces nothing again: `network =
    nn.with_masking(network, step / steps)`. Masked weights stay as they are and do not learn.

    Weights start uniform within `1 / sqrt(T)` and thresholds at 1, as in
    spikingjelly, whose bias is `-B`. Weights and membranes are float32 in every precision.

    Args:
        timesteps: `T` of the window.
        order: `k`, from 1 to `T`: weights outside of the last `k` timesteps fade out. None is the
            plain neuron, all weights of the window.
        masking: `lambda` in [0, 1], of a given order; held by the layer, not learned. At 1 spikes
            depend on the last `k` currents only, below it on the whole window.
        spike: the spike function.
        rngs: for the weights.

    Raises:
        ValueError: an empty window; an order outside of 1 to `T`, or a masking outside of [0, 1];
            another number of timesteps (on a call); a strategy over time.
    """

    def __init__(
        self,
        timesteps: int,
        *,
        order: int | None = None,
        masking: float = 1.0,
        spike: Surrogate = arctan(),
        rngs: nnx.Rngs,
    ):
        if timesteps < 1:
            raise ValueError(f"a PSN has a window of one timestep at least, got {timesteps}")
        if order is not None and not 1 <= order <= timesteps:
            raise ValueError(
                f"a masked PSN looks at 1 to {timesteps} of its {timesteps} timesteps, got "
                f"order={order}"
            )
        self.whole_window, self.order, self.spike = timesteps, order, spike
        self.name, self.spiking = "psn" if order is None else "masked_psn", True
        self.masking = None if order is None else _held(masking, ())
        draw = fan_in_uniform(rngs.params(), (timesteps, timesteps), jnp.float32)
        self.weights, self.threshold = nnx.Param(draw), nnx.Param(jnp.ones(timesteps, jnp.float32))

    def params(self) -> neurons.PSNParams:
        """The parameters as `neurons.psn` takes them, weights masked."""
        weights = self.weights[...]
        if self.order is not None and self.masking is not None:
            masking = jax.lax.stop_gradient(self.masking[...])
            weights = neurons.masked_weights(weights, order=self.order, masking=masking)
        return neurons.PSNParams(weights, self.threshold[...])

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """No state."""
        del shape
        return State()

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Currents `[T, B, ...]` to spikes `[T, B, ...]`, in the dtype of the currents.

        Taps: those of neurons (`nn.taps`), where the membrane is `W X`, and `"products"`.
        """
        if len(inputs) != self.whole_window:
            raise ValueError(
                f"this PSN looks at its whole window of {self.whole_window} timesteps at once and "
                f'got {len(inputs)}: give it the window it was made for, in order="layer"; '
                "nn.SlidingPSN takes any length and streams"
            )
        params, currents = self.params(), widen(inputs)
        spikes = neurons.psn(params, currents, spike=self.spike).astype(inputs.dtype)
        membrane = neurons.psn_membranes(params, currents) if "membrane" in call.taps else None
        seen = tapped(call.taps, spikes, currents=inputs, params=(), membrane=membrane)
        if "threshold" in call.taps:  # one per timestep, where others have one per channel
            seen["threshold"] = params.threshold.reshape(-1, *(1,) * (inputs.ndim - 1))
        found = counted(call.taps, products=lambda: self._products(params, currents)).get("", {})
        return spikes, Aux(taps={"": seen | found} if seen | found else {})

    def _products(self, params: neurons.PSNParams, currents: Array) -> metrics.Products:
        used = params.weights != 0
        return products_over_time(jnp.ones_like(used), used, currents)

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Takes nothing; its outputs are spikes.

        Raises:
            ValueError: a strategy over time.
        """
        refuse_time(request.strategy, "a PSN", "nn.SlidingPSN")
        return Placed(self, True)


def with_masking(network: Any, masking: float | Array) -> Any:
    """The same network, or layer, with another `masking` in every `nn.PSN` with an order.

    Args:
        network: stays as it is; the result shares its parameters.
        masking: `lambda` in [0, 1], a number or, within a compiled function, an array of one.

    Raises:
        ValueError: a number outside of [0, 1].
    """
    takes = lambda node: isinstance(node, PSN) and node.masking is not None  # noqa: E731

    def place(node: Any) -> Any:
        if not takes(node):
            return node
        # Blocks that are stacked have one each.
        return replace(node, masking=_held(masking, node.masking.shape))

    return jax.tree.map(place, network, is_leaf=takes)


def _held(masking: float | Array, shape: tuple[int, ...]) -> Constant:
    if isinstance(masking, float | int) and not 0 <= masking <= 1:
        raise ValueError(f"masking goes from 0, a plain PSN, to 1, causal: got {masking}")
    return Constant(jnp.broadcast_to(jnp.asarray(masking, jnp.float32), shape))


def refuse_time(strategy: Strategy, name: str, other: str) -> None:
    """For layers that scan nothing over time.

    Args:
        strategy: for the whole network.
        name: of the layer.
        other: a layer with steps to scan.

    Raises:
        ValueError: there is a strategy over time.
    """
    if strategy.time is not None:
        raise ValueError(
            f"{name} has all timesteps at once and scans none, so a strategy over time has nothing "
            f"to act on: leave time out, or use {other}, whose steps can be scanned; of sequential "
            "neurons beside it give each its own, nn.LIF(scan=...)"
        )


def products_over_time(inside: Array, used: Array, currents: Array) -> metrics.Products:
    """Products of neurons that weigh currents over time, one row per timestep of their outputs.

    Args:
        inside: `[T, S]`, which currents make which membrane; dense counts these.
        used: `[T, S]`, those of them whose weight is not zero; effective needs that.
        currents: `[S, B, ...]`.
    """
    axes = tuple(range(2, currents.ndim))
    inside, used = inside.astype(jnp.uint32), used.astype(jnp.uint32)
    active = jnp.sum(currents != 0, axes, dtype=jnp.uint32)
    real = jnp.any((currents != 0) & (currents != 1), axes).astype(jnp.uint32)
    number = math.prod(currents.shape[2:])
    dense = jnp.broadcast_to(inside.sum(1, keepdims=True) * number, (len(used), active.shape[1]))
    return metrics.Products(used @ active, dense.astype(jnp.uint32), inside @ real == 0)
