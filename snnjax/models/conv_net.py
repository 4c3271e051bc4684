"""Small convolutional network, for images of about 30 pixels and event frames.

[conv3x3 - pool - norm - neuron] * stages - flatten - dropout - linear - norm - neuron - linear
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from snnjax import nn
from snnjax.memory import Strategy
from snnjax.models._assembly import conv_norm, finish, halve

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
    """Small convolutional network, `[T, B, H, W, C] -> [T, B, classes]`.

        [conv3x3 - pool - norm - neuron] * stages - flatten - dropout
        - linear - norm - neuron - linear

    Args:
        input_shape: `(H, W, C)` of one frame; each stage halves H and W (rounding down).
        channels: channels per stage.
        hidden: neurons of the fully connected layer; 0 for no such layer.
        classes: number of outputs.
        rngs: random streams of the parameters.
        neuron: `() -> layer` of neurons.
        norm: `(channels) -> layer`, a normalisation; `order="time"` needs
            `functools.partial(nn.BatchNorm, over="step")`, or one without batch statistics.
        pool: `() -> layer`, a pool that halves H and W.
        dropout: dropout rate in front of the fully connected layers.
        order: `"layer"` or `"time"`, see `nn.Network`.
        memory: memory strategy of the gradient; None for the neurons' own derivative over time.
            Over depth `store` or `recompute`, with cuts at synapses.

    Raises:
        ValueError: more stages than the image can be halved.
    """
    height, width = halve(input_shape[:2], len(channels), cure="give fewer channels")
    depth, layers = input_shape[2], []
    for size in channels:
        conv, normalize = conv_norm(depth, size, 3, norm, rngs=rngs)
        # Pooling in front of the neurons quarters their states and residuals.
        layers += [conv, pool(), normalize, neuron()]
        depth = size
    # A rate of 0 leaves spikes as spikes, so the next synapse can still pack them.
    layers += [nn.Flatten(), nn.Dropout(dropout)]
    features = height * width * depth
    if hidden:
        # No bias in front of a norm, which has one.
        layers += [nn.Linear(features, hidden, use_bias=False, rngs=rngs), norm(hidden), neuron()]
        features = hidden
    layers.append(nn.Linear(features, classes, rngs=rngs))
    return finish(layers, input_shape, order, memory)
