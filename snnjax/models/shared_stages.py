"""Stages of layers with and without a shared membrane, the same layers in both cases.

A stage is a list of parts, each of which leads to the currents of one layer of neurons, and the
shortcuts around them. `sharing` decides which neurons stand behind the parts: one membrane for all
of them, or one each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from snnjax import nn
from snnjax.models.assembly import conv_norm

__all__ = ["Share", "first_stage_unshared", "resnet_layers", "sharing", "vgg_layers"]

Share = Callable[[int, Sequence[tuple[Any, ...]], Sequence[Any]], list[Any]]
"""`(number of the stage, parts, shortcuts) -> layers`."""

_KINDS = ("none", "channel", "layer", "both")


def sharing(kind: str, groups: int, neuron: Callable[..., nn.Neuron]) -> Share:
    """What puts neurons behind the parts of a stage.

    Args:
        kind: `"none"`, `"channel"`, `"layer"` or `"both"`.
        groups: channel groups per layer, of `"channel"` and `"both"`.
        neuron: makes the neurons of one membrane.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in _KINDS:
        raise ValueError(f"sharing must be one of {', '.join(_KINDS)}, got {kind!r}")

    def cell():
        return nn.Grouped(neuron(), groups) if kind in ("channel", "both") else neuron()

    return functools.partial(
        _shared_membrane if kind in ("layer", "both") else _separate_membranes, cell
    )


def first_stage_unshared(
    share: Share, second: Share, number: int, parts: Sequence[Any], shortcuts: Sequence[Any]
) -> list[Any]:
    """Like `share`, but the layers of the first stage have membranes of their own."""
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
    """Convolutions in stages, max pools between them, one linear layer.

    Raises:
        ValueError: the stages shrink the image to nothing.
    """
    if min(input_shape[:2]) >> (len(stages) - 1) == 0:
        raise ValueError(
            f"{len(stages)} stages halve {input_shape[:2]} to nothing: give fewer stages"
        )
    depth, layers = input_shape[2], []
    for number, widths in enumerate(stages):
        parts: list[tuple[Any, ...]] = []
        for width in widths:
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
    """A convolution, stages of residual blocks, each with stride 2 in front, one linear layer."""
    first = conv_norm(input_shape[2], stem, 3, norm, rngs=rngs)
    layers, depth = share(0, [_static_part(first) if static else first], ()), stem
    for number, (width, blocks) in enumerate(stages, 1):
        parts, shortcuts = [], []
        for block in range(blocks):
            strides = 1 if block else 2
            parts.append(conv_norm(depth, width, 3, norm, strides=strides, rngs=rngs))
            parts.append(conv_norm(width, width, 3, norm, rngs=rngs))
            change = () if block else conv_norm(depth, width, 1, norm, strides=2, rngs=rngs)
            shortcuts += [None, nn.Sequential(*change)]
            depth = width
        layers += share(number, parts, shortcuts)
    return [*layers, nn.GlobalAvgPool(), nn.Linear(depth, classes, rngs=rngs)]


def _static_part(part: tuple[Any, ...]) -> tuple[Any]:
    return (nn.StaticInput(nn.Sequential(*part)),)


def _shared_membrane(cell, number, parts, shortcuts) -> list[Any]:
    del number
    # A layer that runs once is to be seen as such, so that it can be taken out of the loop.
    synapses = [part[0] if len(part) == 1 else nn.Sequential(*part) for part in parts]
    return [nn.Shared(synapses, cell(), shortcuts=shortcuts)]


def _separate_membranes(cell, number, parts, shortcuts) -> list[Any]:
    del number
    if not shortcuts:
        return [layer for part in parts for layer in (*part, cell())]
    layers = []
    for first, second, shortcut in zip(parts[::2], parts[1::2], shortcuts[1::2], strict=True):
        branch = nn.Sequential(*first, cell(), *second)
        layers += [nn.Residual(branch, shortcut=shortcut), cell()]
    return layers
