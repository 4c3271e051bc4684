"""Networks of progressive tandem learning: strided convolutions in place of pools.

[conv3x3 - norm - neuron] * layers - flatten - [dropout - linear - norm - neuron] * hidden - linear

The neurons are rectifiers by default: such a network is the source of a conversion.

Reference: Wu, Xu, Han, Zhou, Zhang, Li, Tan, "Progressive Tandem Learning for Pattern Recognition
with Deep Spiking Neural Networks", 2020, arXiv:2007.01204.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from flax import nnx

from snnjax import conversion, nn
from snnjax.memory import Strategy
from snnjax.models._assembly import conv_norm, finish

__all__ = ["ALEXNET", "STRIDED_VGG11", "strided_net"]

ALEXNET = ((96, 1), (256, 2), (384, 2), (384, 1), (256, 2))
"""Channels and stride of each convolution; with `hidden=(2048,)`."""
STRIDED_VGG11 = (
    *((64, 1), (128, 2), (256, 1), (256, 2)),
    *((512, 1), (512, 2), (512, 1), (512, 2)),
)
"""The same of VGG-11; with `hidden=(4096, 4096)`."""

# The released code counts the new batch: torch's momentum 0.9.
_norm = partial(nn.BatchNorm, momentum=0.1, unbiased=True, epsilon=1e-4)


def strided_net(
    *,
    layers: Sequence[tuple[int, int]] = ALEXNET,
    hidden: Sequence[int] = (2048,),
    classes: int = 10,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    dropout: float = 0.0,
    rngs: nnx.Rngs,
    neuron: Callable[[], Any] = conversion.ReLU,
    norm: Callable[[int], Any] = _norm,
    order: str = "layer",
    memory: Strategy | None = None,
) -> nn.Network:
    """AlexNet or VGG-11 of progressive tandem learning, `[T, B, H, W, C] -> [T, B, classes]`.

        [conv3x3 - norm - neuron] * layers - flatten
        - [dropout - linear - norm - neuron] * hidden - linear

    Args:
        layers: channels and stride of each convolution, such as `ALEXNET` or `STRIDED_VGG11`.
        hidden: neurons of each fully connected layer.
        classes: number of outputs.
        input_shape: `(H, W, C)` of one frame; a stride of 2 halves H and W, rounding up.
        dropout: dropout rate in front of the fully connected layers but the last.
        rngs: random streams of the parameters.
        neuron: `() -> layer` of neurons, or an activation of `snnjax.conversion`.
        norm: `(channels) -> layer`, a normalisation.
        order: `"layer"` or `"time"`, see `nn.Network`.
        memory: memory strategy of the gradient; None for the layers' own.
    """
    height, width, depth = input_shape
    made: list[Any] = []
    for size, stride in layers:
        made += [*conv_norm(depth, size, 3, norm, strides=stride, rngs=rngs), neuron()]
        height, width, depth = -(-height // stride), -(-width // stride), size
    made.append(nn.Flatten())
    features = height * width * depth
    for size in hidden:
        # No bias in front of a norm, which has one.
        linear = nn.Linear(features, size, use_bias=False, rngs=rngs)
        made += [nn.Dropout(dropout), linear, norm(size), neuron()]
        features = size
    made.append(nn.Linear(features, classes, rngs=rngs))
    return finish(made, input_shape, order, memory)
