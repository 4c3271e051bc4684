"""Spike-driven Transformer: a stream of currents, attention by masks of spikes.

    tokenizer   as in Spikformer, x = p + norm(conv(neuron(p))) at its end, p pooled currents
    block       x <- x + SDSA(x),   x <- x + MLP(x)
    net         tokenizer - blocks - mean over tokens - neuron - linear(D, classes)

`SDSA` is spike-driven self-attention (`nn.SpikeDrivenAttention`): a count over tokens fires one
spike per channel, which masks q. Every synapse but the first reads spikes. Blocks are stacked and
scanned over depth. Neurons are `tau_lif`.

Reference: Yao, Hu, Zhou, Yuan, Tian, Xu, Li, "Spike-driven Transformer", 2023, arXiv:2307.01694.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flax import nnx

from snnjax import nn
from snnjax.memory import Strategy
from snnjax.models._assembly import finish
from snnjax.models.tokens import mlp_branch, tau_lif, tokenizer

__all__ = ["spike_driven_transformer"]


def spike_driven_transformer(
    *,
    depth: int = 8,
    width: int = 512,
    classes: int = 1000,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    rngs: nnx.Rngs,
    pools: int = 4,
    expansion: int = 4,
    neuron: Callable[..., nn.Neuron] = tau_lif,
    norm: Callable[[int], Any] = nn.BatchNorm,
    static: bool = False,
    order: str = "layer",
    memory: Strategy | None = None,
) -> nn.Network:
    """Spike-driven Transformer, `[T, B, H, W, C] -> [T, B, classes]`.

        x <- x + SDSA(x),   x <- x + MLP(x)              one block on tokens [T, B, N, D]

    8-384, 8-512 and 8-768 have 16,816,024, 29,689,384 and 66,338,632 parameters for 1000 classes,
    and 2-512 for 32x32 images (`pools=2`) 10,233,418 for 10. The released code counts `heads^2`
    more per block, 512 for 8 blocks of 8 heads: weights of "talking heads" that no forward pass
    uses, which are left out here. Its heads have no effect, so there are none.

    Args:
        depth: number of blocks.
        width: `D`, channels of a token; divisible by 8.
        classes: number of outputs.
        input_shape: `(H, W, C)` of one frame.
        rngs: random streams of the parameters.
        pools: number of max pools in the tokenizer: 4 for 224x224, 2 for 32x32.
        expansion: hidden width of the MLP as a multiple of D.
        neuron: `() -> layer` of neurons, with an option `threshold`.
        norm: `(channels) -> layer`, a normalisation; `order="time"` needs
            `functools.partial(nn.BatchNorm, over="step")`, or one without batch statistics.
        static: compute the first convolution once, for frames that are equal at all timesteps
            (`encoding.direct`): equal values, another number of elements in its running variance.
        order: `"layer"` or `"time"`, see `nn.Network`.
        memory: memory strategy of the gradient; None for the neurons' own derivative over time.
            Over depth it scans the blocks and cuts the tokenizer's layers.

    Raises:
        ValueError: `width` is not divisible by 8; `depth` is not positive.

    Reference:
        Yao, Hu, Zhou, Yuan, Tian, Xu, Li, "Spike-driven Transformer", 2023, arXiv:2307.01694.
    """
    make: dict[str, Any] = {"neuron": neuron, "norm": norm}
    stem = {"pools": pools, "shortcut": "currents", "static": static}

    # A function of rngs, which the stack calls for the weights of each block.
    def block(rngs: nnx.Rngs) -> nn.Sequential:
        attention = nn.SpikeDrivenAttention(width, rngs=rngs, **make)
        mlp = mlp_branch(width, expansion=expansion, rngs=rngs, **make)
        return nn.Sequential(nn.Residual(attention), nn.Residual(mlp))

    layers = [
        *tokenizer(input_shape, width, rngs=rngs, **stem, **make),
        nn.Stacked(block, depth, rngs=rngs),
        # The mean is a current; the last neurons turn it into spikes.
        *(nn.GlobalAvgPool(), neuron(), nn.Linear(width, classes, rngs=rngs)),
    ]
    return finish(layers, input_shape, order, memory)
