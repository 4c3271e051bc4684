"""Spiking VGG for small images: stages of convolutions, pools between them, one linear layer.

    [conv3x3 - norm - neuron] * per stage, max pool between stages - mean over space - linear

Reference: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", 2015, arXiv:1409.1556; with batch norm, and one linear layer as usual on CIFAR.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from snnjax import nn
from snnjax.memory import Strategy
from snnjax.models._assembly import conv_norm, finish, halve

__all__ = ["VGG11", "VGG16", "vgg"]

VGG11 = ((64,), (128,), (256, 256), (512, 512), (512, 512))
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg(
    *,
    stages: Sequence[Sequence[int]] = VGG16,
    classes: int = 10,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    rngs: nnx.Rngs,
    neuron: Callable[..., nn.Neuron] = nn.LIF,
    norm: Callable[[int], Any] = nn.BatchNorm,
    dropout: float = 0.0,
    order: str = "layer",
    memory: Strategy | None = None,
) -> nn.Network:
    """Spiking VGG, `[T, B, H, W, C] -> [T, B, classes]`.

        [conv3x3 - norm - neuron] * per stage, max pool between stages - mean over space - linear

    Args:
        stages: channels of each convolution, by stage: `VGG11`, `VGG16` or other widths.
        classes: number of outputs.
        input_shape: `(H, W, C)` of one frame; H and W are halved between stages.
        rngs: random streams of the parameters.
        neuron: `() -> layer` of neurons.
        norm: `(channels) -> layer`, a normalisation; `order="time"` needs
            `functools.partial(nn.BatchNorm, over="step")`, or one without batch statistics.
        dropout: dropout rate in front of the linear layer.
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
    halve(input_shape[:2], len(stages) - 1, cure="give fewer stages")
    depth, layers = input_shape[2], []
    for number, widths in enumerate(stages):
        # Max pools follow neurons, so their inputs are spikes, which a strategy packs.
        if number:
            layers.append(nn.MaxPool())
        for size in widths:
            layers += [*conv_norm(depth, size, 3, norm, rngs=rngs), neuron()]
            depth = size
    # A mean over space makes the classifier independent of the image size.
    layers += [nn.GlobalAvgPool(), nn.Dropout(dropout), nn.Linear(depth, classes, rngs=rngs)]
    return finish(layers, input_shape, order, memory)
