"""The one look of all pictures: palette, grid, sizes, and how too much is cut to what can be read.

The colours are those of Okabe and Ito, "Color Universal Design", 2008, which people with any of
the common forms of colour blindness tell apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, VERMILION, ORANGE = "#0072b2", "#d55e00", "#e69f00"
INK, FAINT, GRID = "#222222", "#666666", "#e3e3e3"

WIDTH = 7.2
DPI = 130


def subplots(*, height: float, rows: int = 1, columns: int = 1, **options: Any):
    """A figure of the usual width and its axes `[rows, columns]`, on the Agg canvas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def polish(axis: Any, *, grid: str = "both") -> None:
    """Light grid behind the data, no box, small quiet ticks."""
    axis.set_facecolor("white")
    axis.set_axisbelow(True)
    axis.grid(True, axis=grid, color=GRID, linewidth=0.8, linestyle="-")
    for side, spine in axis.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#bbbbbb")
    axis.tick_params(length=0, labelsize=9, labelcolor=INK)


def whole_numbers(axis: Any) -> None:
    """Ticks of this x or y axis on whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1))


def write(axis: Any, *, title: str = "", x: str = "", y: str = "", note: str = "") -> None:
    """Title at the left, a note on the data at the right, axis labels; no text is read as TeX."""
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
    """A title over all axes of a figure, at the left."""
    if title:
        figure.suptitle(
            title, x=0.01, ha="left", fontsize=11, color=INK, fontweight="bold", parse_math=False
        )


def array(value: Any, axes: str, what: str, **sizes: int) -> np.ndarray:
    """The value as float32, with the axes asked for.

    Args:
        value: an array.
        axes: one letter per axis, such as `"T N"`.
        what: what the message calls it.
        **sizes: sizes that some axes must have, by letter.

    Raises:
        ValueError: the rank or a size is another, or an axis is empty.
    """
    result, letters = np.asarray(value).astype(np.float32), axes.split()
    here = dict(zip(letters, result.shape, strict=False))
    fits = result.ndim == len(letters) and all(here[k] == n for k, n in sizes.items())
    if not fits or not result.size:
        wanted = ", ".join(str(sizes.get(letter, letter)) for letter in letters)
        raise ValueError(
            f"{what} must be [{wanted}] and not empty, got {list(result.shape)}: pick one example "
            "and flatten the neurons first"
        )
    return result


def spread(count: int, most: int) -> np.ndarray:
    """At most `most` of the numbers 0..count-1, evenly spread, first and last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def of(shown: int, count: int, noun: str) -> str:
    """`"neuron"`, or `"neuron (200 of 4096 shown)"` where not all fit."""
    return noun if shown == count else f"{noun} ({shown} of {count} shown)"


def wrap(name: str, *, most: int = 32) -> str:
    """A long layer name on several lines, broken after slashes, so that nothing is left out."""
    lines = [""]
    for part in name.replace("/", "/\0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(part) > most:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)
