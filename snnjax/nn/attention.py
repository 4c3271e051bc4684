"""Spiking self-attention: products of spikes, without a softmax.

    s       = neuron(x)
    q, k, v = neuron(norm(s W))                       three maps, 0 or 1 everywhere
    o       = scale * (q k^T) v                       per head, over the tokens of one timestep
    y       = norm(neuron_threshold(o) W' + b')

The entries of `q`, `k`, `v` are 0 or 1, so those of `(q k^T) v` are integers, and the product is
associative: `q (k^T v)` has the same bits in float32 if `tokens * head size < 2^24`. The shapes
alone select the cheaper of the two, so every memory strategy computes the same one.

References: Zhou, Zhu, He, Wang, Yan, Tian, Yuan, "Spikformer: When Spiking Neural Network Meets
Transformer", 2023, arXiv:2209.15425. Neurons in front of the synapses as in Zhou, Yu, Zhou, Ma,
Zhang, Zhou, Tian, "Spikingformer: Spike-driven Residual Learning for Transformer-based Spiking
Neural Network", 2023, arXiv:2304.11954.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from snnjax import memory, metrics
from snnjax.nn._checks import check_rngs
from snnjax.nn.contract import Aux, Call, MemoryRequest, Placed, State, replace
from snnjax.nn.neuron import Neuron
from snnjax.nn.neuron_models import LIF
from snnjax.nn.normalization import BatchNorm
from snnjax.nn.synapses import Linear, he_normal
from snnjax.nn.taps import lazy_taps, packing_error
from snnjax.nn.wiring import Sequential
from snnjax.ops.arguments import as_floating, check_counts, check_numbers
from snnjax.ops.rounding import narrow, widen
from snnjax.typing import Array, bind

__all__ = ["Attention", "SpikingSelfAttention", "attend"]


def SpikingSelfAttention(
    channels: int,
    heads: int,
    *,
    rngs: nnx.Rngs,
    neuron: Callable[..., Neuron] = LIF,
    norm: Callable[[int], Any] = BatchNorm,
    scale: float = 0.125,
    threshold: float = 0.5,
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

    Raises:
        ValueError: `heads` does not divide `channels`.

    Reference:
        Zhou, Zhu, He, Wang, Yan, Tian, Yuan, "Spikformer: When Spiking Neural Network Meets
        Transformer", 2023, arXiv:2209.15425.
    """
    check_counts("nn.SpikingSelfAttention", channels=channels, heads=heads)
    check_numbers("nn.SpikingSelfAttention", scale=scale, threshold=threshold)
    check_rngs("nn.SpikingSelfAttention", rngs)
    if channels % heads:
        raise ValueError(
            f"{channels} channels cannot be divided into {heads} heads: choose a divisor"
        )
    # One large product instead of three, and its spikes are packed once. No bias: a norm follows.
    three = Linear(channels, 3 * channels, use_bias=False, kernel_init=he_normal, rngs=rngs)
    return Sequential(
        *(neuron(), three, norm(3 * channels), neuron()),
        *(Attention(heads, scale=scale), neuron(threshold=threshold)),
        *(Linear(channels, channels, kernel_init=he_normal, rngs=rngs), norm(channels)),
    )


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
