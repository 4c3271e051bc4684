"""Spikingformer: a spiking transformer with residual currents; the counterpart of RevSFormer.

    block   x <- x + SSA(x),   x <- x + MLP(x)
    net     tokenizer - blocks - mean over tokens - linear(D, classes)

`SSA` is spiking self-attention (`nn.SpikingSelfAttention`). The stream is a current, not spikes.
Blocks are stacked and scanned over depth.

References: Zhou, Yu, Zhou, Ma, Zhang, Zhou, Tian, "Spikingformer: Spike-driven Residual Learning
for Transformer-based Spiking Neural Network", 2023, arXiv:2304.11954. Sizes as the baselines of
Zhang and Zhang, "Memory-Efficient Reversible Spiking Neural Networks", 2024, arXiv:2312.07922.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flax import nnx

from snnjax import nn
from snnjax.memory import Strategy
from snnjax.models._assembly import finish
from snnjax.models.tokens import mlp_branch, tau_lif, tokenizer

__all__ = ["spikingformer"]


def spikingformer(
    *,
    depth: int = 4,
    width: int = 384,
    heads: int = 12,
    classes: int = 10,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    rngs: nnx.Rngs,
    pools: int = 2,
    expansion: int = 4,
    neuron: Callable[..., nn.Neuron] = tau_lif,
    norm: Callable[[int], Any] = nn.BatchNorm,
    order: str = "layer",
    memory: Strategy | None = None,
) -> nn.Network:
    """Spikingformer, `[T, B, H, W, C] -> [T, B, classes]`.

        x <- x + SSA(x),   x <- x + MLP(x)               one block on tokens [T, B, N, D]

    Spikingformer-2-384 and 4-384 have 5,762,746 and 9,320,122 parameters for 10 classes, 5,797,396
    and 9,354,772 for 100. The released code counts 5,765,818 and 9,326,266 (5,800,468 and
    9,360,916): each of its blocks has two unused layer norms, 1,536 parameters, which are left out
    here.

    Args:
        depth: number of blocks.
        width: `D`, channels of a token; divisible by 8 and by `heads`.
        heads: number of heads of the attention.
        classes: number of outputs.
        input_shape: `(H, W, C)` of one frame.
        rngs: random streams of the parameters.
        pools: number of max pools in the tokenizer: 2 for images of 32x32, 4 for 128x128.
        expansion: hidden width of the MLP as a multiple of D.
        neuron: `() -> layer` of neurons, with an option `threshold`.
        norm: `(channels) -> layer`, a normalisation; `order="time"` needs
            `functools.partial(nn.BatchNorm, over="step")`, or one without batch statistics.
        order: `"layer"` or `"time"`, see `nn.Network`.
        memory: memory strategy of the gradient; None for the neurons' own derivative over time.
            Over depth it scans the blocks and cuts the tokenizer's layers.

    Raises:
        ValueError: `width` is not divisible by 8 or by `heads`; `depth` is not positive.

    Reference:
        Zhou, Yu, Zhou, Ma, Zhang, Zhou, Tian, "Spikingformer: Spike-driven Residual Learning for
        Transformer-based Spiking Neural Network", 2023, arXiv:2304.11954.
    """
    make = {"neuron": neuron, "norm": norm}

    # A function of rngs, which the stack calls for the weights of each block.
    def block(rngs: nnx.Rngs) -> nn.Sequential:
        attention = nn.SpikingSelfAttention(width, heads, rngs=rngs, **make)
        mlp = mlp_branch(width, expansion=expansion, rngs=rngs, **make)
        return nn.Sequential(nn.Residual(attention), nn.Residual(mlp))

    layers = [
        *tokenizer(input_shape, width, pools=pools, rngs=rngs, **make),
        # Equal blocks are scanned: XLA:CPU saves memory over depth in a scan, and unrolled only
        # under its memory-optimised scheduler.
        nn.Stacked(block, depth, rngs=rngs),
        nn.GlobalAvgPool(),
        nn.Linear(width, classes, rngs=rngs),
    ]
    return finish(layers, input_shape, order, memory)
