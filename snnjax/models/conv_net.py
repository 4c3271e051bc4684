"""A small convolutional network, for images of some 30 pixels and frames of events.

[conv3x3 - pool - norm - neuron] * stages - flatten - dropout - linear - norm - neuron - linear
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from snnjax import nn
from snnjax.memory import Strategy
from snnjax.models.assembly import conv_norm, finish

__all__ = ["conv_net"]


def conv_net(
    input_shape: tuple[int, int, int],
    *,
    channels: Sequence[int] = (32, 64),
    hidden: int = 256,
    classes: int = 10,
    rngs: nnx.Rngs,
    neuron: Callable[..., nn.Neuron] = nn.LIF,
    norm: Callable[[int], Any] = nn.BatchNorm,
    pool: Callable[[], Any] = nn.MaxPool,
    dropout: float = 0.0,
    order: str = "layer",
    memory: Strategy | None = None,
) -> nn.Network:
    """A convolutional network, `[T, B, H, W, C] -> [T, B, classes]`.

    Args:
        input_shape: `(H, W, C)` of one frame; each stage halves H and W (rounding down).
        channels: channels per stage.
        hidden: neurons of the fully connected layer; 0 leaves it out.
        classes: outputs.
        rngs: for the weights.
        neuron: makes a layer of neurons; called as `neuron()`.
        norm: makes a normalisation for so many channels; `order="time"` needs
            `functools.partial(nn.BatchNorm, over="step")`, or one without batch statistics.
        pool: makes a pooling layer that halves H and W.
        dropout: rate in front of the fully connected part.
        order: `"layer"` or `"time"`, see `nn.Network`.
        memory: strategy of the backward pass; None is the neurons' own derivative over time. Over
            depth the layers are cut at synapses, so it takes `store` and `recompute`.

    Raises:
        ValueError: the stages shrink the image to nothing.
    """
    height, width, depth = input_shape
    if min(height, width) >> len(channels) == 0:
        raise ValueError(
            f"{len(channels)} stages halve {height}x{width} to nothing: give fewer channels"
        )
    layers: list = []
    for size in channels:
        conv, normalize = conv_norm(depth, size, 3, norm, rngs=rngs)
        layers += [conv, pool(), normalize, neuron()]
        height, width, depth = height // 2, width // 2, size
    layers += [nn.Flatten(), nn.Dropout(dropout)]
    features = height * width * depth
    if hidden:
        layers += [nn.Linear(features, hidden, use_bias=False, rngs=rngs), norm(hidden), neuron()]
        features = hidden
    layers.append(nn.Linear(features, classes, rngs=rngs))
    return finish(layers, input_shape, order, memory)
