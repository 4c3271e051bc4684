"""MS-ResNet: residual blocks whose stream is the membrane current, not spikes.

    block   y = shortcut(x) + norm(conv3x3(neuron(norm(conv3x3(neuron(x))))))
    net     conv3x3 - norm - four stages of blocks - neuron - mean over space - linear

The shortcut is the identity, or conv1x1 with stride - norm at the start of a stage with another
shape. Equal blocks of a stage are stacked and scanned over depth.

The baseline of Zhang and Zhang (2024) has integrate-and-fire neurons with a detached hard reset,
also in front of the convolution of a shortcut:

    models.ms_resnet(
        neuron=functools.partial(nn.IF, reset=neurons.reset.detached(neurons.reset.zero)),
        spiking_shortcut=True, static=True, rngs=rngs,
    )

Reference: Hu, Deng, Wu, Yao, Li, "Advancing Spiking Neural Networks toward Deep Residual Learning",
2021, arXiv:2112.08954. Widths and depths as the CIFAR baselines of Zhang and Zhang,
"Memory-Efficient Reversible Spiking Neural Networks", 2024, arXiv:2312.07922.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from snnjax import nn
from snnjax.memory import Strategy
from snnjax.models._assembly import conv_norm, event_stem, finish, residual_stages

__all__ = ["BLOCKS", "ms_resnet"]

BLOCKS = {18: (2, 2, 2, 2), 20: (3, 3, 3), 34: (3, 4, 6, 3), 104: (3, 8, 32, 8)}
WIDTHS = {20: (16, 32, 64)}


def ms_resnet(
    *,
    depth: int = 18,
    classes: int = 10,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    rngs: nnx.Rngs,
    widths: Sequence[int] | None = None,
    blocks: Sequence[int] | None = None,
    neuron: Callable[..., nn.Neuron] = nn.LIF,
    spiking_shortcut: bool = False,
    norm: Callable[[int], Any] = nn.BatchNorm,
    events: bool | None = None,
    static: bool = False,
    order: str = "layer",
    memory: Strategy | None = None,
) -> nn.Network:
    """MS-ResNet, `[T, B, H, W, C] -> [T, B, classes]`.

        y = shortcut(x) + norm(conv3x3(neuron(norm(conv3x3(neuron(x))))))         one block

    Parameters with default widths and input, for 10 classes: 11,173,962 (depth 18), 21,282,122
    (34), 76,764,490 (104), and for event frames of 2 channels 272,330 (20).

    Args:
        depth: 18, 34, 104, or 20 for event frames; selects widths and blocks per stage.
        classes: number of outputs.
        input_shape: `(H, W, C)` of one frame; each stage after the first halves H and W.
        rngs: random streams of the parameters.
        widths: channels per stage; None for those of `depth`.
        blocks: blocks per stage; None for those of `depth`.
        neuron: `() -> layer` of neurons; the released baseline has those of the module docstring.
        spiking_shortcut: put neurons in front of the convolution of a shortcut, as the released
            baseline does: all convolutions but the first then read spikes.
        norm: `(channels) -> layer`, a normalisation; `order="time"` needs
            `functools.partial(nn.BatchNorm, over="step")`, or one without batch statistics.
        events: True for the stem of large event frames, which halves H and W twice; None selects it
            for depth 20.
        static: compute the stem once, for frames that are equal at all timesteps
            (`encoding.direct`), as the released baseline does; later frames are ignored.
        order: `"layer"` or `"time"`, see `nn.Network`.
        memory: memory strategy of the gradient; None for the neurons' own derivative over time.
            Over depth it scans the stacked blocks and cuts the layers between them.

    Raises:
        ValueError: an unknown depth; different numbers of blocks and widths, or a stage without
            blocks.

    Reference:
        Hu, Deng, Wu, Yao, Li, "Advancing Spiking Neural Networks toward Deep Residual Learning",
        2021, arXiv:2112.08954.
    """
    if blocks is None and depth not in BLOCKS:
        raise ValueError(f"ms_resnet knows depths {sorted(BLOCKS)}, not {depth}: give blocks=")
    counts: Sequence[int] = blocks or BLOCKS[depth]
    sizes: Sequence[int] = widths or WIDTHS.get(depth, (64, 128, 256, 512))
    small: Callable[..., Any] = functools.partial(event_stem, pool=nn.MaxPool)
    stem = small if (depth == 20 if events is None else events) else conv_norm
    first = stem(input_shape[2], sizes[0], 3, norm, rngs=rngs)
    layers: list = [nn.StaticInput(nn.Sequential(*first))] if static else [*first]
    block = functools.partial(_block, neuron=neuron, norm=norm, spiking_shortcut=spiking_shortcut)
    layers += residual_stages(sizes, counts, block, rngs=rngs)
    # The stream is a current: the last neurons turn it into spikes before the mean.
    layers += [neuron(), nn.GlobalAvgPool(), nn.Linear(sizes[-1], classes, rngs=rngs)]
    return finish(layers, input_shape, order, memory)


def _block(rngs, inputs, outputs, strides, *, neuron, norm, spiking_shortcut):
    branch = nn.Sequential(
        neuron(),
        *conv_norm(inputs, outputs, 3, norm, strides=strides, rngs=rngs),
        neuron(),
        *conv_norm(outputs, outputs, 3, norm, rngs=rngs),
    )
    # The identity shortcut has no parameters.
    if strides == 1 and inputs == outputs:
        return nn.Residual(branch)
    # The stream is a current: without neurons the convolution multiplies real numbers.
    front = [neuron()] if spiking_shortcut else []
    change = conv_norm(inputs, outputs, 1, norm, strides=strides, rngs=rngs)
    return nn.Residual(branch, shortcut=nn.Sequential(*front, *change))
