"""Parallel spiking neurons over a fixed window: without a reset there is no loop over time.

    nn.PSN(timesteps, rngs=rngs)                    weighs all timesteps of the window
    nn.PSN(timesteps, order=k, rngs=rngs)           weighs the last k timesteps

`nn.parallel_streaming` has causal neurons for windows of any length and for streams. The layers
replace an `nn.LIF`: they map currents to spikes, which the next synapse can keep as bits. Without a
reset, a neuron above its threshold fires at every timestep.

These layers have no scan over time and refuse a memory strategy over time. A strategy over depth
recomputes them with their block.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import metrics, neurons
from snnjax.memory import Strategy
from snnjax.nn._checks import check_rngs
from snnjax.nn.contract import Aux, Call, MemoryRequest, Placed, State, no_state, replace
from snnjax.nn.neuron import Constant
from snnjax.nn.synapses import fan_in_uniform
from snnjax.nn.taps import lazy_taps, neuron_taps
from snnjax.ops.arguments import as_floating, check_counts, check_numbers
from snnjax.ops.rounding import widen
from snnjax.ops.variables import map_nodes
from snnjax.surrogate import Surrogate, arctan
from snnjax.typing import Array

__all__ = ["PSN", "products_over_time", "refuse_time", "with_masking"]


class PSN(nnx.Module):
    """Parallel spiking neurons (PSN) over a window of `timesteps`.

        H = W X,    S[t] = [H[t] >= B[t]]

    Currents X `[T, B, ...]` in units of the membrane potential; spikes S `[T, B, ...]`, 0 or 1.
    Weights W `[T, T]`, thresholds B `[T]`. The layer is not causal: spikes depend on later
    currents, so it has no streaming form and `order="time"` refuses it. All neurons share the
    `T^2 + T` parameters. W is initially uniform within `1 / sqrt(T)` and B is 1, as in
    spikingjelly, whose bias is `-B`. Weights and membranes are float32 in every precision.

    With an `order` k it is the masked PSN, whose weights outside of the last k timesteps fade out:

        H = (lambda M_k + (1 - lambda)) * W X,    M_k[t, s] = [t - k < s <= t]

    Training raises `masking` (lambda) from 0 to 1 by `network = nn.with_masking(network, step /
    steps)`, without retracing. Fully masked weights get no gradient.

    Args:
        timesteps: `T`, length of the window.
        order: `k`, from 1 to `T`; None is the plain PSN with all weights.
        masking: `lambda` in [0, 1] of a masked PSN; a constant, not learned. At 1, spikes depend on
            the last `k` currents only; below 1, on all currents of the window.
        spike: spike function and its surrogate derivative.
        rngs: random streams of the weights.

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
        check_counts("nn.PSN", timesteps=timesteps)
        if order is not None:
            check_counts("nn.PSN", order=order)
        check_rngs("nn.PSN", rngs)
        if order is not None and not 1 <= order <= timesteps:
            raise ValueError(
                f"a masked PSN weighs 1 to {timesteps} of its {timesteps} timesteps, got "
                f"order={order}"
            )
        self.whole_window, self.order, self.spike = timesteps, order, spike
        self.name, self.spiking = "psn" if order is None else "masked_psn", True
        # An array instead of a static number: a schedule of masking must not retrace.
        self.masking = None if order is None else _masking_constant(masking, ())
        # The default of PyTorch, so that published results are comparable.
        draw = fan_in_uniform(rngs.params(), (timesteps, timesteps), jnp.float32)
        self.weights, self.threshold = nnx.Param(draw), nnx.Param(jnp.ones(timesteps, jnp.float32))

    def params(self) -> neurons.psn.PSNParams:
        """Parameters of `neurons.psn.psn`, with masked weights."""
        weights = self.weights[...]
        if self.order is not None and self.masking is not None:
            masking = jax.lax.stop_gradient(self.masking[...])
            weights = neurons.psn.masked_weights(weights, order=self.order, masking=masking)
        return neurons.psn.PSNParams(weights, self.threshold[...])

    initial_state = no_state

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Maps currents `[T, B, ...]` to spikes `[T, B, ...]`, in the dtype of the currents.

        Taps: those of neurons (`nn.taps`), with `W X` as membrane, and `"products"`.
        """
        inputs = as_floating("nn.PSN", inputs)
        if len(inputs) != self.whole_window:
            raise ValueError(
                f"this PSN needs its whole window of {self.whole_window} timesteps at once and "
                f'got {len(inputs)}: give it a window of that length, in order="layer"; '
                "nn.SlidingPSN takes any length and streams"
            )
        params, currents = self.params(), widen(inputs)
        spikes = neurons.psn.psn(params, currents, spike=self.spike).astype(inputs.dtype)
        membrane = neurons.psn.psn_membranes(params, currents) if "membrane" in call.taps else None
        taps = neuron_taps(call.taps, spikes, currents=inputs, params=(), membrane=membrane)
        if "threshold" in call.taps:  # one per timestep, not per channel
            taps["threshold"] = params.threshold.reshape(-1, *(1,) * (inputs.ndim - 1))
        products = lazy_taps(call.taps, products=lambda: self._products(params, currents))
        taps |= products.get("", {})
        return spikes, Aux(taps={"": taps} if taps else {})

    def _products(
        self, params: neurons.psn.PSNParams, currents: Array
    ) -> metrics.operations.Products:
        used = params.weights != 0
        return products_over_time(jnp.ones_like(used), used, currents)

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Uses no part of the strategy; outputs are spikes.

        Raises:
            ValueError: a strategy over time.
        """
        refuse_time(request.strategy, "a PSN", "nn.SlidingPSN")
        return Placed(self, True)


