"""RevSFormer: a spiking transformer with reversible blocks.

    x1 = x2 = tokens
    block   y1 = x1 + q(SSA(x2)),   y2 = x2 + q(MLP(y1))
    net     tokenizer - blocks - mean over tokens - linear(2 D, classes)

`SSA` is spiking self-attention (`nn.SpikingSelfAttention`), `q` rounds to a dyadic grid, on which
the inverse of a block is exact. The published stream is floating point (`bits=None`). The tokenizer
has no inverse; it is recomputed from its spikes, kept at one bit each.

Reference: Zhang and Zhang, "Memory-Efficient Reversible Spiking Neural Networks", 2024,
arXiv:2312.07922; the parallel form after Xu, Sun, Liu, Liao, Yang, "ParaRevSNN: A Parallel
Reversible Spiking Neural Network for Efficient Training and Inference", 2025, arXiv:2508.01223.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx

from snnjax import nn
from snnjax.memory import Strategy, recompute
from snnjax.memory.grid import DEFAULT_BITS
from snnjax.models.tokens import mlp_branch, tau_lif, tokenizer
from snnjax.typing import Array

__all__ = ["rev_sformer"]


def rev_sformer(
    *,
    depth: int = 4,
    width: int = 384,
    heads: int = 12,
    classes: int = 10,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    rngs: nnx.Rngs,
    pools: int = 2,
    expansion: int = 4,
    bits: int | None = DEFAULT_BITS,
    parallel: bool = False,
    neuron: Callable[..., nn.Neuron] = tau_lif,
    norm: Callable[[int], Any] = nn.BatchNorm,
    branch_norm: Callable[[int], Any] | None = None,
    order: str = "layer",
    memory: Strategy | None = None,
) -> nn.Network:
    """RevSFormer, `[T, B, H, W, C] -> [T, B, classes]`.

        y1 = x1 + q(SSA(x2)),   y2 = x2 + q(MLP(y1))         one block on tokens [T, B, N, D]

    RevSFormer-2-384 and 4-384 have 5,766,586 and 9,323,962 parameters for 10 classes, 5,835,796 and
    9,393,172 for 100; published with 12 heads for 10 classes and 8 for 100. RevSFormer-2-256 for
    event frames (2,569,226 parameters for 10 classes, 2,569,739 for 11) is

        rev_sformer(depth=2, width=256, heads=16, pools=4, input_shape=(128, 128, 2),
                    neuron=functools.partial(models.tau_lif, tau=1.5), rngs=rngs)

    Args:
        depth: number of blocks.
        width: `D`, channels of a token in each stream; divisible by 8 and by `heads`.
        heads: number of heads of the attention.
        classes: number of outputs.
        input_shape: `(H, W, C)` of one frame.
        rngs: random streams of the parameters.
        pools: number of max pools in the tokenizer: 2 for images of 32x32, 4 for 128x128.
        expansion: hidden width of the MLP as a multiple of D.
        bits: binary places of the streams' grid; None is the floating-point stream of the paper,
            whose reversed gradient is only approximate.
        parallel: swap the streams in each block, `y1 = x2 + SSA(x1)`, `y2 = x1 + MLP(y1)`, so that
            the attention of a block can run in parallel with the MLP of the previous one.
        neuron: `() -> layer` of neurons, with an option `threshold`.
        norm: `(channels) -> layer`, a normalisation; `order="time"` needs
            `functools.partial(nn.BatchNorm, over="step")`, or one without batch statistics.
        branch_norm: `(channels) -> layer`, the normalisations inside the reversible blocks; None
            for `norm`. The released code moves their running statistics twice per training step,
            here every norm moves once; `functools.partial(nn.BatchNorm, momentum=0.81)` moves them
            as far as twice 0.9.
        order: `"layer"` or `"time"`, see `nn.Network`.
        memory: memory strategy of the gradient. Over depth, None and `memory.reversal()` invert the
            blocks and recompute the tokenizer; `memory.store` keeps all residuals.

    Raises:
        ValueError: `width` is not divisible by 8 or by `heads`; `depth` is not positive.

    Reference:
        Zhang and Zhang, "Memory-Efficient Reversible Spiking Neural Networks", 2024,
        arXiv:2312.07922.
    """
    make: dict[str, Any] = {"neuron": neuron, "norm": branch_norm or norm}
    layers = [
        *tokenizer(input_shape, width, pools=pools, rngs=rngs, neuron=neuron, norm=norm),
        nn.Fold(duplicate_tokens, name="twice"),
        nn.Reversible(
            # Functions of rngs: every block draws weights of its own.
            lambda rngs: nn.SpikingSelfAttention(width, heads, rngs=rngs, **make),
            lambda rngs: mlp_branch(width, expansion=expansion, rngs=rngs, **make),
            depth,
            rngs=rngs,
            bits=bits,
            swap=parallel,
        ),
        nn.GlobalAvgPool(),
        # The classifier reads both streams, which lie side by side on the channel axis.
        nn.Linear(2 * width, classes, rngs=rngs),
    ]
    network = nn.Network(nn.Sequential(*layers), input_shape, order=order)
    # Only the blocks have an inverse: the tokenizer is cut where its activations are spikes.
    each = Strategy(depth=recompute(1), pack=True)
    network.body.joints = nn.with_memory(network, each).body.joints  # type: ignore[union-attr]
    return network if memory is None else nn.with_memory(network, memory)


def duplicate_tokens(tokens: Array) -> Array:
    """Copies tokens to both streams, `[N, tokens, D] -> [N, tokens, 2 D]`."""
    return jnp.concatenate([tokens, tokens], -1)
