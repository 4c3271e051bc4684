"""Spiking VGG for small images: convolutions in stages, pooled between, one linear layer.

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
from snnjax.models.assembly import conv_norm, finish

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
    """A VGG, `[T, B, H, W, C] -> [T, B, classes]`.

    Args:
        stages: channels of each convolution, by stage; `VGG11` or `VGG16`, or widths of your own.
        classes: outputs.
        input_shape: `(H, W, C)` of one frame; H and W are halved between stages.
        rngs: for the weights.
        neuron: makes a layer of neurons; called as `neuron()`.
        norm: makes a normalisation for so many channels; `order="time"` needs
            `functools.partial(nn.BatchNorm, over="step")`, or one without batch statistics.
        dropout: rate in front of the linear layer.
        order: `"layer"` or `"time"`, see `nn.Network`.
        memory: strategy of the backward pass; None is the neurons' own derivative over time. Over
            depth the layers are cut at synapses, so it takes `store` and `recompute`.

    Raises:
        ValueError: the stages shrink the image to nothing.
    """
    if min(input_shape[:2]) >> (len(stages) - 1) == 0:
        raise ValueError(
            f"{len(stages)} stages halve {input_shape[:2]} to nothing: give fewer stages"
        )
    depth, layers = input_shape[2], []
    for number, widths in enumerate(stages):
        if number:
            layers.append(nn.MaxPool())
        for size in widths:
            layers += [*conv_norm(depth, size, 3, norm, rngs=rngs), neuron()]
            depth = size
    layers += [nn.GlobalAvgPool(), nn.Dropout(dropout), nn.Linear(depth, classes, rngs=rngs)]
    return finish(layers, input_shape, order, memory)
