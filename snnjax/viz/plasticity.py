"""Pictures of unsupervised networks: receptive fields, and accuracy against size of a search."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from snnjax.viz import _style as style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["receptive_fields", "trade_off"]


def receptive_fields(
    weights: Any, shape: tuple[int, int], *, title: str = "", limit: int = 900
) -> Figure:
    """Receptive fields: the weights of each neuron as an image, darker is stronger.

    Args:
        weights: `[n, N]`, from n inputs to N neurons, at least 0.
        shape: Height and width of an input, whose product is n.
        title: Title of the picture.
        limit: Largest number of neurons to show, evenly spaced over `N`.

    Returns:
        The figure.

    Raises:
        ValueError: If `weights` is not `[height * width, N]`.
    """
    height, width = shape
    weights = style.array(weights, "n N", "weights", n=height * width)
    count = weights.shape[1]
    shown = style.spread(count, limit)
    columns = math.ceil(math.sqrt(len(shown)))
    rows = math.ceil(len(shown) / columns)
    tiles = np.full((rows * columns, height + 1, width + 1), np.nan, np.float32)
    # One spare row and column of NaN per tile: imshow leaves them blank as a grid.
    tiles[: len(shown), :height, :width] = weights[:, shown].T.reshape(-1, height, width)
    grid = tiles.reshape(rows, columns, height + 1, width + 1).swapaxes(1, 2)
    image = grid.reshape(rows * (height + 1), columns * (width + 1))[:-1, :-1]
    # Square pixels: the height follows from the image.
    size = style.WIDTH * image.shape[0] / image.shape[1]
    figure, axes = style.subplots(height=min(max(size + 0.5, 1.5), 9.0))
    axis = axes[0, 0]
    # Neurons differ in their strongest weight: the 99th percentile of all weights is black.
    axis.imshow(image, cmap="Greys", vmin=0, vmax=float(np.percentile(weights, 99)) or 1.0)
    axis.set_axis_off()
    names = f"{count} neurons" if len(shown) == count else f"{len(shown)} of {count} neurons shown"
    note = f"{names}, {height}x{width} weights each"
    style.write(axis, title=title, note=note)
    figure.set_label(f"Receptive fields of {count} neurons, {height}x{width} weights each")
    return figure


def trade_off(rows: Iterable[Mapping[str, Any]], *, title: str = "") -> Figure:
    """Accuracy against bytes on a logarithmic axis, with the Pareto front and the choice.

    Args:
        rows: `{"name", "bytes", "accuracy", "front": bool, "chosen": bool}`; rows whose accuracy
            is None are omitted.
        title: Title of the picture.

    Returns:
        The figure.

    Raises:
        ValueError: If no row has an accuracy.
    """
    rows = [row for row in rows if row["accuracy"] is not None]
    if not rows:
        raise ValueError("nothing to draw: no row has an accuracy")
    figure, axes = style.subplots(height=3.6)
    axis = axes[0, 0]
    # By bytes, or the line would run back and forth.
    front = sorted((r for r in rows if r["front"]), key=lambda r: r["bytes"])
    axis.plot(
        [r["bytes"] for r in front], [100 * r["accuracy"] for r in front],
        color=style.BLUE, linewidth=1.4, label="Pareto front",
    )  # fmt: skip
    for row in rows:
        colour = style.VERMILION if row["chosen"] else style.BLUE if row["front"] else style.FAINT
        axis.plot(row["bytes"], 100 * row["accuracy"], "o", color=colour, markersize=6)
        axis.annotate(
            row["name"], (row["bytes"], 100 * row["accuracy"]), (5, -9),
            textcoords="offset points", fontsize=8, color=colour, parse_math=False,
        )  # fmt: skip
    axis.set_xscale("log")  # candidates of a search differ in size by orders of magnitude
    axis.margins(0.12)
    style.polish(axis)
    (mark,) = [row["name"] for row in rows if row["chosen"]] or [""]
    note = f"chosen: {mark}" if mark else ""
    style.write(axis, title=title, x="bytes of synapses", y="test accuracy (%)", note=note)
    figure.set_label(f"Accuracy against bytes of {len(rows)} networks; {note or 'none chosen'}")
    return figure
