"""Common style of all pictures: palette, grid, sizes, and selections that fit on the page.

The colours are those of Okabe and Ito, "Color Universal Design", 2008, which people with common
forms of colour blindness can distinguish.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, VERMILION, ORANGE = "#0072b2", "#d55e00", "#e69f00"
INK, FAINT, GRID = "#222222", "#666666", "#e3e3e3"

WIDTH = 7.2  # inches
DPI = 130


def subplots(*, height: float, rows: int = 1, columns: int = 1, **options: Any):
    """Makes a figure of the common width and its axes `[rows, columns]`, on the Agg canvas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not through pyplot, which keeps every figure alive and changes global state.
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white", layout="constrained")
    # The canvas attaches itself to the figure; Agg needs no display.
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def polish(axis: Any, *, grid: str = "both") -> None:
    """Draws a light grid behind the data and removes the box and the tick marks."""
    axis.set_facecolor("white")
    # The grid would otherwise cross the data.
    axis.set_axisbelow(True)
    axis.grid(True, axis=grid, color=GRID, linewidth=0.8, linestyle="-")
    for side, spine in axis.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#bbbbbb")
    axis.tick_params(length=0, labelsize=9, labelcolor=INK)


def whole_numbers(axis: Any) -> None:
    """Places the ticks of an x or y axis on whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1))


def write(axis: Any, *, title: str = "", x: str = "", y: str = "", note: str = "") -> None:
    """Writes a title at the left, a note at the right and axis labels."""
    # Names of layers may contain "$", which matplotlib would read as TeX.
    plain = {"parse_math": False}
    if title:
        axis.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold", **plain)
    if note:
        axis.annotate(
            note, (1, 1), (0, 4), xycoords="axes fraction", textcoords="offset points",
            ha="right", va="bottom", fontsize=8.5, color=FAINT, **plain,
        )  # fmt: skip
    axis.set_xlabel(x, fontsize=9.5, color=INK, **plain)
    axis.set_ylabel(y, fontsize=9.5, color=INK, **plain)


def headline(figure: Figure, title: str) -> None:
    """Writes a title above all axes of a figure, at the left."""
    if title:
        figure.suptitle(
            title, x=0.01, ha="left", fontsize=11, color=INK, fontweight="bold", parse_math=False
        )


def array(value: Any, axes: str, name: str, **sizes: int) -> np.ndarray:
    """Converts a value to float32 and checks its axes.

    Args:
        value: An array.
        axes: One letter per axis, such as `"T N"`.
        name: Name of the value in error messages.
        **sizes: Required sizes of axes, by letter.

    Returns:
        The array.

    Raises:
        ValueError: If the rank or a size differs, or an axis is empty.
    """
    # One dtype whatever the precision of the network, so that means and limits keep their digits.
    result, letters = np.asarray(value).astype(np.float32), axes.split()
    here = dict(zip(letters, result.shape, strict=False))
    fits = result.ndim == len(letters) and all(here[k] == n for k, n in sizes.items())
    if not fits or not result.size:
        expected = ", ".join(str(sizes.get(letter, letter)) for letter in letters)
        raise ValueError(
            f"{name} must be [{expected}] and not empty, got {list(result.shape)}: pick one "
            "example and flatten the neurons first"
        )
    return result


def spread(count: int, limit: int) -> np.ndarray:
    """Selects at most `limit` of the numbers 0..count-1, evenly spaced, with first and last."""
    # `unique`: rounding may give a number twice.
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(int))


def shown_label(shown: int, count: int, noun: str) -> str:
    """Axis label: `"neuron"`, or `"neuron (200 of 4096 shown)"` for a selection."""
    return noun if shown == count else f"{noun} ({shown} of {count} shown)"


def wrap(name: str, *, limit: int = 32) -> str:
    """Breaks a long layer name after slashes into lines of about `limit` characters."""
    lines = [""]
    for part in name.replace("/", "/\0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(part) > limit:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def patch(colour: str, label: str) -> Any:
    """Legend entry of one colour."""
    from matplotlib.patches import Patch

    return Patch(color=colour, label=label)
