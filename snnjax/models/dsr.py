"""Networks of DSR: pre-activation ResNet for images, VGG-11 for event frames.

Every activation is a layer of `learning.RateNeuron`, whose derivative is that of its firing rate.
Batch norm takes its statistics over timesteps and batch.

Reference: Meng, Xiao, Yan, Wang, Lin, Luo, "Training High-Performance Low-Latency Spiking Neural
Networks by Differentiation on Spike Representation", 2022, arXiv:2205.00459.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from snnjax import learning, nn
from snnjax.memory import Strategy
from snnjax.models._assembly import conv_norm, finish, halve
from snnjax.models.vgg import VGG11

__all__ = ["dsr_resnet", "dsr_vgg"]


def dsr_neuron() -> learning.RateNeuron:
    """LIF neurons of DSR with a learned threshold, at its constants for T = 20."""
    return learning.RateNeuron(learning.dsr_lif_model(), learn=("threshold",))


def dsr_resnet(
    *,
    widths: Sequence[int] = (64, 128, 256, 512),
    blocks: Sequence[int] = (2, 2, 2, 2),
    classes: int = 10,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    large: bool = False,
    rngs: nnx.Rngs,
    neuron: Callable[[], Any] = dsr_neuron,
    memory: Strategy | None = None,
) -> nn.Network:
    """Pre-activation ResNet of DSR, PreAct-ResNet-18 by default, `[T, B, H, W, C]` to `[T, B, K]`.

        conv3x3 - [h = neuron(norm(x)); y = conv(neuron(norm(conv h))) + shortcut(h)] * blocks
        - norm - neuron - mean over 4x4 - neuron - linear - norm - neuron

    The shortcut, the identity too, starts from the spikes h. The outputs are scaled spikes of the
    last neurons: their mean (`readout.rate`), or for LIF neurons the mean weighted by the decay
    (`readout.decayed_rate`), is the prediction.

    Networks for large images, as released for ImageNet, begin with `conv7x7 / 2 - norm - neuron -
    mean over 3x3 / 2`, end with a mean over all of space, have norms behind the convolutions of
    shortcuts, and no biases in convolutions.

    Args:
        widths: channels per stage; the first keeps the resolution, the others halve it.
        blocks: blocks per stage.
        classes: number of outputs.
        input_shape: `(H, W, C)` of one frame.
        large: the form for large images.
        rngs: random streams of the parameters.
        neuron: `() -> layer` of neurons, a `learning.RateNeuron`.
        memory: memory strategy; over time it replaces the derivative of the rates by
            backpropagation through time.
    """
    height, width, depth = input_shape
    layers: list[Any]
    if large:
        stem = conv_norm(depth, widths[0], 7, nn.BatchNorm, strides=2, rngs=rngs)
        layers = [*stem, neuron(), nn.AvgPool(window=3, strides=2, padding=1)]
    else:
        layers = [nn.Conv(depth, widths[0], rngs=rngs)]
    depth = widths[0]
    for stage, (channels, number) in enumerate(zip(widths, blocks, strict=True)):
        for i in range(number):
            stride = 2 if stage and not i else 1
            layers += _block(depth, channels, stride, neuron, rngs, large=large)
            depth = channels
        if stage:
            height, width = (height + 1) // 2, (width + 1) // 2
    window = min(4, height, width)
    features = depth * (1 if large else (height // window) * (width // window))
    pool = nn.GlobalAvgPool() if large else nn.AvgPool(window=window)
    layers += [nn.BatchNorm(depth), neuron(), pool, neuron()]
    layers += [nn.Flatten(), *_dense(features, classes, neuron, rngs)]
    return finish(layers, input_shape, "layer", memory)


def dsr_vgg(
    *,
    stages: Sequence[Sequence[int]] = VGG11,
    classes: int = 10,
    input_shape: tuple[int, int, int] = (48, 48, 2),
    dropout: float = 0.1,
    rngs: nnx.Rngs,
    neuron: Callable[[], Any] = dsr_neuron,
    memory: Strategy | None = None,
) -> nn.Network:
    """VGG of DSR, VGG-11 by default, `[T, B, H, W, C]` to `[T, B, K]`.

        [[conv3x3 - norm - neuron - dropout] * per stage - mean over 2x2] * stages
        - linear - norm - neuron

    The released code enlarges the last maps, 1x1 for 48x48 inputs, to 7x7 by repetition, which
    gives each input 49 weights; here it has one.

    Args:
        stages: channels of each convolution, by stage.
        classes: number of outputs.
        input_shape: `(H, W, C)` of one frame.
        dropout: rate, with one mask for all timesteps.
        rngs: random streams of the parameters.
        neuron: `() -> layer` of neurons, a `learning.RateNeuron`.
        memory: memory strategy; over time it replaces the derivative of the rates by
            backpropagation through time.

    Raises:
        ValueError: more stages than the image can be halved.
    """
    height, width = halve(input_shape[:2], len(stages), cure="give fewer stages")
    depth, layers = input_shape[2], []
    for widths in stages:
        for size in widths:
            layers += [nn.Conv(depth, size, use_bias=True, rngs=rngs), nn.BatchNorm(size)]
            layers += [neuron(), nn.Dropout(dropout)]
            depth = size
        layers.append(nn.AvgPool())
    layers += [nn.Flatten(), *_dense(height * width * depth, classes, neuron, rngs)]
    return finish(layers, input_shape, "layer", memory)


def _block(inputs, outputs, stride, neuron, rngs, *, large):
    conv = lambda a, b, **o: nn.Conv(a, b, use_bias=not large, rngs=rngs, **o)  # noqa: E731
    branch = nn.Sequential(
        conv(inputs, outputs, strides=stride, padding=1),
        nn.BatchNorm(outputs),
        neuron(),
        conv(outputs, outputs),
    )
    changes = stride > 1 or inputs != outputs
    shortcut = conv(inputs, outputs, kernel=1, strides=stride) if changes else None
    if changes and large:
        shortcut = nn.Sequential(shortcut, nn.BatchNorm(outputs))
    return [nn.BatchNorm(inputs), neuron(), nn.Residual(branch, shortcut=shortcut)]


def _dense(features, classes, neuron, rngs):
    return [nn.Linear(features, classes, rngs=rngs), nn.BatchNorm(classes), neuron()]
