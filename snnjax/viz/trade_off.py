"""Accuracy against bytes: which networks are worth their size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from snnjax.viz import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["trade_off"]


def trade_off(rows: Iterable[Mapping[str, Any]], *, title: str = "") -> Figure:
    """Accuracy against bytes on a logarithmic scale; the Pareto front is joined and one is marked.

    Args:
        rows: `{"name", "bytes", "accuracy", "front": bool, "chosen": bool}`; rows whose accuracy
            is None are left out.
        title: over the picture.

    Raises:
        ValueError: no row has an accuracy.
    """
    rows = [row for row in rows if row["accuracy"] is not None]
    if not rows:
        raise ValueError("nothing to draw: no row has an accuracy")
    figure, axes = style.subplots(height=3.6)
    axis = axes[0, 0]
    best = sorted((r for r in rows if r["front"]), key=lambda r: r["bytes"])
    axis.plot(
        [r["bytes"] for r in best], [100 * r["accuracy"] for r in best],
        color=style.BLUE, linewidth=1.4, label="Pareto front",
    )  # fmt: skip
    for row in rows:
        colour = style.VERMILION if row["chosen"] else style.BLUE if row["front"] else style.FAINT
        axis.plot(row["bytes"], 100 * row["accuracy"], "o", color=colour, markersize=6)
        axis.annotate(
            row["name"], (row["bytes"], 100 * row["accuracy"]), (5, -9),
            textcoords="offset points", fontsize=8, color=colour, parse_math=False,
        )  # fmt: skip
    axis.set_xscale("log")
    axis.margins(0.12)
    style.polish(axis)
    (mark,) = [row["name"] for row in rows if row["chosen"]] or [""]
    note = f"chosen: {mark}" if mark else ""
    style.write(axis, title=title, x="bytes of synapses", y="test accuracy (%)", note=note)
    figure.set_label(f"Accuracy against bytes of {len(rows)} networks; {note or 'none chosen'}")
    return figure
