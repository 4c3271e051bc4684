"""Pictures of redundancy: distributions of potentials, spike features, classes, rates.

They take the arrays of a `redundancy.Report`, without importing that package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from snnjax.viz import _style as style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Distribution", "class_shares", "distributions", "rate_comparison", "spike_features"]

# The order of the numbers 0, 1, 2 in a report.
_CLASSES = {"null": "#b5b5b5", "normal": style.BLUE, "noise": style.VERMILION}
_FLOOR = 1e-6  # lowest share on the logarithmic axis
_GAP = 1  # pixels between two maps


class Distribution(NamedTuple):
    """A histogram of a layer.

    Attributes:
        edges: `[n + 1]`, ascending.
        counts: `[n]`.
        threshold: Threshold, drawn as a dashed line; None draws none.
        above: Share at or above the threshold, for the note; None if unknown.
    """

    edges: Any
    counts: Any
    threshold: float | None = None
    above: float | None = None


def distributions(
    layers: Mapping[str, Distribution],
    *,
    reference: Mapping[str, Distribution] | None = None,
    quantity: str = "input current",
    title: str = "",
    limit: int = 8,
) -> Figure:
    """Distributions of potentials, one panel per layer, on a logarithmic axis.

    A layer whose currents lie mostly above the threshold fires at any input; one whose currents are
    all zero carries no information.

    Args:
        layers: Layer name -> histogram.
        reference: The same layers (by the names in `layers`) of another network, drawn as a line.
        quantity: Label of the axis.
        title: Title of the picture.
        limit: Largest number of layers to show, evenly spaced.

    Returns:
        The figure.

    Raises:
        ValueError: If there are no layers.
    """
    if not layers:
        raise ValueError("no layers to draw: a redundancy.Report holds those that spike")
    names = [list(layers)[i] for i in style.spread(len(layers), limit)]
    figure, axes = style.subplots(height=0.8 + 1.35 * len(names), rows=len(names))
    for axis, name in zip(axes[:, 0], names, strict=True):
        other = (reference or {}).get(name)
        _panel(axis, layers[name], other)
        style.write(
            axis, title=name, note=_above(layers[name], other), y="share",
            x=quantity if name == names[-1] else "",
        )  # fmt: skip
    style.headline(figure, title)
    if reference:
        handles = [style.patch(style.ORANGE, "before"), style.patch(style.BLUE, "after")]
        figure.legend(
            handles=handles, loc="outside lower right", ncols=2, frameon=False, fontsize=8.5
        )
    label = style.shown_label(len(names), len(layers), "layer")
    notes = "; ".join(f"{name}: {_above(layers[name], None) or 'no threshold'}" for name in names)
    figure.set_label(f"Distribution of the {quantity} by {label}. {notes}")
    return figure


def spike_features(
    features: Any, *, classes: Any = None, title: str = "", rows: int = 6, columns: int = 12
) -> Figure:
    """Mean spike maps of a layer: one row per timestep, one column per channel by mean rate.

    Args:
        features: `[T, H, W, C]`, firing rates; `[T, P, C]` is drawn as maps of one row, `[T, C]` as
            maps of one pixel.
        classes: `[T, C]`, 0 null, 1 normal, 2 noise: colour of each map's border.
        title: Title of the picture.
        rows: Largest number of timesteps to show, evenly spaced.
        columns: Largest number of channels to show, evenly spaced over their ranks.

    Returns:
        The figure.

    Raises:
        ValueError: If `features` has another rank, or `classes` another shape.
    """
    maps = _maps(features)
    timesteps, height, width, channels = maps.shape
    # Checked before drawing: a transposed array would colour wrong borders.
    if classes is not None and np.shape(classes) != (timesteps, channels):
        raise ValueError(
            f"classes must be [T, C] = {[timesteps, channels]}, got {list(np.shape(classes))}"
        )
    # Stable: channels of equal rates keep their order in every picture.
    ranked = np.argsort(-maps.mean((0, 1, 2)), kind="stable")
    if height == width == 1:  # single pixels leave room for more maps
        rows, columns = 4 * rows, 5 * columns
    times, selected = style.spread(timesteps, rows), ranked[style.spread(channels, columns)]
    tile = min((style.WIDTH - 1) / len(selected), 1.0) * (height + _GAP) / (width + _GAP)
    figure, axes = style.subplots(height=float(np.clip(tile * len(times), 0.6, 9)) + 1.1)
    axis = axes[0, 0]
    # The full range of rates, so that maps of two networks can be compared.
    image = axis.imshow(
        _mosaic(maps[times][..., selected]), cmap=_white_to_ink(), vmin=0, vmax=1,
        interpolation="nearest",
    )  # fmt: skip
    if classes is not None:
        _frame(axis, np.asarray(classes)[times][:, selected], height, width)
        _class_legend(figure)
    _label_tiles(axis, times, selected, height, width)
    bar = figure.colorbar(image, ax=axis, shrink=0.8, aspect=30, pad=0.01)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=style.INK)
    style.write(
        axis, title=title, y=style.shown_label(len(times), timesteps, "timestep"),
        x=style.shown_label(len(selected), channels, "channel") + ", the busiest first",
    )  # fmt: skip
    figure.set_label(
        f"Mean spike maps of {channels} channels over {timesteps} timesteps, mean rate "
        f"{maps.mean():.3g}"
    )
    return figure


def class_shares(shares: Mapping[str, Mapping[str, float]], *, title: str = "") -> Figure:
    """Shares of null, normal and noise features, one bar per layer.

    Args:
        shares: Layer name -> share of each of `"null"`, `"normal"` and `"noise"`; they sum to 1.
        title: Title of the picture.

    Returns:
        The figure.

    Raises:
        ValueError: If there are no layers, or a class is missing.
    """
    # A missing class would leave a gap that looks like a share.
    if not shares or any(set(layer) != set(_CLASSES) for layer in shares.values()):
        raise ValueError(f"each layer has shares of {', '.join(_CLASSES)}, and there is one layer")
    figure, axis = _bars(list(shares))
    left = np.zeros(len(shares))  # stacked bars: each class starts where the previous one ended
    for name, colour in _CLASSES.items():
        values = np.array([layer[name] for layer in shares.values()])
        axis.barh(np.arange(len(left)), values, left=left, height=0.66, color=colour, label=name)
        for row, (start, value) in enumerate(zip(left, values, strict=True)):
            if value >= 0.06:  # narrower bars have no room for the number
                axis.text(
                    start + value / 2, row, f"{value:.0%}", ha="center", va="center", fontsize=8,
                    color=style.INK if name == "null" else "white",
                )  # fmt: skip
        left += values
    axis.set_xlim(0, 1)
    figure.legend(loc="outside lower right", ncols=3, frameon=False, fontsize=8.5)
    style.write(axis, title=title, x="share of spike features")
    noisy = max(shares, key=lambda name: shares[name]["noise"])
    figure.set_label(
        f"Classes of spike features of {len(shares)} layers; most noise in {noisy}, "
        f"{shares[noisy]['noise']:.0%}"
    )
    return figure


def rate_comparison(rates: Sequence[tuple[str, float, float]], *, title: str = "") -> Figure:
    """Firing rates before and after, two bars per layer.

    Args:
        rates: `(name, before, after)` per layer, in spikes per neuron and timestep.
        title: Title of the picture.

    Returns:
        The figure.

    Raises:
        ValueError: If there are no layers.
    """
    if not rates:
        raise ValueError("no layers to compare: the two networks have none that correspond")
    figure, axis = _bars([name for name, _, _ in rates])
    rows, largest = np.arange(len(rates)), max(max(b, a) for _, b, a in rates) or 0.1
    for place, (label, colour) in enumerate((("before", style.ORANGE), ("after", style.BLUE)), 1):
        values = np.array([row[place] for row in rates])
        # The two bars of a layer lie above and below its tick.
        heights = rows + 0.36 * (place - 1.5)
        axis.barh(heights, values, height=0.34, color=colour, label=label)
        for height, value in zip(heights, values, strict=True):
            axis.annotate(
                f"{value:.3g}", (value, height), (4, 0), textcoords="offset points", va="center",
                fontsize=8, color=style.INK,
            )  # fmt: skip
    axis.set_xlim(0, 1.16 * largest)
    figure.legend(loc="outside lower right", ncols=2, frameon=False, fontsize=8.5)
    style.write(axis, title=title, x="spikes per neuron per timestep")
    notes = ", ".join(f"{name} {before:.3g} to {after:.3g}" for name, before, after in rates)
    figure.set_label(f"Firing rates before and after: {notes}")
    return figure


def _panel(axis, own: Distribution, other: Distribution | None):
    for histogram, colour, fill in ((own, style.BLUE, True), (other, style.ORANGE, False)):
        if histogram is not None:
            counts = np.asarray(histogram.counts, np.float64)
            # Shares instead of counts: two networks may be measured on different numbers of
            # examples.
            share = counts / max(counts.sum(), 1)
            axis.stairs(
                share, histogram.edges, fill=fill, color=colour, baseline=_FLOOR, linewidth=1.4,
                alpha=0.85 if fill else 1.0,
            )  # fmt: skip
    # Rare potentials above the threshold matter, and a linear axis would hide them.
    axis.set_yscale("log")
    axis.set_ylim(_FLOOR, 1.5)
    axis.set_xlim(*_span([d for d in (own, other) if d is not None]))
    if own.threshold is not None:
        axis.axvline(own.threshold, color=style.INK, linewidth=1, linestyle=(0, (4, 3)))
    style.polish(axis)


def _span(histograms: list[Distribution]) -> tuple[float, float]:
    """Range from the first nonempty bin to the last one, zero and threshold included."""
    # Zero and threshold always, since the distributions are read against them.
    ends = [0.0] + [h.threshold for h in histograms if h.threshold is not None]
    for h in histograms:
        nonempty = np.flatnonzero(h.counts)
        if len(nonempty):
            ends += [float(h.edges[nonempty[0]]), float(h.edges[nonempty[-1] + 1])]
    # All values may be zero: the axis still needs a length.
    room = 0.03 * ((max(ends) - min(ends)) or 1)
    return min(ends) - room, max(ends) + room


def _above(own: Distribution, other: Distribution | None) -> str:
    if own.above is None:
        return ""
    before = "" if other is None or other.above is None else f" (before {other.above:.2%})"
    return f"{own.above:.2%}{before} at or above the threshold"


def _bars(names: list[str]):
    """Figure with one row per layer, the first on top."""
    labels = [style.wrap(name) for name in names]
    lines = max(label.count("\n") + 1 for label in labels)
    figure, axes = style.subplots(height=1.25 + (0.22 + 0.15 * lines) * len(names))
    axis = axes[0, 0]
    axis.set_yticks(np.arange(len(names)), labels, parse_math=False)
    # Reversed, so that the first layer is on top.
    axis.set_ylim(len(names) - 0.45, -0.55)
    style.polish(axis, grid="x")
    return figure, axis


def _maps(features: Any) -> np.ndarray:
    """Features as maps `[T, H, W, C]`."""
    maps = np.asarray(features, np.float32)
    if maps.ndim not in (2, 3, 4) or not maps.size:
        raise ValueError(
            "features must be [T, H, W, C], [T, P, C] or [T, C] and not empty, got "
            f"{list(maps.shape)}"
        )
    # Missing axes of space are of size 1, directly behind time.
    while maps.ndim < 4:
        maps = maps[:, None]
    return maps


def _mosaic(maps: np.ndarray) -> np.ndarray:
    """Maps `[T, H, W, C]` as one image with gaps of NaN, which imshow leaves blank."""
    gaps = ((0, 0), (0, _GAP), (0, _GAP), (0, 0))
    timesteps, _, _, channels = maps.shape
    tiles = np.pad(maps, gaps, constant_values=np.nan)
    _, height, width, _ = tiles.shape
    return tiles.transpose(0, 1, 3, 2).reshape(timesteps * height, channels * width)


def _frame(axis, classes, height, width):
    from matplotlib.patches import Rectangle

    colours = list(_CLASSES.values())
    for (row, column), number in np.ndenumerate(classes):
        # imshow centres pixels on whole numbers, so a map begins half a pixel before.
        corner = (column * (width + _GAP) - 0.5, row * (height + _GAP) - 0.5)
        axis.add_patch(
            Rectangle(corner, width, height, fill=False, edgecolor=colours[number], linewidth=1.2)
        )


def _class_legend(figure):
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor="none", edgecolor=colour, linewidth=1.4, label=name)
        for name, colour in _CLASSES.items()
    ]
    figure.legend(
        handles=handles, loc="outside lower right", ncols=3, frameon=False, fontsize=8.5,
    )  # fmt: skip


def _label_tiles(axis, times, channels, height, width):
    few = lambda count: style.spread(count, 12)  # noqa: E731
    across, down = few(len(channels)), few(len(times))
    axis.set_xticks(across * (width + _GAP) + (width - 1) / 2, [str(channels[i]) for i in across])
    axis.set_yticks(down * (height + _GAP) + (height - 1) / 2, [str(times[i]) for i in down])
    axis.tick_params(length=0, labelsize=8, labelcolor=style.INK)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _white_to_ink():
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("ink", ["#f4f4f2", style.BLUE, "#001a2c"])
