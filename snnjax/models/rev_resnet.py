"""RevSResNet: a spiking residual network with reversible stages.

    stage   y1 = x1 + F(x2),  y2 = x2 + G(y1),   (x1, x2) the two halves of the channels, n times
    F, G    neuron - conv3x3 - norm - neuron - conv3x3 - norm       (halves of p channels)
    joint   neuron - mean pool 3x3, stride 2 - conv1x1 - norm       (between stages)
    net     conv3x3 - norm - stages and joints - neuron - mean over space - linear

A gradient keeps the output of each stage, whatever its depth, so bytes grow with the number of
stages only. The published streams are floating point (`bits=None`). By default the streams here lie
on a dyadic grid, on which the reversed gradient equals the stored one bit for bit (`memory.grid`).

Not in the paper: the two layers of neurons in a branch, and channel groups, can share a membrane
(`sharing`, see `nn.Shared`). This divides the membranes of a branch in inference by two and by
`groups`, but saves no bytes of a gradient (`experiments/benchmarks/combined.py`).

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
from snnjax.models._assembly import conv_norm, event_stem, finish
from snnjax.models._shared_stages import Share
from snnjax.models._shared_stages import sharing as shared_by

__all__ = ["STAGES", "rev_resnet"]

STAGES = {
    21: ((64, 128, 256, 448), (1, 1, 1, 1)),
    24: ((16, 32, 48), (1, 2, 2)),
    37: ((64, 128, 256, 448), (1, 2, 3, 2)),
    109: ((64, 128, 256, 448), (2, 4, 16, 4)),
}
"""Depth -> channels of a half, and blocks, per stage."""

integrate_and_fire = functools.partial(nn.IF, reset=neurons.reset.detached(neurons.reset.zero))
"""Neuron of the paper for images: no leak, detached hard reset to 0, arctan surrogate, width 2."""


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
    branch_norm: Callable[[int], Any] | None = None,
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
    """RevSResNet, `[T, B, H, W, C] -> [T, B, classes]`.

        y1 = x1 + q(F(x2)),   y2 = x2 + q(G(y1))         one block, (x1, x2) the halves of channels
        F, G: neuron - conv3x3 - norm - neuron - conv3x3 - norm

    Parameters with default widths for 10 classes: 10,967,690 (depth 21), 23,510,154 (37),
    69,995,146 (109), and for event frames of 2 channels 260,362 (24).

    Args:
        depth: 21, 37, 109, or 24 for event frames; selects halves and blocks per stage.
        classes: number of outputs.
        input_shape: `(H, W, C)` of one frame; each stage after the first halves H and W.
        rngs: random streams of the parameters.
        halves: channels of one stream per stage; None for those of `depth`. Layers between the
            stages have twice as many.
        blocks: blocks per stage; None for those of `depth`.
        neuron: `() -> layer` of neurons. For event frames the paper uses `nn.LIF` with a time
            constant of 1.5 timesteps.
        norm: `(channels) -> layer`, a normalisation; `order="time"` needs
            `functools.partial(nn.BatchNorm, over="step")`, or one without batch statistics.
        branch_norm: `(channels) -> layer`, the normalisations inside the reversible blocks; None
            for `norm`. The released code moves their running statistics twice per training step,
            since its backward pass runs the blocks again; here every norm moves once.
            `functools.partial(nn.BatchNorm, momentum=0.81)` moves them as far as twice 0.9.
        last_norm: `(channels) -> layer`, the last normalisation of a branch; None for
            `branch_norm`. Very deep networks train better if branches start small,
            `functools.partial(nn.BatchNorm, scale=0.05)`.
        events: True for the stem of large event frames, which halves H and W twice; None selects it
            for depth 24.
        static: compute the stem once, for frames that are equal at all timesteps
            (`encoding.direct`), as in the paper; later frames are ignored.
        sharing: neurons of a branch with one membrane: `"none"`, `"channel"` groups of a layer,
            both layers (`"layer"`), or `"both"`. The last two need a norm per timestep, as does
            `order="time"`.
        groups: number of channel groups of `"channel"` and `"both"`; must divide every half.
        bits: binary places of the streams' grid; None is the floating-point stream of the paper,
            whose reversed gradient is exact only if no rebuilt spike flips.
        parallel: use the form `y1 = x2 + F(x1), y2 = x1 + G(y1)`, whose F does not wait for the
            previous G.
        order: `"layer"` or `"time"`, see `nn.Network`.
        memory: memory strategy of the gradient; None for the neurons' own derivative over time and
            reversal over depth.

    Raises:
        ValueError: an unknown depth or `sharing`; different numbers of blocks and halves, or a
            stage without blocks; halves that `groups` does not divide (on `initial_state`).

    Reference:
        Zhang and Zhang, "Memory-Efficient Reversible Spiking Neural Networks", 2024,
        arXiv:2312.07922.
    """
    if depth not in STAGES and (halves is None or blocks is None):
        raise ValueError(
            f"rev_resnet knows depths {sorted(STAGES)}, not {depth}: give halves= and blocks="
        )
    published = STAGES.get(depth, ((), ()))
    halves, blocks = halves or published[0], blocks or published[1]
    if len(blocks) != len(halves) or min(blocks) < 1:
        raise ValueError(f"blocks {tuple(blocks)} do not fit {len(halves)} stages of halves")
    # Only the last norm of a branch scales its contribution to the stream.
    inner = branch_norm or norm
    norms = (inner, last_norm or inner)
    share = shared_by(sharing, groups, neuron)
    branch = functools.partial(_branch, share=share, norms=norms)
    stem = event_stem if (depth == 24 if events is None else events) else conv_norm
    # The stem feeds both streams, so it has twice the channels of a half.
    first = stem(input_shape[2], 2 * halves[0], 3, norm, rngs=rngs)
    layers: list = [nn.StaticInput(nn.Sequential(*first))] if static else [*first]
    for stage, (half, count) in enumerate(zip(halves, blocks, strict=True)):
        if stage:
            # The halves change their width here, which no reversible block can do.
            pool = nn.AvgPool(window=3, strides=2, padding=1)
            joint = conv_norm(2 * halves[stage - 1], 2 * half, 1, norm, rngs=rngs)
            layers += [neuron(), pool, *joint]
        # F and G have the same structure, but their own parameters.
        make = functools.partial(branch, half)
        layers.append(nn.Reversible(make, make, count, rngs=rngs, bits=bits, swap=parallel))
    layers += [neuron(), nn.GlobalAvgPool(), nn.Linear(2 * halves[-1], classes, rngs=rngs)]
    return finish(layers, input_shape, order, memory)


def _branch(channels: int, rngs: nnx.Rngs, *, share: Share, norms: Any) -> nn.Sequential:
    # The empty part () puts the first layer of neurons in front of the first synapse.
    first, last = (conv_norm(channels, channels, 3, norm, rngs=rngs) for norm in norms)
    return nn.Sequential(*share(0, [(), first], ()), *last)
