"""Distributions of potentials: where the currents or membranes of a layer lie, and their threshold.

A layer whose currents lie mostly above the threshold fires whatever it is shown; one whose currents
are all zero says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from snnjax.viz import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Distribution", "distributions"]

_FLOOR = 1e-6  # the lowest share on the logarithmic scale


class Distribution(NamedTuple):
    """A histogram to draw.

    Attributes:
        edges: `[n + 1]`, rising.
        counts: `[n]`.
        threshold: Drawn as a dashed line; None is not.
        above: Share at or above the threshold, for the note; None is not known.
    """

    edges: Any
    counts: Any
    threshold: float | None = None
    above: float | None = None


def distributions(
    layers: Mapping[str, Distribution],
    *,
    against: Mapping[str, Distribution] | None = None,
    what: str = "input current",
    title: str = "",
    most: int = 8,
) -> Figure:
    """How potentials are distributed, one panel per layer, on a logarithmic scale.

    Args:
        layers: by name.
        against: the same layers (by the names in `layers`) of another network, drawn as a line.
        what: name of the axis.
        title: over the picture.
        most: layers to show at most, evenly spread.

    Raises:
        ValueError: there are no layers.
    """
    if not layers:
        raise ValueError("no layers to draw: a redundancy.Report holds those that spike")
    names = [list(layers)[i] for i in style.spread(len(layers), most)]
    figure, axes = style.subplots(height=0.8 + 1.35 * len(names), rows=len(names))
    for axis, name in zip(axes[:, 0], names, strict=True):
        other = (against or {}).get(name)
        _panel(axis, layers[name], other)
        style.write(
            axis, title=name, note=_above(layers[name], other), y="share",
            x=what if name == names[-1] else "",
        )  # fmt: skip
    style.headline(figure, title)
    if against:
        handles = [_patch(style.ORANGE, "before"), _patch(style.BLUE, "after")]
        figure.legend(
            handles=handles, loc="outside lower right", ncols=2, frameon=False, fontsize=8.5
        )
    shown = style.of(len(names), len(layers), "layer")
    told = "; ".join(f"{name}: {_above(layers[name], None) or 'no threshold'}" for name in names)
    figure.set_label(f"Distribution of the {what} by {shown}. {told}")
    return figure


def _panel(axis, own: Distribution, other: Distribution | None):
    for drawn, colour, filled in ((own, style.BLUE, True), (other, style.ORANGE, False)):
        if drawn is not None:
            counts = np.asarray(drawn.counts, np.float64)
            share = counts / max(counts.sum(), 1)
            axis.stairs(
                share, drawn.edges, fill=filled, color=colour, baseline=_FLOOR, linewidth=1.4,
                alpha=0.85 if filled else 1.0,
            )  # fmt: skip
    axis.set_yscale("log")
    axis.set_ylim(_FLOOR, 1.5)
    axis.set_xlim(*_span([d for d in (own, other) if d is not None]))
    if own.threshold is not None:
        axis.axvline(own.threshold, color=style.INK, linewidth=1, linestyle=(0, (4, 3)))
    style.polish(axis)


def _span(drawn: list[Distribution]) -> tuple[float, float]:
    """From the first bin that is not empty to the last one, with zero and threshold inside."""
    ends = [0.0] + [d.threshold for d in drawn if d.threshold is not None]
    for d in drawn:
        filled = np.flatnonzero(d.counts)
        if len(filled):
            ends += [float(d.edges[filled[0]]), float(d.edges[filled[-1] + 1])]
    room = 0.03 * ((max(ends) - min(ends)) or 1)
    return min(ends) - room, max(ends) + room


def _above(own: Distribution, other: Distribution | None) -> str:
    if own.above is None:
        return ""
    was = "" if other is None or other.above is None else f" (before {other.above:.2%})"
    return f"{own.above:.2%}{was} at or above the threshold"


def _patch(colour, label):
    from matplotlib.patches import Patch

    return Patch(color=colour, label=label)
