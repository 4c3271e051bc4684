"""Memory of training: bytes against depth and timesteps, one line per strategy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from snnjax.viz import _style as style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["memory_curve"]

# Colours that people with common forms of colour blindness can tell apart.
_COLOURS = (style.VERMILION, style.ORANGE, style.BLUE, "#009e73", "#cc79a7", "#56b4e9", style.INK)
_MARKERS = "osD^vP"
_AXES = {"depth": "depth {}", "timesteps": "{} timesteps"}
_NAMES = {"temp_bytes": "temporary memory", "total_bytes": "memory in all"}
_GAP = 0.07  # least distance of two numbers at line ends, as a share of the panel's height


def memory_curve(
    rows: Iterable[Mapping[str, Any]], *, title: str = "", quantity: str = "temp_bytes"
) -> Figure:
    """Bytes against depth, timesteps or both, one line per strategy.

    There is one panel per axis that varies; if both vary, each panel fixes the other axis at the
    largest of its values measured most often. If neither varies, there is one bar per strategy. The
    axis of bytes starts at 0, so that the slope of a line is the cost of one more block or
    timestep.

    Args:
        rows: Rows of `snnjax memory`: `{"strategy": ..., "depth": ..., "timesteps": ...,
            "temp_bytes": ...}`; other entries are ignored, and rows whose quantity is None too.
        title: Title of the picture.
        quantity: Entry to draw, such as `"total_bytes"`.

    Returns:
        The figure.

    Raises:
        ValueError: If no row has the quantity.
    """
    # Refused strategies have no bytes.
    rows = [row for row in rows if row.get(quantity) is not None]
    if not rows:
        raise ValueError(
            'nothing to draw: rows are {"strategy": ..., "depth": ..., "timesteps": ..., '
            f'"{quantity}": ...}}, and none holds {quantity}'
        )
    unit, scale = _unit(max(row[quantity] for row in rows))
    label = f"{_NAMES.get(quantity, quantity)} ({unit})"
    rows = [{**row, "y": row[quantity] / scale} for row in rows]
    # An axis with one value would be a panel of single points.
    varying = [axis for axis in _AXES if len({row.get(axis) for row in rows}) > 1]
    if not varying:
        return _bars(rows, title, label)
    looks = _line_styles(rows)
    # As many legend columns as fit in about 96 characters.
    columns = max(1, min(len(looks), 96 // (max(map(len, looks)) + 8)))
    height = 2.9 + 0.18 * -(-len(looks) // columns)
    figure, axes = style.subplots(height=height, columns=len(varying), sharey=len(varying) > 1)
    for axis, name in zip(axes[0], varying, strict=True):
        _panel(axis, rows, name)
        style.write(
            axis, title=title if len(varying) == 1 else "", x=name,
            y=label if name == varying[0] else "", note=_fixed_note(rows, name),
        )  # fmt: skip
    style.headline(figure, title if len(varying) > 1 else "")
    _legend(figure, looks, columns)
    figure.set_label(_description(rows, label, varying))
    return figure


def _line_styles(rows):
    """Strategy -> colour and marker, in the order of measurement."""
    names = list(dict.fromkeys(row["strategy"] for row in rows))
    looks = range(len(names))
    return {
        name: {"color": _COLOURS[i % len(_COLOURS)], "marker": _MARKERS[i % len(_MARKERS)]}
        for name, i in zip(names, looks, strict=True)
    }


def _panel(axis, rows, name):
    """Draws the lines against one axis, with their last values at their ends."""
    other, value = _fixed_axis(rows, name)
    here = [row for row in rows if row.get(other) == value]
    lines = {}
    for strategy, look in _line_styles(rows).items():
        points = sorted((row[name], row["y"]) for row in here if row["strategy"] == strategy)
        if points:
            lines[strategy] = np.array(points), look
    style.polish(axis)
    # Of all rows: panels side by side share their axis.
    top = 1.08 * (max(row["y"] for row in rows) or 1)
    # From zero, so that the slope of a line is the cost of one more block or timestep.
    axis.set_ylim(0, top)
    remaining = [points for points, _ in lines.values()]
    for points, look in lines.values():
        # Lines that coincide: each is wider than the later ones, so that all remain visible.
        remaining = remaining[1:]
        hidden = 2.4 * sum(_coincide(points, later, top) for later in remaining)
        axis.plot(*points.T, linewidth=1.6 + hidden, markersize=4.5 + 0.7 * hidden, **look)
    axis.set_xticks(_ticks({row[name] for row in here}))
    axis.margins(x=0.07)
    _label_ends(axis, [(*points[-1], look["color"]) for points, look in lines.values()])


def _coincide(points, others, top):
    return points.shape == others.shape and np.allclose(points, others, rtol=0, atol=0.005 * top)


def _ticks(values):
    """Values in descending order, without those whose tick labels would touch."""
    gap, ticks = 0.05 * max(values), []
    # From the largest down: sizes often double, so the small ones are crowded.
    for value in sorted(values, reverse=True):
        if not ticks or ticks[-1] - value >= gap:
            ticks.append(value)
    return sorted(ticks)


def _label_ends(axis, ends):
    """Writes the last values at line ends, equal ones once and without overlaps."""
    colours: dict[tuple[float, str], list[str]] = {}
    gap, lowest = _GAP * axis.get_ylim()[1], -np.inf
    for x, y, colour in ends:
        colours.setdefault((x, _spell(y)), []).append(colour)
    # From the bottom up: each number moves up as far as the ones below it demand.
    for x, y, _ in sorted(ends, key=lambda end: end[1]):
        owners = colours.pop((x, _spell(y)), [])
        if owners:  # popped: of equal numbers only the first is written
            lowest = max(y, lowest + gap)
            axis.annotate(
                _spell(y), (x, lowest), (6 + len(owners), 0), textcoords="offset points",
                color=owners[0] if len(owners) == 1 else style.INK, fontsize=8.5, va="center",
                annotation_clip=False,
            )  # fmt: skip


def _fixed_axis(rows, name):
    """The other axis, and its value in the panel."""
    other = next(axis for axis in _AXES if axis != name)
    counts = Counter(row.get(other) for row in rows)
    # Of equally frequent values the largest: there differences are greatest.
    return other, max(counts, key=lambda value: (counts[value], value or 0))


def _fixed_note(rows, name):
    other, value = _fixed_axis(rows, name)
    return "" if value is None else _AXES[other].format(value)


def _bars(rows, title, label):
    """One bar per strategy, for rows that differ in nothing else."""
    figure, axes = style.subplots(height=1.0 + 0.42 * len(rows))
    axis, places = axes[0, 0], np.arange(len(rows))
    looks = _line_styles(rows)
    values = [row["y"] for row in rows]
    colours = [looks[row["strategy"]]["color"] for row in rows]
    axis.barh(places, values, height=0.66, color=colours)
    for place, value in zip(places, values, strict=True):
        axis.annotate(
            _spell(value), (value, place), (4, 0), textcoords="offset points", va="center",
            fontsize=8.5, color=style.INK,
        )  # fmt: skip
    names = [row["strategy"].replace(", ", ",\n") for row in rows]
    axis.set_yticks(places, names, parse_math=False)
    axis.set_ylim(len(rows) - 0.45, -0.55)
    axis.set_xlim(0, 1.12 * (max(values) or 1))
    style.polish(axis, grid="x")
    notes = [_fixed_note(rows, name) for name in reversed(_AXES)]
    style.write(axis, title=title, x=label, note=", ".join(note for note in notes if note))
    figure.set_label(_description(rows, label, []))
    return figure


def _legend(figure, looks, columns):
    from matplotlib.lines import Line2D

    figure.legend(
        handles=[Line2D([], [], label=name, linewidth=1.6, markersize=4.5, **look)
                 for name, look in looks.items()],
        loc="outside lower left", ncols=columns, frameon=False, fontsize=8.5, labelcolor=style.INK,
    )  # fmt: skip


def _unit(largest):
    """Unit in which the largest number has at least two digits, and its size in bytes."""
    units = {"GB": 1e9, "MB": 1e6, "kB": 1e3}
    return next(((unit, n) for unit, n in units.items() if largest >= 10 * n), ("bytes", 1.0))


def _spell(number):
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _description(rows, label, varying):
    against = " and ".join(varying) or "strategy"
    # Later rows replace earlier ones: the largest size of each strategy remains.
    ends = {row["strategy"]: row for row in sorted(rows, key=_position)}
    last = ", ".join(f"{name} {_spell(row['y'])}" for name, row in ends.items())
    return f"Memory of training, {label}, against {against}; at the largest: {last}"


def _position(row):
    return tuple(row.get(axis) or 0 for axis in _AXES)
