"""Pictures of activity: spikes, membranes, firing rates, event frames.

They show one example: pick it from `[T, B, ...]` and flatten the neurons, as in
`raster(spikes[:, 0].reshape(T, -1))`. What does not fit is left out evenly, and the axis says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from snnjax.viz import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["firing_rates", "frames", "membranes", "raster"]


def raster(spikes: Any, *, title: str = "", most: int = 200) -> Figure:
    """Which neuron fires when: one row per neuron, one tick per spike.

    Args:
        spikes: `[T, N]`; whatever is not 0 is a spike.
        title: over the picture.
        most: neurons to show at most, evenly spread over `N`.

    Returns:
        The figure; the rate written in it is that of all `N` neurons.

    Raises:
        ValueError: `spikes` is not `[T, N]`.
    """
    spikes = style.array(spikes, "T N", "spikes") != 0
    timesteps, count = spikes.shape
    rows = style.spread(count, most)
    height = float(np.clip(1.4 + 0.045 * len(rows), 2.2, 4.6))
    figure, axes = style.subplots(height=height)
    axis = axes[0, 0]
    times, neurons = np.nonzero(spikes[:, rows])
    axis.vlines(
        times, neurons - 0.42, neurons + 0.42, colors=style.BLUE,
        linewidth=float(np.clip(200 / timesteps, 0.5, 3.0)),
    )  # fmt: skip
    axis.set_xlim(-0.5, timesteps - 0.5)
    axis.set_ylim(-0.7, len(rows) - 0.3)
    _number_rows(axis, rows, count)
    style.polish(axis, grid="x")
    style.whole_numbers(axis.xaxis)
    rate = f"{spikes.mean():.3g} spikes per neuron and timestep"
    style.write(axis, title=title, x="timestep", y=style.of(len(rows), count, "neuron"), note=rate)
    figure.set_label(f"Spike raster: {count} neurons over {timesteps} timesteps, {rate}")
    return figure


def membranes(
    v: Any, *, threshold: float | None = None, spikes: Any = None, title: str = "", most: int = 4
) -> Figure:
    """Membrane potentials over time, one panel per neuron.

    Args:
        v: `[T, N]`, as tapped with `"membrane"`: after the reset.
        threshold: drawn as a dashed line; with `spikes`, its height is where they are marked.
        spikes: `[T, N]`, marked with a triangle.
        title: over the picture.
        most: neurons to show at most, evenly spread over `N`.

    Raises:
        ValueError: `v` is not `[T, N]`, or `spikes` is of another shape.
    """
    v = style.array(v, "T N", "v")
    fired = np.zeros_like(v) if spikes is None else style.array(spikes, "T N", "spikes")
    if fired.shape != v.shape:
        raise ValueError(f"spikes must be {list(v.shape)} as v is, got {list(fired.shape)}")
    timesteps, count = v.shape
    chosen = style.spread(count, most)
    figure, axes = style.subplots(
        height=1.1 + 0.95 * len(chosen), rows=len(chosen), sharex=True, sharey=True
    )
    marker = "o" if timesteps <= 32 else None
    top = float(np.nanmax(v[:, chosen])) if threshold is None else threshold
    for axis, neuron in zip(axes[:, 0], chosen, strict=True):
        axis.plot(v[:, neuron], color=style.BLUE, linewidth=1.4, marker=marker, markersize=3)
        if threshold is not None:
            axis.axhline(threshold, color=style.FAINT, linewidth=1, linestyle=(0, (4, 3)))
        times = np.nonzero(fired[:, neuron])[0]
        marks = axis.plot(
            times, np.full(len(times), top), linestyle="none", marker="v", color=style.VERMILION,
            markersize=5.5, clip_on=False, zorder=3,
        )  # fmt: skip
        marks[0].set_in_layout(False)
        style.polish(axis)
        style.write(
            axis, title=title if neuron == chosen[0] else "", y=f"neuron {neuron}",
            x="timestep" if neuron == chosen[-1] else "",
        )  # fmt: skip
    style.whole_numbers(axes[-1, 0].xaxis)
    _membrane_legend(figure, threshold is not None, spikes is not None)
    shown = style.of(len(chosen), count, "membrane potential")
    figure.supylabel(shown, fontsize=9.5, color=style.INK)
    figure.set_label(f"Membrane potentials over {timesteps} timesteps, {len(chosen)} neurons")
    return figure


def firing_rates(rates: Mapping[str, Any], *, title: str = "") -> Figure:
    """How busy each layer is: one bar per layer, in the order given.

    Args:
        rates: layer name -> spikes per neuron per timestep, a number; see `metrics.firing_rates`.
        title: over the picture.

    Raises:
        ValueError: there are no layers, or a rate is not a single number.
    """
    if not rates:
        raise ValueError('no layers: ask the network for taps=("spikes",) first')
    wrong = [name for name, rate in rates.items() if np.size(rate) != 1]
    if wrong:
        raise ValueError(f"one number per layer is wanted, shape []; take the mean of {wrong}")
    names, values = list(rates), np.array([float(np.squeeze(r)) for r in rates.values()])
    labels = [style.wrap(name) for name in names]
    lines = max(label.count("\n") + 1 for label in labels)
    figure, axes = style.subplots(height=1.0 + (0.12 + 0.15 * lines) * len(names))
    axis, rows = axes[0, 0], np.arange(len(names))
    axis.barh(rows, values, height=0.66, color=style.BLUE)
    for row, value in zip(rows, values, strict=True):
        text = f"{value:.3g}" if value else "0 (silent)"
        axis.annotate(
            text, (max(value, 0), row), (4, 0), textcoords="offset points", va="center",
            fontsize=8.5, color=style.INK if value else style.VERMILION,
        )  # fmt: skip
    axis.set_yticks(rows, labels, parse_math=False)
    axis.set_ylim(len(names) - 0.45, -0.55)
    axis.set_xlim(0, 1.16 * (values.max() or 0.1))
    style.polish(axis, grid="x")
    style.write(axis, title=title, x="spikes per neuron per timestep")
    busiest = f"{names[int(values.argmax())]} with {values.max():.3g}"
    figure.set_label(
        f"Firing rates of {len(names)} layers; the busiest is {busiest} spikes per neuron per "
        "timestep"
    )
    return figure


def frames(images: Any, *, title: str = "", most: int = 8) -> Figure:
    """Event frames as a strip: one tile per timestep, blue where events are on, orange where off.

    Args:
        images: `[T, H, W, 2]`, counts of off events in channel 0 and of on events in channel 1.
        title: over the picture.
        most: frames to show at most, evenly spread over `T`.

    Raises:
        ValueError: `images` is not `[T, H, W, 2]`.
    """
    images = np.abs(style.array(images, "T H W P", "images", P=2))
    chosen = style.spread(len(images), most)
    full, colours = _paint(images[chosen])
    tile = min(style.WIDTH / len(chosen), 2.2) * images.shape[1] / images.shape[2]
    figure, axes = style.subplots(height=tile + 0.85, columns=len(chosen))
    for axis, colour, t in zip(axes[0], colours, chosen, strict=True):
        axis.imshow(colour, interpolation="nearest")
        axis.set_xticks([])
        axis.set_yticks([])
        for spine in axis.spines.values():
            spine.set_color("#bbbbbb")
        axis.set_xlabel(f"t = {t}", fontsize=9, color=style.INK)
    style.headline(figure, title)
    few = len(chosen) < len(images)
    shown = f"; {len(chosen)} of {len(images)} frames shown" if few else ""
    _legend(
        figure, [_patch(style.BLUE, "on"), _patch(style.VERMILION, "off")],
        title=f"full colour from {full:.3g} per pixel{shown}",
    )  # fmt: skip
    figure.set_label(f"Event frames: {len(chosen)} of {len(images)} timesteps")
    return figure


def _number_rows(axis, rows, count):
    """Ticks of a raster's rows, named by the neurons' own numbers."""
    if len(rows) == count:
        style.whole_numbers(axis.yaxis)
    else:
        ticks = style.spread(len(rows), 6)
        axis.set_yticks(ticks, [str(n) for n in rows[ticks]])


def _paint(images):
    """Counts `[T, H, W, 2]` as colours `[T, H, W, 3]` on white, and the count of full colour."""
    from matplotlib.colors import to_rgb

    counts = images[images > 0]
    # The brightest pixels are often faulty ones: they must not make the rest invisible.
    full = float(np.quantile(counts, 0.98)) if counts.size else 1.0
    strength = np.where(images > 0, 0.25 + 0.75 * np.minimum(images / full, 1), 0)
    inks = 1 - np.array([to_rgb(style.VERMILION), to_rgb(style.BLUE)])
    return full, np.clip(1 - strength @ inks, 0, 1)


def _patch(colour, label):
    from matplotlib.patches import Patch

    return Patch(color=colour, label=label)


def _membrane_legend(figure, threshold, spikes):
    from matplotlib.lines import Line2D

    handles = []
    if threshold:
        dashes = {"color": style.FAINT, "linewidth": 1, "linestyle": (0, (4, 3))}
        handles.append(Line2D([], [], label="threshold", **dashes))
    if spikes:
        mark = {"color": style.VERMILION, "linestyle": "none", "marker": "v", "markersize": 5.5}
        handles.append(Line2D([], [], label="spike", **mark))
    if handles:
        _legend(figure, handles)


def _legend(figure, handles, **options):
    legend = figure.legend(
        handles=handles, loc="outside lower right", ncols=len(handles), frameon=False,
        fontsize=8.5, title_fontsize=8.5, labelcolor=style.INK, **options,
    )  # fmt: skip
    legend.get_title().set_color(style.FAINT)
