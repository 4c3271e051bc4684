"""Spikformer: a spiking transformer with neurons behind the norms, whose stream counts spikes.

    tokenizer   four convolutions, x = p + neuron(norm(conv(p))) at its end, p pooled spikes
    block       x <- x + SSA(x),   x <- x + MLP(x)
    net         tokenizer - blocks - mean over tokens - linear(D, classes)

`SSA` is spiking self-attention (`nn.SpikingSelfAttention(spikes_out=True)`). Branches end in
neurons, so the stream is an integer in `[0, 2 + 2 depth]`, which the synapses of a branch read
directly; `models.spikingformer` has its neurons in front of them. Blocks are stacked and scanned
over depth. Neurons are `tau_lif`.

Reference: Zhou, Zhu, He, Wang, Yan, Tian, Yuan, "Spikformer: When Spiking Neural Network Meets
Transformer", 2023, arXiv:2209.15425.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flax import nnx

from snnjax import nn
from snnjax.memory import Strategy
from snnjax.models._assembly import finish
from snnjax.models.tokens import mlp_branch, tau_lif, tokenizer

__all__ = ["spikformer"]


def spikformer(
    *,
    depth: int = 4,
    width: int = 384,
    heads: int = 12,
    classes: int = 10,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    rngs: nnx.Rngs,
    pools: int = 2,
    expansion: int = 4,
    bias: bool = True,
    neuron: Callable[..., nn.Neuron] = tau_lif,
    norm: Callable[[int], Any] = nn.BatchNorm,
    static: bool = False,
    order: str = "layer",
    memory: Strategy | None = None,
) -> nn.Network:
    """Spikformer, `[T, B, H, W, C] -> [T, B, classes]`.

        x <- x + SSA(x),   x <- x + MLP(x)               one block on tokens [T, B, N, D]

    Spikformer-4-384 has 9,324,730 parameters for 10 classes. Spikformer-8-512 for ImageNet,
    29,689,384 parameters, is

        spikformer(depth=8, width=512, heads=8, classes=1000, input_shape=(224, 224, 3), pools=4,
                   bias=False, rngs=rngs)

    The released code counts 9,330,874 and 29,705,768: each of its blocks has two unused layer
    norms, `4 D` parameters, which are left out here.

    Args:
        depth: number of blocks.
        width: `D`, channels of a token; divisible by 8 and by `heads`.
        heads: number of heads of the attention.
        classes: number of outputs.
        input_shape: `(H, W, C)` of one frame.
        rngs: random streams of the parameters.
        pools: number of max pools in the tokenizer: 2 for 32x32, 4 for 224x224.
        expansion: hidden width of the MLP as a multiple of D.
        bias: biases of q, k and v, as in the released file for CIFAR; False as in that for
            ImageNet.
        neuron: `() -> layer` of neurons, with an option `threshold`.
        norm: `(channels) -> layer`, a normalisation; `order="time"` needs
            `functools.partial(nn.BatchNorm, over="step")`, or one without batch statistics.
        static: compute the first convolution once, for frames that are equal at all timesteps
            (`encoding.direct`): equal values, another number of elements in its running variance.
        order: `"layer"` or `"time"`, see `nn.Network`.
        memory: memory strategy of the gradient; None for the neurons' own derivative over time.
            Over depth it scans the blocks and cuts the tokenizer's layers.

    Raises:
        ValueError: `width` is not divisible by 8 or by `heads`; `depth` is not positive.

    Reference:
        Zhou, Zhu, He, Wang, Yan, Tian, Yuan, "Spikformer: When Spiking Neural Network Meets
        Transformer", 2023, arXiv:2209.15425.
    """
    make: dict[str, Any] = {"neuron": neuron, "norm": norm}
    stem = {"pools": pools, "shortcut": "spikes", "static": static}

    # A function of rngs, which the stack calls for the weights of each block.
    def block(rngs: nnx.Rngs) -> nn.Sequential:
        own = {**make, "rngs": rngs, "spikes_out": True}
        attention = nn.SpikingSelfAttention(width, heads, use_bias=bias, **own)
        mlp = mlp_branch(width, expansion=expansion, **own)
        return nn.Sequential(nn.Residual(attention), nn.Residual(mlp))

    layers = [
        *tokenizer(input_shape, width, rngs=rngs, **stem, **make),
        nn.Stacked(block, depth, rngs=rngs),
        *(nn.GlobalAvgPool(), nn.Linear(width, classes, rngs=rngs)),
    ]
    return finish(layers, input_shape, order, memory)
