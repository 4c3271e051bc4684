"""Spiking self-attention: products of spikes, without a softmax.

    s       = neuron(x)
    q, k, v = neuron(norm(s W))                       three maps, 0 or 1 everywhere
    o       = scale * (q k^T) v                       per head, over the tokens of one timestep
    y       = norm(neuron_threshold(o) W' + b')

Spike-driven self-attention replaces the products by a mask of channels, and is linear in tokens and
channels:

    m       = neuron_threshold(sum over tokens of k v)        one spike per channel and timestep
    y       = norm((q m) W' + b')

The entries of `q`, `k`, `v` are 0 or 1, so those of `(q k^T) v` are integers, and the product is
associative: `q (k^T v)` has the same bits in float32 if `tokens * head size < 2^24`. The shapes
alone select the cheaper of the two, so every memory strategy computes the same one.

References: Zhou, Zhu, He, Wang, Yan, Tian, Yuan, "Spikformer: When Spiking Neural Network Meets
Transformer", 2023, arXiv:2209.15425. Neurons in front of the synapses as in Zhou, Yu, Zhou, Ma,
Zhang, Zhou, Tian, "Spikingformer: Spike-driven Residual Learning for Transformer-based Spiking
Neural Network", 2023, arXiv:2304.11954. Yao, Hu, Zhou, Yuan, Tian, Xu, Li, "Spike-driven
Transformer", 2023, arXiv:2307.01694.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from snnjax import memory, metrics
from snnjax.nn._checks import check_rngs
from snnjax.nn.contract import Aux, Call, MemoryRequest, Placed, State, place, replace
from snnjax.nn.neuron import Neuron, check_neuron
from snnjax.nn.neuron_models import LIF
from snnjax.nn.normalization import BatchNorm
from snnjax.nn.synapses import Linear, he_normal
from snnjax.nn.taps import lazy_taps, packing_error
from snnjax.nn.wiring import Sequential
from snnjax.ops.arguments import as_floating, check_counts, check_flags, check_numbers
from snnjax.ops.rounding import narrow, widen
from snnjax.typing import Array, bind

__all__ = [
    "Attention",
    "ChannelMask",
    "SpikeDrivenAttention",
    "SpikingSelfAttention",
    "attend",
]


def SpikingSelfAttention(
    channels: int,
    heads: int,
    *,
    rngs: nnx.Rngs,
    neuron: Callable[..., Neuron] = LIF,
    norm: Callable[[int], Any] = BatchNorm,
    scale: float = 0.125,
    threshold: float = 0.5,
    use_bias: bool = False,
    spikes_out: bool = False,
) -> Sequential:
    """Spiking self-attention on tokens, `[T, B, N, D] -> [T, B, N, D]`.

        s       = neuron(x)
        q, k, v = neuron(norm(s W))
        y       = norm(neuron_threshold(scale * (q k^T) v) W' + b')

    The product runs per head over the N tokens of one timestep. W is one synapse of `3 D` outputs
    in the order q, k, v, which equals three synapses, since norm and neurons act on single
    outputs. `4 D^2 + D` parameters and those of two norms.

    Args:
        channels: `D`, channels of a token.
        heads: number of heads of equal size `D / heads`.
        rngs: random streams of the weights.
        neuron: `() -> layer` of neurons, with an option `threshold`.
        norm: `(channels) -> layer`, a normalisation.
        scale: fixed factor of the product, independent of the head size.
        threshold: firing threshold of the neurons behind the product.
        use_bias: biases of q, k and v, `3 D` more parameters.
        spikes_out: no neurons in front, `s = x`, but behind the last norm, as in Spikformer; False
            is the order of Spikingformer.

    Raises:
        ValueError: `heads` does not divide `channels`.

    Reference:
        Zhou, Zhu, He, Wang, Yan, Tian, Yuan, "Spikformer: When Spiking Neural Network Meets
        Transformer", 2023, arXiv:2209.15425.
    """
    check_counts("nn.SpikingSelfAttention", channels=channels, heads=heads)
    check_numbers("nn.SpikingSelfAttention", scale=scale, threshold=threshold)
    check_flags("nn.SpikingSelfAttention", use_bias=use_bias, spikes_out=spikes_out)
    check_rngs("nn.SpikingSelfAttention", rngs)
    if channels % heads:
        raise ValueError(
            f"{channels} channels cannot be divided into {heads} heads: choose a divisor"
        )
    product = (Attention(heads, scale=scale), neuron(threshold=threshold))
    layers = _around(product, channels, neuron, norm, rngs, use_bias=use_bias)
    # The same layers from another place of the loop over blocks.
    return Sequential(*layers[1:], neuron()) if spikes_out else Sequential(*layers)


def SpikeDrivenAttention(
    channels: int,
    *,
    rngs: nnx.Rngs,
    neuron: Callable[..., Neuron] = LIF,
    norm: Callable[[int], Any] = BatchNorm,
    threshold: float = 0.5,
) -> Sequential:
    """Spike-driven self-attention on tokens, `[T, B, N, D] -> [T, B, N, D]`.

        s       = neuron(x)
        q, k, v = neuron(norm(s W))
        m       = neuron_threshold(sum over tokens of k v)            [T, B, D]
        y       = norm((q m) W' + b')

    The sum counts spikes of a channel: at rest and with the decay of 1/2 of the paper, m fires at
    the first token that has k and v. Heads would not change the result, so there are none.
    `4 D^2 + D` parameters and those of two norms.

    Args:
        channels: `D`, channels of a token.
        rngs: random streams of the weights.
        neuron: `() -> layer` of neurons, with an option `threshold`.
        norm: `(channels) -> layer`, a normalisation.
        threshold: firing threshold of the neurons m.

    Reference:
        Yao, Hu, Zhou, Yuan, Tian, Xu, Li, "Spike-driven Transformer", 2023, arXiv:2307.01694.
    """
    check_counts("nn.SpikeDrivenAttention", channels=channels)
    check_numbers("nn.SpikeDrivenAttention", threshold=threshold)
    check_rngs("nn.SpikeDrivenAttention", rngs)
    mask = ChannelMask(neuron(threshold=threshold))
    return Sequential(*_around((mask,), channels, neuron, norm, rngs))


def _around(middle, channels, neuron, norm, rngs, *, use_bias=False) -> list[Any]:
    """Neurons, the maps to q, k and v, the layers in the middle, and the map behind them."""
    # One large product instead of three, and its spikes are packed once. A norm follows, so a bias
    # changes nothing; some released networks have one.
    three = Linear(channels, 3 * channels, use_bias=use_bias, kernel_init=he_normal, rngs=rngs)
    last = Linear(channels, channels, kernel_init=he_normal, rngs=rngs)
    return [neuron(), three, norm(3 * channels), neuron(), *middle, last, norm(channels)]


class Attention(nnx.Module):
    """Product of attention, `scale * (q k^T) v` per head, `[T, B, N, 3 D] -> [T, B, N, D]`.

    It has no parameters. Tap `"products"`: see `metrics.operations.attention_products`.

    Args:
        heads: number of heads of equal size `D / heads`.
        scale: fixed factor.
        pack: keep q, k and v, which must be spikes (exactly 0 or 1), at one bit each for the
            backward pass, which recomputes the inner product; `nn.with_memory` sets it.

    Raises:
        ValueError: the channels are not three times as many as heads of one size (on
            `initial_state`).
    """

    def __init__(self, heads: int, *, scale: float = 0.125, pack: bool = False):
        check_counts("nn.Attention", heads=heads)
        check_numbers("nn.Attention", scale=scale)
        self.heads, self.scale, self.pack, self.name = heads, scale, pack, "attention"

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """No state."""
        if len(shape) != 3 or shape[-1] % (3 * self.heads):
            raise ValueError(
                f"attention with {self.heads} heads takes q, k and v side by side, [B, tokens, "
                f"3 * channels] with channels divisible by the heads, not {list(shape)}"
            )
        return State()

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """q, k and v `[T, B, N, 3 D]` to `[T, B, N, D]`."""
        inputs = as_floating("nn.Attention", inputs)
        timesteps, batch = inputs.shape[:2]
        folded = inputs.reshape(timesteps * batch, *inputs.shape[2:])
        # A comparable function: equal layers compile once.
        product = bind(_product, heads=self.heads, scale=self.scale)
        outputs = (memory.packing.packed(product) if self.pack else product)((), folded)
        # The name of the residuals of synapses: recompute(keep=("currents",)) keeps this one, too.
        outputs = checkpoint_name(outputs, "currents")
        kinds = {"packing": lambda: packing_error(inputs)} if self.pack else {}
        taps = lazy_taps(call.taps, products=lambda: self._products(inputs), **kinds)
        return outputs.reshape(timesteps, batch, *outputs.shape[1:]), Aux(taps=taps)

    def _products(self, inputs: Array) -> metrics.operations.Products:
        *rows, tokens, width = inputs.shape
        # Channels are ordered q, k, v, and within each by head.
        parts = inputs.reshape(*rows, tokens, 3, self.heads, width // (3 * self.heads))
        return metrics.operations.attention_products(*(parts[..., i, :, :] for i in range(3)))

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Packs q, k and v if they are spikes; outputs are counts, not spikes."""
        if not (request.strategy.pack and request.spiking):
            return Placed(self)
        return Placed(replace(self, pack=True), taken=frozenset({"pack"}))


