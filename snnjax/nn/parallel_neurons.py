"""Neurons that see a whole window at once, as layers: without a reset, no loop over time.

    nn.PSN(timesteps, rngs=rngs)                    sees its whole window, past and future
    nn.PSN(timesteps, order=k, rngs=rngs)           the last k timesteps of it

`nn.parallel_streaming` has causal ones for windows of any length and for streams. They take the
place of an `nn.LIF`: currents in, spikes out, which the next synapse can keep as bits. Without a
reset, a neuron above its threshold fires at every timestep.

These layers scan nothing over time, so they refuse a memory strategy over time. Over depth they
are part of their block.
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
from snnjax.nn.taps import lazy_taps, neuron_taps
from snnjax.ops.rounding import widen
from snnjax.surrogate import Surrogate, arctan
from snnjax.typing import Array

__all__ = ["PSN", "products_over_time", "refuse_time", "with_masking"]


class PSN(nnx.Module):
    """Parallel spiking neurons (PSN), which see their whole window.

        H = W X,    S[t] = [H[t] >= B[t]]

    Currents X `[T, B, ...]` in units of the membrane potential; spikes S `[T, B, ...]`, 0 or 1. The
    layer is not causal: spikes depend on later currents, so it has no streaming form and
    `order="time"` refuses it. All neurons share the `T^2 + T` parameters. Weights W start uniform
    within `1 / sqrt(T)` and thresholds B at 1, as in spikingjelly, whose bias is `-B`. Weights and
    membranes are float32 in every precision.

    With an `order` it is the masked PSN: weights outside of the last `order` timesteps fade out,

        H = (lambda M_k + (1 - lambda)) * W X,    M_k[t, s] = [t - k < s <= t]

    Training raises `masking` (lambda) from 0 to 1 with `network = nn.with_masking(network, step /
    steps)`, which does not retrace. Fully masked weights get no gradient.

    Args:
        timesteps: `T`, length of the window.
        order: `k`, from 1 to `T`; None is the plain PSN with all weights of the window.
        masking: `lambda` in [0, 1], of a masked PSN; a constant of the layer, not learned. At 1
            spikes depend on the last `k` currents only, below it on the whole window.
        spike: spike function and its surrogate derivative.
        rngs: for the weights.

    Raises:
        ValueError: an empty window; an order outside of 1 to `T`, or a masking outside of [0, 1];
            another number of timesteps (on a call); a strategy over time.

    Reference:
        Fang, Yu, Zhou, Chen, Chen, Ma, Masquelier, Tian, "Parallel Spiking Neurons with High
        Efficiency and Ability to Learn Long-term Dependencies", NeurIPS 2023, arXiv:2304.12760.
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
        self.masking = None if order is None else _masking_constant(masking, ())
        draw = fan_in_uniform(rngs.params(), (timesteps, timesteps), jnp.float32)
        self.weights, self.threshold = nnx.Param(draw), nnx.Param(jnp.ones(timesteps, jnp.float32))

    def params(self) -> neurons.PSNParams:
        """The parameters of `neurons.psn`, with masked weights."""
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
        taps = neuron_taps(call.taps, spikes, currents=inputs, params=(), membrane=membrane)
        if "threshold" in call.taps:  # one per timestep, where others have one per channel
            taps["threshold"] = params.threshold.reshape(-1, *(1,) * (inputs.ndim - 1))
        products = lazy_taps(call.taps, products=lambda: self._products(params, currents)).get(
            "", {}
        )
        return spikes, Aux(taps={"": taps | products} if taps | products else {})

    def _products(self, params: neurons.PSNParams, currents: Array) -> metrics.operations.Products:
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
        network: network or layer; unchanged, the result shares its parameters.
        masking: `lambda` in [0, 1], a number or, within a compiled function, a scalar array.

    Raises:
        ValueError: a number outside of [0, 1].
    """
    has_masking = lambda node: isinstance(node, PSN) and node.masking is not None  # noqa: E731

    def place(node: Any) -> Any:
        if not has_masking(node):
            return node
        # Stacked blocks have one masking each.
        return replace(node, masking=_masking_constant(masking, node.masking.shape))

    return jax.tree.map(place, network, is_leaf=has_masking)


def _masking_constant(masking: float | Array, shape: tuple[int, ...]) -> Constant:
    if isinstance(masking, float | int) and not 0 <= masking <= 1:
        raise ValueError(f"masking goes from 0, a plain PSN, to 1, causal: got {masking}")
    return Constant(jnp.broadcast_to(jnp.asarray(masking, jnp.float32), shape))


def refuse_time(strategy: Strategy, name: str, other: str) -> None:
    """Refuses a strategy over time for layers that scan nothing over time.

    Args:
        strategy: of the whole network.
        name: name of the layer.
        other: name of a layer with steps to scan.

    Raises:
        ValueError: there is a strategy over time.
    """
    if strategy.time is not None:
        raise ValueError(
            f"{name} has all timesteps at once and scans none, so a strategy over time has nothing "
            f"to act on: leave time out, or use {other}, whose steps can be scanned; of sequential "
            "neurons beside it give each its own, nn.LIF(scan=...)"
        )


def products_over_time(inside: Array, used: Array, currents: Array) -> metrics.operations.Products:
    """Products of neurons that weigh currents over time, one row per timestep of their outputs.

    Args:
        inside: `[T, S]`, True where current s enters the membrane at t; counted as dense.
        used: `[T, S]`, True where its weight is also nonzero; counted as effective.
        currents: `[S, B, ...]`.
    """
    axes = tuple(range(2, currents.ndim))
    inside, used = inside.astype(jnp.uint32), used.astype(jnp.uint32)
    active = jnp.sum(currents != 0, axes, dtype=jnp.uint32)
    real = jnp.any((currents != 0) & (currents != 1), axes).astype(jnp.uint32)
    number = math.prod(currents.shape[2:])
    dense = jnp.broadcast_to(inside.sum(1, keepdims=True) * number, (len(used), active.shape[1]))
    return metrics.operations.Products(used @ active, dense.astype(jnp.uint32), inside @ real == 0)
