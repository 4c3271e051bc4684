"""Stages of layers with separate or shared membranes, with equal parameters in both cases.

A stage is a list of parts, each of which computes the currents of one layer of neurons, and the
shortcuts around them. `sharing` selects one membrane per layer or one for all layers of the stage.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from snnjax import nn
from snnjax.models._assembly import conv_norm, halve

__all__ = ["Share", "first_stage_unshared", "resnet_layers", "sharing", "vgg_layers"]

Share = Callable[[int, Sequence[tuple[Any, ...]], Sequence[Any]], list[Any]]
"""`(index of the stage, parts, shortcuts) -> layers`, the stage with its neurons."""

_KINDS = ("none", "channel", "layer", "both")


def sharing(kind: str, groups: int, neuron: Callable[..., nn.Neuron]) -> Share:
    """Constructor of stages: adds neurons to parts, with separate or shared membranes.

    Args:
        kind: `"none"`, `"channel"`, `"layer"` or `"both"`.
        groups: channel groups per layer for `"channel"` and `"both"`.
        neuron: `() -> layer`, the neurons of one membrane.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in _KINDS:
        raise ValueError(f"sharing must be one of {', '.join(_KINDS)}, got {kind!r}")

    def cell():
        # Grouping wraps the neuron, so that both kinds of sharing combine.
        return nn.Grouped(neuron(), groups) if kind in ("channel", "both") else neuron()

    return functools.partial(
        _shared_membrane if kind in ("layer", "both") else _separate_membranes, cell
    )


def first_stage_unshared(
    share: Share, second: Share, number: int, parts: Sequence[Any], shortcuts: Sequence[Any]
) -> list[Any]:
    """`share`, except that in stage 0 the first layer shares no membrane with the others.

    Args:
        share: constructor of stages.
        second: constructor of the layers after the first one in stage 0.
        number: index of the stage.
        parts: parts of the stage.
        shortcuts: shortcuts of the stage.
    """
    if number:
        return share(number, parts, shortcuts)
    return share(0, parts[:1], ()) + second(0, parts[1:], ())


def vgg_layers(
    stages: Sequence[Sequence[int]],
    input_shape: tuple[int, int, int],
    norm: Callable[[int], Any],
    static: bool,
    share: Share,
    classes: int,
    rngs: nnx.Rngs,
) -> list[Any]:
    """Layers of a VGG: stages of convolutions, max pools between them, one linear layer.

    Args:
        stages: channels of each convolution, by stage.
        input_shape: `(H, W, C)` of one frame.
        norm: `(channels) -> layer`, a normalisation.
        static: True to compute the first convolution once for all timesteps.
        share: constructor of stages.
        classes: number of outputs.
        rngs: random streams of the parameters.

    Raises:
        ValueError: more stages than the image can be halved.
    """
    # Pools stand between stages only: n stages halve the image n - 1 times.
    halve(input_shape[:2], len(stages) - 1, cure="give fewer stages")
    depth, layers = input_shape[2], []
    for number, widths in enumerate(stages):
        parts: list[tuple[Any, ...]] = []
        for width in widths:
            # Only the first convolution sees the static frames.
            part = conv_norm(depth, width, 3, norm, rngs=rngs)
            parts.append(part if layers or parts or not static else _static_part(part))
            depth = width
        layers += ([nn.MaxPool()] if number else []) + share(number, parts, ())
    return [*layers, nn.GlobalAvgPool(), nn.Linear(depth, classes, rngs=rngs)]


def resnet_layers(
    stages: Sequence[tuple[int, int]],
    stem: int,
    input_shape: tuple[int, int, int],
    norm: Callable[[int], Any],
    static: bool,
    share: Share,
    classes: int,
    rngs: nnx.Rngs,
) -> list[Any]:
    """Layers of a ResNet: a convolution, stages of residual blocks, one linear layer.

    Args:
        stages: width and number of blocks of each stage; the first block has stride 2.
        stem: channels of the first convolution.
        input_shape: `(H, W, C)` of one frame.
        norm: `(channels) -> layer`, a normalisation.
        static: True to compute the first convolution once for all timesteps.
        share: constructor of stages.
        classes: number of outputs.
        rngs: random streams of the parameters.
    """
    first = conv_norm(input_shape[2], stem, 3, norm, rngs=rngs)
    # The stem is a stage of its own: its map is larger than those of the strided stages behind it.
    layers, depth = share(0, [_static_part(first) if static else first], ()), stem
    for number, (width, blocks) in enumerate(stages, 1):
        parts, shortcuts = [], []
        for block in range(blocks):
            # The first convolution of a stage has the stride, so all membranes of the stage have
            # one shape.
            strides = 1 if block else 2
            parts.append(conv_norm(depth, width, 3, norm, strides=strides, rngs=rngs))
            parts.append(conv_norm(width, width, 3, norm, rngs=rngs))
            # The first block of a stage changes the shape, and so does its shortcut.
            change = () if block else conv_norm(depth, width, 1, norm, strides=2, rngs=rngs)
            # One entry per part: a shortcut ends at the second convolution of its block.
            shortcuts += [None, nn.Sequential(*change)]
            depth = width
        layers += share(number, parts, shortcuts)
    return [*layers, nn.GlobalAvgPool(), nn.Linear(depth, classes, rngs=rngs)]


def _static_part(part: tuple[Any, ...]) -> tuple[Any]:
    return (nn.StaticInput(nn.Sequential(*part)),)


def _shared_membrane(cell, number, parts, shortcuts) -> list[Any]:
    # Only `first_stage_unshared` treats stages by their index.
    del number
    # nn.Shared recognises an nn.StaticInput only if no Sequential wraps it.
    synapses = [part[0] if len(part) == 1 else nn.Sequential(*part) for part in parts]
    return [nn.Shared(synapses, cell(), shortcuts=shortcuts)]


def _separate_membranes(cell, number, parts, shortcuts) -> list[Any]:
    del number
    if not shortcuts:
        return [layer for part in parts for layer in (*part, cell())]
    layers = []
    # Two parts form a block; the shortcut belongs to the second one.
    for first, second, shortcut in zip(parts[::2], parts[1::2], shortcuts[1::2], strict=True):
        branch = nn.Sequential(*first, cell(), *second)
        layers += [nn.Residual(branch, shortcut=shortcut), cell()]
    return layers
