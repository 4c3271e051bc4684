"""Parts of the spiking transformers: tokenizer, MLP, neuron.

    tokenizer   conv3x3 - norm, then four times: neuron - (max pool) - conv3x3 - norm; tokens are
                the places of the last map
    MLP         neuron - linear(D, 4 D) - norm - neuron - linear(4 D, D) - norm

The tokenizer's widths are D/8, D/4, D/2, D, D. A 1x1 convolution of the papers is a linear map of
tokens here. The tokenizer's output is a current, as is every branch's.

References: Zhou, Yu, Zhou, Ma, Zhang, Zhou, Tian, "Spikingformer: Spike-driven Residual Learning
for Transformer-based Spiking Neural Network", 2023, arXiv:2304.11954; as used by Zhang and Zhang,
"Memory-Efficient Reversible Spiking Neural Networks", 2024, arXiv:2312.07922.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flax import nnx

from snnjax import nn, surrogate
from snnjax.models.assembly import conv_norm
from snnjax.neurons import reset
from snnjax.typing import Array

__all__ = ["mlp_branch", "tau_lif", "tokenizer"]

_STAGES = 5
_HARD = reset.detached(reset.zero)


def tau_lif(*, tau: float = 2.0, threshold: float = 1.0) -> nn.Neuron:
    """The LIF of the papers: `h = v + (x - v) / tau`, set to 0 by a spike, sigmoid slope.

    Args:
        tau: time constant in timesteps; 2 for images, 1.5 for event frames. The decay is `1 - 1 /
            tau`; the reset has no gradient of its own, the surrogate is `sigmoid(alpha=4)`.
        threshold: of the membrane.

    Raises:
        ValueError: `tau` is not above 1: the neuron would keep nothing.
    """
    if tau <= 1:
        raise ValueError(f"tau is the membrane's time constant in steps, above 1, not {tau}")
    return nn.LIF(
        decay=1 - 1 / tau,
        threshold=threshold,
        spike=surrogate.sigmoid(alpha=4.0),
        reset=_HARD,
        scale_input=True,
    )


def tokenizer(
    input_shape: tuple[int, int, int],
    width: int,
    *,
    pools: int,
    neuron: Callable[..., nn.Neuron],
    norm: Callable[[int], Any],
    rngs: nnx.Rngs,
) -> list[Any]:
    """Layers from images to tokens, `[T, B, H, W, C] -> [T, B, N, width]`.

    Args:
        input_shape: `(H, W, C)` of one frame.
        width: `D`, of a token; divisible by 8.
        pools: how many of the last convolutions have a max pool in front (3x3, stride 2, padded by
            1), which halves H and W: 2 for 32x32, 4 for 128x128, both to 8x8 tokens.
        neuron: makes a layer of neurons.
        norm: makes a normalisation for so many channels.
        rngs: for the kernels.

    Raises:
        ValueError: `width` is not divisible by 8; there are not so many convolutions to pool.
    """
    if width % 8 or width < 8:
        raise ValueError(f"the tokenizer starts at an eighth of the width, which {width} has not")
    if not 0 <= pools < _STAGES:
        raise ValueError(f"a tokenizer has 0 to {_STAGES - 1} pools, not {pools}")
    layers, channels = [], input_shape[2]
    for stage, share in enumerate((8, 4, 2, 1, 1)):
        layers += [neuron()] if stage else []
        if stage >= _STAGES - pools:
            layers.append(nn.MaxPool(window=3, strides=2, padding=1))
        layers += conv_norm(channels, width // share, 3, norm, rngs=rngs)
        channels = width // share
    return [*layers, nn.Fold(as_tokens, name="tokens")]


def mlp_branch(
    width: int,
    *,
    expansion: int,
    neuron: Callable[..., nn.Neuron],
    norm: Callable[[int], Any],
    rngs: nnx.Rngs,
) -> nn.Sequential:
    """The MLP of a block, `[T, B, N, width] -> [T, B, N, width]`, `expansion * width` inside."""
    inside = expansion * width
    return nn.Sequential(
        *(
            neuron(),
            nn.Linear(width, inside, kernel_init=nn.synapses.he_normal, rngs=rngs),
            norm(inside),
        ),
        *(
            neuron(),
            nn.Linear(inside, width, kernel_init=nn.synapses.he_normal, rngs=rngs),
            norm(width),
        ),
    )


def as_tokens(images: Array) -> Array:
    """`[N, H, W, C] -> [N, H W, C]`."""
    return images.reshape(images.shape[0], -1, images.shape[-1])
