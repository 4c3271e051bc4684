"""Pooling over space, the same at every timestep.

Of spikes, the maximum is their OR and a mean of them is a current in [0, 1].
"""

from __future__ import annotations

from jax import lax

from snnjax.nn.synapses import Fold
from snnjax.ops.max_pool import Patches, patch_max, patch_max_and_winner
from snnjax.ops.rounding import narrow, widen
from snnjax.typing import Array, bind

__all__ = ["AvgPool", "GlobalAvgPool", "MaxPool", "max_pool"]


def AvgPool(*, window: int = 2, strides: int | None = None, padding: str | int = "VALID") -> Fold:
    """Mean over `window x window` patches of `[T, B, H, W, C]`; strides default to the window.

    Padding counts as zeros; a number pads so many rows and columns on every side.
    """
    step = window if strides is None else strides
    return Fold(bind(_avg_pool, window=window, strides=step, padding=padding), name="avgpool")


def MaxPool(*, window: int = 2, strides: int | None = None, padding: str | int = "VALID") -> Fold:
    """Maximum over `window x window` patches of `[T, B, H, W, C]`; see `max_pool`."""
    step = window if strides is None else strides
    pool = bind(max_pool, window=window, strides=step, padding=padding)
    return Fold(pool, name="maxpool", keeps_spikes=True)


def GlobalAvgPool() -> Fold:
    """Mean over space, `[T, B, *space, C] -> [T, B, C]`."""
    return Fold(_mean_over_space, name="globalavgpool")


def max_pool(inputs: Array, *, window: int, strides: int, padding: str | int = "VALID") -> Array:
    """Maximum over `window x window` patches of `[N, H, W, C]`.

    Where several elements of a patch are the maximum, which is the rule among spikes, the first in
    reading order gets the gradient, as in PyTorch and in `flax.nnx.max_pool`. The values and
    gradients are those of `flax.nnx.max_pool`; written as comparisons of `window**2` shifted
    slices, the gradient avoids XLA's select-and-scatter, 5 to 8 times slower on a CPU (jax 0.10.2,
    2 cores, `[512, 28, 28, 16]`, windows of 2 and 3). Where patches overlap it is written by hand,
    in reverse mode only, and keeps one byte per patch (`ops.max_pool`).

    Args:
        inputs: images.
        window: side of a patch.
        strides: step from patch to patch.
        padding: `"VALID"`, `"SAME"`, or so many rows and columns on every side; padding is never
            the maximum.

    Raises:
        ValueError: `inputs` are no images, or smaller than a patch.
    """
    pads = _pads(inputs, window, strides, padding)
    patches = Patches(inputs.shape[1:3], window, strides, tuple(pads))
    return (
        patch_max_and_winner(inputs, patches)[0]
        if window <= strides
        else patch_max(inputs, patches)
    )


def _avg_pool(inputs: Array, *, window: int, strides: int, padding: str | int) -> Array:
    pads = ((0, 0), *_pads(inputs, window, strides, padding), (0, 0))
    patch, step = (1, window, window, 1), (1, strides, strides, 1)
    total = lax.reduce_window(widen(inputs), 0.0, lax.add, patch, step, pads)
    return narrow(total / window**2, inputs.dtype)


def _pads(inputs: Array, window: int, strides: int, padding: str | int) -> list[tuple[int, int]]:
    """Rows and columns to add before and after."""
    border = padding if isinstance(padding, int) else 0
    if inputs.ndim != 4 or (padding != "SAME" and min(inputs.shape[1:3]) + 2 * border < window):
        raise ValueError(
            f"pooling takes images [N, H, W, C] (time folded into N), at least {window}x{window}, "
            f"got {list(inputs.shape)}: for a series use a strided convolution, for small images a "
            "smaller window or fewer pools before"
        )
    if isinstance(padding, int):
        return [(border, border)] * 2
    space = inputs.shape[1:3]
    return list(lax.padtype_to_pads(space, (window, window), (strides, strides), padding))


def _mean_over_space(inputs: Array) -> Array:
    return narrow(widen(inputs).mean(tuple(range(1, inputs.ndim - 1))), inputs.dtype)
