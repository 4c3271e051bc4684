"""Receptive fields: what each neuron of an unsupervised network has become."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from snnjax.viz import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["receptive_fields"]


def receptive_fields(
    weights: Any, shape: tuple[int, int], *, title: str = "", most: int = 900
) -> Figure:
    """The weights of each neuron as an image, all neurons in a square; darker is stronger.

    Args:
        weights: `[n, N]`, of n inputs to N neurons, at least 0.
        shape: height and width of an input, `n` in all.
        title: over the picture.
        most: neurons to show at most, evenly spread over `N`.

    Raises:
        ValueError: `weights` is not `[height * width, N]`.
    """
    height, width = shape
    weights = style.array(weights, "n N", "weights", n=height * width)
    count = weights.shape[1]
    shown = style.spread(count, most)
    columns = math.ceil(math.sqrt(len(shown)))
    rows = math.ceil(len(shown) / columns)
    tiles = np.full((rows * columns, height + 1, width + 1), np.nan, np.float32)
    tiles[: len(shown), :height, :width] = weights[:, shown].T.reshape(-1, height, width)
    grid = tiles.reshape(rows, columns, height + 1, width + 1).swapaxes(1, 2)
    image = grid.reshape(rows * (height + 1), columns * (width + 1))[:-1, :-1]
    size = style.WIDTH * image.shape[0] / image.shape[1]
    figure, axes = style.subplots(height=min(max(size + 0.5, 1.5), 9.0))
    axis = axes[0, 0]
    # Neurons differ in their strongest weight; what all but one in a hundred reach is black.
    axis.imshow(image, cmap="Greys", vmin=0, vmax=float(np.percentile(weights, 99)) or 1.0)
    axis.set_axis_off()
    names = f"{count} neurons" if len(shown) == count else f"{len(shown)} of {count} neurons shown"
    note = f"{names}, {height}x{width} weights each"
    style.write(axis, title=title, note=note)
    figure.set_label(f"Receptive fields of {count} neurons, {height}x{width} weights each")
    return figure
