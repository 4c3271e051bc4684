"""RevSResNet: a residual spiking network whose stages are undone instead of stored.

    stage   y1 = x1 + F(x2),  y2 = x2 + G(y1),   (x1, x2) the two halves of the channels, n times
    F, G    neuron - conv3x3 - norm - neuron - conv3x3 - norm       (halves of p channels)
    joint   neuron - mean pool 3x3, stride 2 - conv1x1 - norm       (between stages)
    net     conv3x3 - norm - stages and joints - neuron - mean over space - linear

Activations of a stage are kept for its output only, whatever its depth; bytes grow with the number
of stages. The published streams are floating ones (`bits=None`), here they are on a dyadic grid by
default, so that the reversed gradient is the stored one bit for bit (`memory.grid`).

Beyond the paper, the two neurons of a branch can write one membrane, and the channel groups of each
(`sharing`, see `nn.Shared`; ours): what one timestep of a branch holds in inference shrinks by two
and by `groups`; a gradient's bytes do not (`experiments/benchmarks/combined.py`).

Reference: Zhang and Zhang, "Memory-Efficient Reversible Spiking Neural Networks", 2024,
arXiv:2312.07922. Its blocks are those of Hu et al., arXiv:2112.08954. The parallel form is that of
"ParaRevSNN", 2025, arXiv:2508.01223.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from snnjax import neurons, nn
from snnjax.memory import Strategy
from snnjax.memory.grid import DEFAULT_BITS
from snnjax.models.assembly import conv_norm, event_stem, finish
from snnjax.models.shared_stages import Share
from snnjax.models.shared_stages import sharing as shared_by

__all__ = ["STAGES", "rev_resnet"]

STAGES = {
    21: ((64, 128, 256, 448), (1, 1, 1, 1)),
    24: ((16, 32, 48), (1, 2, 2)),
    37: ((64, 128, 256, 448), (1, 2, 3, 2)),
    109: ((64, 128, 256, 448), (2, 4, 16, 4)),
}
"""Depth -> channels of a half, and blocks, per stage."""

integrate_and_fire = functools.partial(nn.IF, reset=neurons.reset.detached(neurons.reset.zero))
"""The paper's neuron for images: no leak, a detached hard reset to 0, arctan of width 2."""


def rev_resnet(
    *,
    depth: int = 21,
    classes: int = 10,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    rngs: nnx.Rngs,
    halves: Sequence[int] | None = None,
    blocks: Sequence[int] | None = None,
    neuron: Callable[..., nn.Neuron] = integrate_and_fire,
    norm: Callable[[int], Any] = nn.BatchNorm,
    last_norm: Callable[[int], Any] | None = None,
    events: bool | None = None,
    static: bool = False,
    sharing: str = "none",
    groups: int = 2,
    bits: int | None = DEFAULT_BITS,
    parallel: bool = False,
    order: str = "layer",
    memory: Strategy | None = None,
) -> nn.Network:
    """A RevSResNet, `[T, B, H, W, C] -> [T, B, classes]`.

    With the default widths it has 10,967,690 (depth 21), 23,510,154 (37) or 69,995,146 (109)
    parameters for 10 classes, and for event frames of 2 channels 260,362 (24).

    Args:
        depth: 21, 37, 109, or 24 for event frames; names halves and blocks per stage.
        classes: outputs.
        input_shape: `(H, W, C)` of one frame; each stage after the first halves H and W.
        rngs: for the weights.
        halves: channels of one stream per stage, in place of those of `depth`; layers outside the
            stages have twice as many.
        blocks: blocks per stage, in place of those of `depth`.
        neuron: makes a layer of neurons; called as `neuron()`. For event frames the paper has
            `nn.LIF` with a time constant of 1.5.
        norm: makes a normalisation for so many channels; `order="time"` needs
            `functools.partial(nn.BatchNorm, over="step")`, or one without batch statistics.
        last_norm: makes the normalisation that ends a branch; None is `norm`. A very deep net wants
            branches that start small, `functools.partial(nn.BatchNorm, scale=0.05)`.
        events: a stem for large event frames, which halves H and W twice; None is for depth 24.
        static: compute the stem once, for frames that are all the same (`encoding.direct`), as the
            paper does; of others it would see the first only.
        sharing: `"none"`, or which neurons of a branch write one membrane: `"channel"` groups of
            each, both `"layer"`s, or `"both"`. The last two need a norm that takes each timestep by
            itself, as `order="time"` does.
        groups: channel groups, of `"channel"` and `"both"`; must divide every half.
        bits: binary places of the streams' grid; None is the floating stream of the paper, whose
            gradient is exact only while no spike flips on the way back.
        parallel: the form whose F waits for nothing, `y1 = x2 + F(x1), y2 = x1 + G(y1)`.
        order: `"layer"` or `"time"`, see `nn.Network`.
        memory: strategy of the backward pass; None is the neurons' own derivative over time and
            reversal of the stages over depth.

    Raises:
        ValueError: an unknown depth or `sharing`; as many blocks as halves are needed, each stage
            at least one; halves that are no multiples of `groups` (on `initial_state`).
    """
    if depth not in STAGES and (halves is None or blocks is None):
        raise ValueError(
            f"rev_resnet knows depths {sorted(STAGES)}, not {depth}: give halves= and blocks="
        )
    published = STAGES.get(depth, ((), ()))
    halves, blocks = halves or published[0], blocks or published[1]
    if len(blocks) != len(halves) or min(blocks) < 1:
        raise ValueError(f"blocks {tuple(blocks)} do not fit {len(halves)} stages of halves")
    norms = (norm, last_norm or norm)
    share = shared_by(sharing, groups, neuron)
    branch = functools.partial(_branch, share=share, norms=norms)
    stem = event_stem if (depth == 24 if events is None else events) else conv_norm
    first = stem(input_shape[2], 2 * halves[0], 3, norm, rngs=rngs)
    layers: list = [nn.StaticInput(nn.Sequential(*first))] if static else [*first]
    for stage, (half, count) in enumerate(zip(halves, blocks, strict=True)):
        if stage:
            pool = nn.AvgPool(window=3, strides=2, padding=1)
            joint = conv_norm(2 * halves[stage - 1], 2 * half, 1, norm, rngs=rngs)
            layers += [neuron(), pool, *joint]
        make = functools.partial(branch, half)
        layers.append(nn.Reversible(make, make, count, rngs=rngs, bits=bits, swap=parallel))
    layers += [neuron(), nn.GlobalAvgPool(), nn.Linear(2 * halves[-1], classes, rngs=rngs)]
    return finish(layers, input_shape, order, memory)


def _branch(channels: int, rngs: nnx.Rngs, *, share: Share, norms: Any) -> nn.Sequential:
    first, last = (conv_norm(channels, channels, 3, norm, rngs=rngs) for norm in norms)
    return nn.Sequential(*share(0, [(), first], ()), *last)