def with_masking(network: Any, masking: float | Array) -> Any:
    """A copy of a network or layer with another `masking` in every masked `nn.PSN`.

    Args:
        network: network or layer; it stays unchanged and shares its parameters.
        masking: `lambda` in [0, 1], a number, or a scalar array in a compiled function.

    Raises:
        ValueError: a number outside of [0, 1].
    """
    # PSN layers are the leaves: everything else is shared with the original.
    return map_nodes(
        # Stacked blocks have one masking each.
        lambda node: replace(node, masking=_masking_constant(masking, node.masking.shape)),
        network,
        select=lambda node: isinstance(node, PSN) and node.masking is not None,
    )


def _masking_constant(masking: float | Array, shape: tuple[int, ...]) -> Constant:
    check_numbers("nn.PSN", least=0, most=1, masking=masking)
    return Constant(jnp.broadcast_to(jnp.asarray(masking, jnp.float32), shape))


def refuse_time(strategy: Strategy, name: str, other: str) -> None:
    """Refuses a strategy over time for a layer without a scan over time.

    Args:
        strategy: memory strategy of the network.
        name: name of the layer in the message.
        other: name of a similar layer that scans over time.

    Raises:
        ValueError: the strategy has a part over time.
    """
    if strategy.time is not None:
        raise ValueError(
            f"{name} computes all timesteps at once, so a strategy over time has no scan to act "
            f"on: leave time out, or use {other}, which scans over time; give sequential neurons "
            "of the same network their own strategy, nn.LIF(scan=...)"
        )


def products_over_time(inside: Array, used: Array, currents: Array) -> metrics.operations.Products:
    """Multiplications of neurons that weigh currents over time, one row per output timestep.

    Args:
        inside: `[T, S]`, True if current s enters the membrane at t; counted as dense.
        used: `[T, S]`, True if the weight is also nonzero; counted as effective.
        currents: `[S, B, ...]`.
    """
    axes = tuple(range(2, currents.ndim))
    # Integer counts are exact; float32 counts are not above 2^24.
    inside, used = inside.astype(jnp.uint32), used.astype(jnp.uint32)
    active = jnp.sum(currents != 0, axes, dtype=jnp.uint32)
    real = jnp.any((currents != 0) & (currents != 1), axes).astype(jnp.uint32)
    number = math.prod(currents.shape[2:])
    dense = jnp.broadcast_to(inside.sum(1, keepdims=True) * number, (len(used), active.shape[1]))
    return metrics.operations.Products(used @ active, dense.astype(jnp.uint32), inside @ real == 0)
