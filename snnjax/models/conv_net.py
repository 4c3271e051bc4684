"""A small convolutional network, for images of some 30 pixels and frames of events.

[conv3x3 - pool - norm - neuron] * stages - flatten - dropout - linear - norm - neuron - linear
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from snnjax import memory, nn
from snnjax.models.assembly import conv_norm, finish
from snnjax.typing import Scan

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
    time_scan: Scan | None = None,
    depth_scan: Scan | None = None,
    pack: bool | memory.Storage = False,
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
        time_scan: the memory strategy over time; None is the neuron's own.
        depth_scan: the memory strategy over the layers, cut at synapses; store or recompute.
        pack: keep spikes at one bit each, see `memory.Strategy`.

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
    return finish(layers, input_shape, order, time_scan=time_scan, depth_scan=depth_scan, pack=pack)
