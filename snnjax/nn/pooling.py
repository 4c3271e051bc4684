"""Pooling over space, the same at every timestep.

The maximum of spikes is their logical OR; the mean of spikes is a current in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from jax import lax

from snnjax.nn.synapses import Fold
from snnjax.ops.arguments import check_counts
from snnjax.ops.convolution import padding_pairs
from snnjax.ops.max_pool import Patches, patch_max, patch_max_and_winner
from snnjax.ops.rounding import narrow, widen
from snnjax.typing import Array, bind

__all__ = ["AvgPool", "GlobalAvgPool", "MaxPool", "max_pool"]

Padding: TypeAlias = str | int | Sequence[tuple[int, int]]


def AvgPool(*, window: int = 2, strides: int | None = None, padding: Padding = "VALID") -> Fold:
    """Mean over `window x window` patches, `[T, B, H, W, C] -> [T, B, H', W', C]`.

    Args:
        window: side of a patch in pixels.
        strides: distance between patches in pixels; None for `window`.
        padding: `"VALID"`, `"SAME"`, the number of rows and columns added on every side, or pairs
            `(before, after)` of rows and columns; they enter the mean as zeros.
    """
    step = window if strides is None else strides
    check_counts("nn.AvgPool", window=window, strides=step)
    pads = _checked_padding(padding, window)
    # `bind` gives comparable functions, so that equal layers compile once.
    return Fold(bind(_avg_pool, window=window, strides=step, padding=pads), name="avgpool")


def MaxPool(*, window: int = 2, strides: int | None = None, padding: Padding = "VALID") -> Fold:
    """Maximum over `window x window` patches, `[T, B, H, W, C] -> [T, B, H', W', C]`.

    Where several elements of a patch are the maximum, the first in reading order gets the gradient.

    Args:
        window: side of a patch in pixels.
        strides: distance between patches in pixels; None for `window`.
        padding: `"VALID"`, `"SAME"`, the number of rows and columns added on every side, or pairs
            `(before, after)` of rows and columns; they are never the maximum.
    """
    step = window if strides is None else strides
    check_counts("nn.MaxPool", window=window, strides=step)
    pool = bind(max_pool, window=window, strides=step, padding=_checked_padding(padding, window))
    return Fold(pool, name="maxpool", keeps_spikes=True)


def GlobalAvgPool() -> Fold:
    """Mean over space, `[T, B, *space, C] -> [T, B, C]`."""
    return Fold(_mean_over_space, name="globalavgpool")


def max_pool(inputs: Array, *, window: int, strides: int, padding: Padding = "VALID") -> Array:
    """Maximum over `window x window` patches of `[N, H, W, C]`.

    Where several elements of a patch are the maximum, as is common among spikes, the first in
    reading order gets the gradient, as in PyTorch. Values and gradients equal those of
    `flax.nnx.max_pool`. The gradient compares `window**2` shifted slices instead of calling XLA's
    select-and-scatter, which is 5 to 8 times slower on a CPU (jax 0.10.2, 2 cores, `[512, 28, 28,
    16]`, windows of 2 and 3). For overlapping patches it is written by hand, in reverse mode only,
    and keeps one byte per patch (`ops.max_pool`).

    Args:
        inputs: images, `[N, H, W, C]`.
        window: side of a patch in pixels.
        strides: distance between patches in pixels.
        padding: `"VALID"`, `"SAME"`, the number of rows and columns added on every side, or pairs
            `(before, after)` of rows and columns; they are never the maximum.

    Raises:
        ValueError: inputs of another rank, or smaller than a patch; another form of padding.
    """
    pads = _pads(inputs, window, strides, padding)
    patches = Patches(inputs.shape[1:3], window, strides, tuple(pads))
    # Disjoint patches give each element at most one gradient, so autodiff needs no scatter.
    return (
        patch_max_and_winner(inputs, patches)[0]
        if window <= strides
        else patch_max(inputs, patches)
    )


def _checked_padding(padding: Padding, window: int) -> str | tuple[tuple[int, int], ...]:
    """Padding in its hashable form.

    Raises:
        ValueError: another form, or a patch that could hold padding only.
    """
    pads = padding_pairs(padding, 2)
    # A maximum over padding alone would be -inf, and a negative padding would drop pixels.
    if not isinstance(pads, str) and not all(0 <= n < window for pair in pads for n in pair):
        raise ValueError(
            f"padding={padding!r}: pools of {window}x{window} patches take 0 to {window - 1} rows "
            "and columns on each side"
        )
    return pads


def _avg_pool(inputs: Array, *, window: int, strides: int, padding: Padding) -> Array:
    pads = ((0, 0), *_pads(inputs, window, strides, padding), (0, 0))
    patch, step = (1, window, window, 1), (1, strides, strides, 1)
    # Sums in float32: a bfloat16 sum of a large window loses small terms.
    total = lax.reduce_window(widen(inputs), 0.0, lax.add, patch, step, pads)
    return narrow(total / window**2, inputs.dtype)


def _pads(inputs: Array, window: int, strides: int, padding: Padding) -> list[tuple[int, int]]:
    """Padding as `(before, after)` for rows and columns."""
    pads = _checked_padding(padding, window)
    # "SAME" always finds a patch; other paddings need a large enough image.
    added = [0, 0] if isinstance(pads, str) else [low + high for low, high in pads]
    sides = [n + more for n, more in zip(inputs.shape[1:3], added, strict=False)]
    if inputs.ndim != 4 or (pads != "SAME" and min(sides) < window):
        raise ValueError(
            f"pooling takes images [N, H, W, C] (time folded into N), at least {window}x{window}, "
            f"got {list(inputs.shape)}: for a series use a strided convolution, for small images a "
            "smaller window or fewer pools before"
        )
    if not isinstance(pads, str):
        return list(pads)
    space = inputs.shape[1:3]
    return list(lax.padtype_to_pads(space, (window, window), (strides, strides), pads))


def _mean_over_space(inputs: Array) -> Array:
    return narrow(widen(inputs).mean(tuple(range(1, inputs.ndim - 1))), inputs.dtype)