class ChannelMask(nnx.Module):
    """Mask of spike-driven attention, `q m`, `[T, B, N, 3 D] -> [T, B, N, D]`.

        m[t] = neuron(sum over the tokens n of k[t, n] v[t, n])       one neuron per channel

    It has no parameters but those of the neuron. Taps: those of the neuron, and `"products"`: k v
    and q m, one product each per token and channel.

    Args:
        neuron: neurons of the mask, `[T, B, D]`.
        pack: keep q, k and v, which must be spikes (exactly 0 or 1), at one bit each for the
            backward pass; `nn.with_memory` sets it.

    Raises:
        ValueError: the channels are not those of q, k and v side by side (on `initial_state`).
    """

    def __init__(self, neuron: Neuron, *, pack: bool = False):
        check_neuron("nn.ChannelMask", neuron)
        self.neuron, self.pack, self.name = neuron, pack, "channelmask"

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """Neurons at rest, `[B, D]`."""
        if len(shape) != 3 or shape[-1] % 3:
            raise ValueError(
                "the mask takes q, k and v side by side, [B, tokens, 3 * channels], not "
                f"{list(shape)}"
            )
        return self.neuron.initial_state((shape[0], shape[-1] // 3))

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """q, k and v `[T, B, N, 3 D]` to `[T, B, N, D]`."""
        inputs = as_floating("nn.ChannelMask", inputs)
        width = inputs.shape[-1] // 3
        run = memory.packing.packed if self.pack else _unpacked
        counts = run(_common)((), inputs[..., width:])
        # The name of the residuals of synapses: recompute(keep=("currents",)) keeps them, too.
        mask, aux = self.neuron(checkpoint_name(counts, "currents"), state, call)
        outputs = run(_masked)(mask, inputs[..., :width])
        kinds = {"packing": lambda: packing_error(inputs)} if self.pack else {}
        own = lazy_taps(call.taps, products=lambda: _mask_products(inputs, mask), **kinds)
        merged = {**aux.taps.get("", {}), **own.get("", {})}
        return outputs, aux._replace(taps={"": merged} if merged else {})

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Applies the strategy to the neurons, and packs q, k and v if they are spikes."""
        placed = place(self.neuron, request.child(False))
        pack = bool(request.strategy.pack and request.spiking)
        changed = replace(self, neuron=placed.layer, pack=pack)
        taken = placed.taken | ({"pack"} if pack else frozenset())
        # A product of spikes is a spike.
        return Placed(changed, request.spiking and placed.spiking, taken)


def _unpacked(function: Callable[..., Array]) -> Callable[..., Array]:
    return function


def _common(params: tuple[()], kv: Array) -> Array:
    """Number of tokens with spikes of both k and v, `[T, B, N, 2 D] -> [T, B, D]`."""
    del params
    # Counts above 256 are not exact in bfloat16.
    k, v = jnp.split(widen(kv), 2, axis=-1)
    return narrow((k * v).sum(-2), kv.dtype)


def _masked(mask: Array, q: Array) -> Array:
    return q * mask[:, :, None]


def _mask_products(inputs: Array, mask: Array) -> metrics.operations.Products:
    q, k, v = jnp.split(inputs, 3, axis=-1)
    spikes = jnp.all((inputs == 0) | (inputs == 1), (-2, -1))
    both = jnp.sum(k * v != 0, (-2, -1), dtype=jnp.uint32)
    kept = jnp.sum(q * mask[:, :, None] != 0, (-2, -1), dtype=jnp.uint32)
    dense = jnp.full_like(both, 2 * math.prod(q.shape[-2:]))
    return metrics.operations.Products(both + kept, dense, spikes)


def attend(q: Array, k: Array, v: Array, *, scale: float = 0.125) -> Array:
    """`scale * (q k^T) v` for every head, computed as `q (k^T v)` if that is cheaper.

    With N tokens and heads of size d, the cost is `2 N d min(N, d)` multiplications per head. The
    derivative keeps the inputs and the smaller of an `[N, N]` and a `[d, d]` matrix per head.

    Args:
        q: queries, `[..., N, heads, d]`.
        k: keys, `[..., N, heads, d]`.
        v: values, `[..., N, heads, d]`.
        scale: fixed factor; a power of two is exact.

    Returns:
        `[..., N, heads, d]`.
    """
    tokens, _, size = q.shape[-3:]
    # Integers below 2^24 are exact in float32, so both orders have equal bits.
    if size <= tokens:
        inner = jnp.einsum("...nhc,...nhd->...hcd", k, v)
        return scale * jnp.einsum("...nhc,...hcd->...nhd", q, inner)
    scores = jnp.einsum("...nhc,...mhc->...hnm", q, k)
    return scale * jnp.einsum("...hnm,...mhd->...nhd", scores, v)


def _product(params: tuple[()], qkv: Array, *, heads: int, scale: float) -> Array:
    """Attention of one timestep, `[N, tokens, 3 D] -> [N, tokens, D]`."""
    del params
    # Counts above 256 are not exact in bfloat16.
    wide = widen(qkv)
    number, tokens, width = qkv.shape
    parts = wide.reshape(number, tokens, 3, heads, width // (3 * heads))
    outputs = attend(*(parts[:, :, i] for i in range(3)), scale=scale)
    return narrow(outputs.reshape(number, tokens, width // 3), qkv.dtype)
