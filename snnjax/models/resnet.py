"""ResNet with the neurons behind the sum of a block: the source of conversions, or spiking.

    block   y = neuron(shortcut(x) + norm(conv3x3(neuron(norm(conv3x3(x))))))
    net     stem - stages of blocks - mean over space - linear

The shortcut is the identity, or conv1x1 with stride - norm where a block changes the shape. Pools
are means, so that the network of activations converts; equal blocks of a stage are stacked and
scanned over depth. `models.ms_resnet` has its neurons in front of the convolutions.

    QCFS (arXiv:2303.04347)         depth=18 or 20, neuron=conversion.QCFS
    "ResNet20" of optimal           depth=18, stem="three", norm=None, bias=False, flatten=True,
    conversion (arXiv:2103.00476)   dropout=0.2, neuron=conversion.ThresholdReLU

Reference: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", 2015,
arXiv:1512.03385.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from flax import nnx

from snnjax import nn
from snnjax.memory import Strategy
from snnjax.models._assembly import conv_norm, finish, residual_stages
from snnjax.ops.arguments import check_choice

__all__ = ["resnet"]

BLOCKS = {18: (2, 2, 2, 2), 20: (3, 3, 3), 34: (3, 4, 6, 3)}
WIDTHS = {20: (16, 32, 64)}
STEMS = ("small", "large", "three")


def resnet(
    *,
    depth: int = 18,
    classes: int = 10,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    rngs: nnx.Rngs,
    widths: Sequence[int] | None = None,
    blocks: Sequence[int] | None = None,
    neuron: Callable[..., Any] = nn.LIF,
    norm: Callable[[int], Any] | None = nn.BatchNorm,
    stem: str = "small",
    flatten: bool = False,
    bias: bool = True,
    dropout: float = 0.0,
    order: str = "layer",
    memory: Strategy | None = None,
) -> nn.Network:
    """ResNet with basic blocks, `[T, B, H, W, C] -> [T, B, classes]`.

        y = neuron(shortcut(x) + norm(conv3x3(neuron(norm(conv3x3(x))))))         one block

    Parameters: for 32x32 images and 10 classes 11,173,962 (depth 18), 21,282,122 (34) and 272,474
    (20); for 224x224 images, 1000 classes and the large stem 11,689,512 (18) and 21,797,672 (34).

    Args:
        depth: 18, 34, or 20 for small images; selects widths and blocks per stage.
        classes: number of outputs.
        input_shape: `(H, W, C)` of one frame; each stage after the first halves H and W.
        rngs: random streams of the parameters.
        widths: channels per stage; None for those of `depth`.
        blocks: blocks per stage; None for those of `depth`.
        neuron: `() -> layer` of neurons, or an activation of `snnjax.conversion`.
        norm: `(channels) -> layer`, a normalisation, or None; `order="time"` needs
            `functools.partial(nn.BatchNorm, over="step")`, or one without batch statistics.
        stem: `"small"`, conv3x3; `"large"`, conv7x7 and a 3x3 mean, both with stride 2, for
            224x224; `"three"`, three of conv3x3, and a 2x2 mean. Norm and neurons follow each
            convolution.
        flatten: the linear layer reads every pixel of the last stage, not the mean over space.
        bias: biases of the linear layer, and of convolutions without a norm.
        dropout: dropout rate between the convolutions of a block, and of the stem `"three"`.
        order: `"layer"` or `"time"`, see `nn.Network`.
        memory: memory strategy of the gradient; None for the neurons' own derivative over time.
            Over depth it scans the stacked blocks and cuts the layers between them.

    Raises:
        ValueError: an unknown depth or stem; different numbers of blocks and widths, or a stage
            without blocks.

    Reference:
        He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", 2015, arXiv:1512.03385.
    """
    check_choice("models.resnet", choices=STEMS, stem=stem)
    if blocks is None and depth not in BLOCKS:
        raise ValueError(f"resnet knows depths {sorted(BLOCKS)}, not {depth}: give blocks=")
    counts: Sequence[int] = blocks or BLOCKS[depth]
    sizes: Sequence[int] = widths or WIDTHS.get(depth, (64, 128, 256, 512))
    conv = partial(conv_norm, norm=norm, bias=bias)
    layers = _stem(stem, input_shape[2], sizes[0], conv, neuron, dropout, rngs)
    space = [{"small": n, "large": -(-n // 4), "three": n // 2}[stem] for n in input_shape[:2]]
    block = partial(_block, conv=conv, neuron=neuron, dropout=dropout)
    layers += residual_stages(sizes, counts, block, rngs=rngs)
    # Convolutions with stride 2 round up, one in each stage after the first.
    space = [-(-n // 2 ** (len(sizes) - 1)) for n in space]
    features = sizes[-1] * (space[0] * space[1] if flatten else 1)
    layers.append(nn.Flatten() if flatten else nn.GlobalAvgPool())
    layers.append(nn.Linear(features, classes, use_bias=bias, rngs=rngs))
    return finish(layers, input_shape, order, memory)


def _stem(kind, inputs, width, conv, neuron, dropout, rngs) -> list[Any]:
    if kind == "large":
        first = conv(inputs, width, 7, strides=2, rngs=rngs)
        return [*first, neuron(), nn.AvgPool(window=3, strides=2, padding=1)]
    layers = [*conv(inputs, width, 3, rngs=rngs), neuron()]
    if kind == "three":
        for _ in range(2):
            layers += [nn.Dropout(dropout), *conv(width, width, 3, rngs=rngs), neuron()]
        layers.append(nn.AvgPool())
    return layers


def _block(rngs, inputs, outputs, strides, *, conv, neuron, dropout) -> nn.Sequential:
    branch = nn.Sequential(
        *conv(inputs, outputs, 3, strides=strides, rngs=rngs),
        *(neuron(), nn.Dropout(dropout)),
        *conv(outputs, outputs, 3, rngs=rngs),
    )
    shortcut = None
    if strides > 1 or inputs != outputs:
        shortcut = nn.Sequential(*conv(inputs, outputs, 1, strides=strides, rngs=rngs))
    return nn.Sequential(nn.Residual(branch, shortcut=shortcut), neuron())
