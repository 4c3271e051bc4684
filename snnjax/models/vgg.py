"""VGG for small images: stages of convolutions, pools between them, linear layers.

    [conv3x3 - norm - neuron] * per stage, pool between stages - mean over space
    - [dropout - linear - neuron] * hidden - dropout - linear

By default a spiking network with batch norm, max pools and one linear layer, as usual on CIFAR. The
sources of two papers on conversion, which have mean pools:

    QCFS (arXiv:2303.04347)     neuron=conversion.QCFS, pool=nn.AvgPool, hidden=(4096, 4096)
    optimal conversion          neuron=conversion.ThresholdReLU, pool=nn.AvgPool, norm=None,
    (arXiv:2103.00476)          stages=VGG16_POINTWISE, flatten=True, hidden=(4096, 4096)

Reference: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", 2015, arXiv:1409.1556.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from snnjax import nn
from snnjax.memory import Strategy
from snnjax.models._assembly import conv_norm, finish, halve

__all__ = ["VGG11", "VGG16", "VGG16_POINTWISE", "vgg"]

VGG11 = ((64,), (128,), (256, 256), (512, 512), (512, 512))
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
VGG16_POINTWISE = (
    *((64, 64), (128, 128)),
    *((256, 256, (256, 1)), (512, 512, (512, 1)), (512, 512, (512, 1))),
)
"""`VGG16` whose third convolutions have 1x1 kernels (Simonyan and Zisserman's configuration C)."""


def vgg(
    *,
    stages: Sequence[Sequence[int | tuple[int, int]]] = VGG16,
    hidden: Sequence[int] = (),
    classes: int = 10,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    rngs: nnx.Rngs,
    neuron: Callable[..., Any] = nn.LIF,
    norm: Callable[[int], Any] | None = nn.BatchNorm,
    pool: Callable[[], Any] = nn.MaxPool,
    flatten: bool = False,
    bias: bool = True,
    dropout: float = 0.0,
    order: str = "layer",
    memory: Strategy | None = None,
) -> nn.Network:
    """VGG, `[T, B, H, W, C] -> [T, B, classes]`.

        [conv3x3 - norm - neuron] * per stage, pool between stages - mean over space
        - [dropout - linear - neuron] * hidden - dropout - linear

    Args:
        stages: convolutions by stage, each a number of channels or `(channels, kernel)`: `VGG11`,
            `VGG16`, `VGG16_POINTWISE` or others.
        hidden: neurons of each fully connected layer, which have no norm.
        classes: number of outputs.
        input_shape: `(H, W, C)` of one frame; H and W are halved between stages.
        rngs: random streams of the parameters.
        neuron: `() -> layer` of neurons, or an activation of `snnjax.conversion`.
        norm: `(channels) -> layer`, a normalisation, or None; `order="time"` needs
            `functools.partial(nn.BatchNorm, over="step")`, or one without batch statistics.
        pool: `() -> layer`, a pool that halves H and W; networks to be converted need `nn.AvgPool`.
        flatten: the linear layers read every pixel of the last stage, not the mean over space.
        bias: biases of linear layers, and of convolutions without a norm.
        dropout: dropout rate in front of each linear layer.
        order: `"layer"` or `"time"`, see `nn.Network`.
        memory: memory strategy of the gradient; None for the neurons' own derivative over time.
            Over depth `store` or `recompute`, with cuts at synapses.

    Raises:
        ValueError: more stages than the image can be halved.

    Reference:
        Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
        Recognition", 2015, arXiv:1409.1556.
    """
    # Pools stand between stages only: n stages halve the image n - 1 times.
    height, width = halve(input_shape[:2], len(stages) - 1, cure="give fewer stages")
    depth, layers = input_shape[2], []
    for number, convolutions in enumerate(stages):
        # Pools follow neurons: the maximum of spikes is spikes, which a strategy packs.
        if number:
            layers.append(pool())
        for conv in convolutions:
            size, kernel = (conv, 3) if isinstance(conv, int) else conv
            layers += [*conv_norm(depth, size, kernel, norm, bias=bias, rngs=rngs), neuron()]
            depth = size
    # A mean over space makes the linear layers independent of the image size.
    layers.append(nn.Flatten() if flatten else nn.GlobalAvgPool())
    features = height * width * depth if flatten else depth
    for size in hidden:
        linear = nn.Linear(features, size, use_bias=bias, rngs=rngs)
        layers += [nn.Dropout(dropout), linear, neuron()]
        features = size
    linear = nn.Linear(features, classes, use_bias=bias, rngs=rngs)
    return finish([*layers, nn.Dropout(dropout), linear], input_shape, order, memory)
