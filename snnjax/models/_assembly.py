"""Parts common to several models: convolution with norm, stages, stem for events, assembly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from snnjax import nn
from snnjax.memory import Strategy

__all__ = ["conv_norm", "event_stem", "finish", "halve", "residual_stages"]


def finish(
    layers: list[Any],
    input_shape: tuple[int, ...],
    order: str,
    memory: Strategy | None,
) -> nn.Network:
    """Network of layers in sequence, under a memory strategy.

    Args:
        layers: layers in order.
        input_shape: shape of one frame of one example.
        order: `"layer"` or `"time"`, see `nn.Network`.
        memory: memory strategy; None leaves the layers unchanged.
    """
    # The strategy acts on the finished network, which alone knows all cuts.
    network = nn.Network(nn.Sequential(*layers), input_shape, order=order)
    return network if memory is None else nn.with_memory(network, memory)


def conv_norm(
    inputs: int,
    outputs: int,
    kernel: int,
    norm: Callable[[int], Any] | None,
    *,
    rngs: nnx.Rngs,
    strides: int = 1,
    bias: bool = False,
) -> tuple[Any, ...]:
    """Convolution without bias, and its normalisation, as two layers.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        kernel: side of the square kernel.
        norm: `(channels) -> layer`, a normalisation; None for the convolution alone.
        rngs: random streams of the kernel.
        strides: stride of both spatial axes.
        bias: bias of a convolution without norm.
    """
    # Half the kernel on every side, as all released networks have it: "SAME" pads an even size at
    # its end only at stride 2, a shift by one pixel.
    options: dict[str, Any] = {"strides": strides, "padding": kernel // 2, "rngs": rngs}
    if norm is None:
        return (nn.Conv(inputs, outputs, kernel=kernel, use_bias=bias, **options),)
    # No bias: the norm has one.
    return nn.Conv(inputs, outputs, kernel=kernel, **options), norm(outputs)


def residual_stages(
    widths: Sequence[int],
    blocks: Sequence[int],
    block: Callable[[nnx.Rngs, int, int, int], Any],
    *,
    rngs: nnx.Rngs,
) -> list[Any]:
    """Stages of residual blocks; each after the first halves H and W.

    Args:
        widths: channels per stage; the first stage takes as many.
        blocks: blocks per stage.
        block: `(rngs, inputs, outputs, strides) -> layer`.
        rngs: random streams of the parameters.

    Raises:
        ValueError: different numbers of blocks and widths, or a stage without blocks.
    """
    if len(blocks) != len(widths) or min(blocks) < 1:
        raise ValueError(f"blocks {tuple(blocks)} do not fit {len(widths)} stages of widths")
    layers, before = [], widths[0]
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        # The first block of a stage changes the shape, so it cannot be stacked with the others.
        if stage:
            layers.append(block(rngs, before, width, 2))
            count -= 1
        if count:
            # `width` is bound as a default: a closure would read the loop's variable at the time of
            # the call.
            equal = lambda rngs, width=width: block(rngs, width, width, 1)  # noqa: E731
            layers.append(nn.Stacked(equal, count, rngs=rngs))
        before = width
    return layers


def halve(space: tuple[int, ...], pools: int, *, cure: str) -> tuple[int, int]:
    """Height and width behind pools of 2x2, each rounded down.

    Args:
        space: height and width in pixels.
        pools: number of pools.
        cure: advice of the error, such as "give fewer stages".

    Raises:
        ValueError: nothing is left.
    """
    height, width = (n >> pools for n in space)
    if min(height, width) == 0:
        raise ValueError(f"{pools} pools halve {space[0]}x{space[1]} to nothing: {cure}")
    return height, width


def event_stem(
    inputs: int,
    outputs: int,
    kernel: int,
    norm: Callable[[int], Any],
    *,
    rngs: nnx.Rngs,
    pool: Callable[..., Any] = nn.AvgPool,
) -> tuple[Any, ...]:
    """Stem for large frames: `conv_norm` and a 3x3 pool, both with stride 2; H / 4, W / 4.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        kernel: side of the square kernel.
        norm: `(channels) -> layer`, a normalisation.
        rngs: random streams of the kernel.
        pool: pooling layer, `nn.AvgPool` or `nn.MaxPool`.
    """
    first = conv_norm(inputs, outputs, kernel, norm, rngs=rngs, strides=2)
    # Padding 1 around a window of 3: the pool halves an even H and W exactly.
    return *first, pool(window=3, strides=2, padding=1)
