"""Pictures of activity: spikes, membrane potentials, firing rates, event frames.

They show one example: select it from `[T, B, ...]` and flatten the neurons, as in
`raster(spikes[:, 0].reshape(T, -1))`. If there are too many neurons to show, an evenly spaced
selection is drawn, and the axis label says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from snnjax.viz import _style as style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["firing_rates", "frames", "membranes", "raster"]


def raster(spikes: Any, *, title: str = "", limit: int = 200) -> Figure:
    """Spike raster: one row per neuron, one tick per spike.

    Args:
        spikes: `[T, N]`, 0 or 1.
        title: Title of the picture.
        limit: Largest number of neurons to show, evenly spaced over `N`.

    Returns:
        The figure; its note gives the firing rate of all `N` neurons.

    Raises:
        ValueError: If `spikes` is not `[T, N]`, or an entry is neither 0 nor 1.
    """
    spikes = _spikes(spikes)
    timesteps, count = spikes.shape
    rows = style.spread(count, limit)
    # Bounded: a raster of few neurons stays readable, one of many stays on the page.
    height = float(np.clip(1.4 + 0.045 * len(rows), 2.2, 4.6))
    figure, axes = style.subplots(height=height)
    axis = axes[0, 0]
    times, neurons = np.nonzero(spikes[:, rows])
    axis.vlines(
        # Thinner ticks for longer windows, so that neighbouring timesteps stay apart.
        times, neurons - 0.42, neurons + 0.42, colors=style.BLUE,
        linewidth=float(np.clip(200 / timesteps, 0.5, 3.0)),
    )  # fmt: skip
    # Fixed limits: silent timesteps at the ends stay visible.
    axis.set_xlim(-0.5, timesteps - 0.5)
    axis.set_ylim(-0.7, len(rows) - 0.3)
    _number_rows(axis, rows, count)
    style.polish(axis, grid="x")
    style.whole_numbers(axis.xaxis)
    rate = f"{spikes.mean():.3g} spikes per neuron and timestep"
    neurons_label = style.shown_label(len(rows), count, "neuron")
    style.write(axis, title=title, x="timestep", y=neurons_label, note=rate)
    figure.set_label(f"Spike raster: {count} neurons over {timesteps} timesteps, {rate}")
    return figure


def membranes(
    v: Any, *, threshold: float | None = None, spikes: Any = None, title: str = "", limit: int = 4
) -> Figure:
    """Membrane potentials over time, one panel per neuron.

    Args:
        v: `[T, N]`, as tapped with `"membrane"`: after the reset.
        threshold: Threshold, drawn as a dashed line; spikes are marked at its height.
        spikes: `[T, N]`, marked with triangles; None draws no marks.
        title: Title of the picture.
        limit: Largest number of neurons to show, evenly spaced over `N`.

    Returns:
        The figure.

    Raises:
        ValueError: If `v` is not `[T, N]`, or `spikes` has another shape or is not 0 or 1.
    """
    v = style.array(v, "T N", "v")
    fired = np.zeros_like(v) if spikes is None else _spikes(spikes)
    if fired.shape != v.shape:
        raise ValueError(f"spikes must be {list(v.shape)} as v is, got {list(fired.shape)}")
    timesteps, count = v.shape
    neurons = style.spread(count, limit)
    figure, axes = style.subplots(
        height=1.1 + 0.95 * len(neurons), rows=len(neurons), sharex=True, sharey=True
    )
    # Beyond this length markers would touch.
    marker = "o" if timesteps <= 32 else None
    # Without a threshold marks stand at the highest potential that is drawn.
    top = float(np.nanmax(v[:, neurons])) if threshold is None else threshold
    for axis, neuron in zip(axes[:, 0], neurons, strict=True):
        axis.plot(v[:, neuron], color=style.BLUE, linewidth=1.4, marker=marker, markersize=3)
        if threshold is not None:
            axis.axhline(threshold, color=style.FAINT, linewidth=1, linestyle=(0, (4, 3)))
        times = np.nonzero(fired[:, neuron])[0]
        marks = axis.plot(
            times, np.full(len(times), top), linestyle="none", marker="v", color=style.VERMILION,
            markersize=5.5, clip_on=False, zorder=3,
        )  # fmt: skip
        marks[0].set_in_layout(False)  # marks may overlap the frame without shrinking the panel
        style.polish(axis)
        style.write(
            axis, title=title if neuron == neurons[0] else "", y=f"neuron {neuron}",
            x="timestep" if neuron == neurons[-1] else "",
        )  # fmt: skip
    style.whole_numbers(axes[-1, 0].xaxis)
    _membrane_legend(figure, threshold is not None, spikes is not None)
    label = style.shown_label(len(neurons), count, "membrane potential")
    figure.supylabel(label, fontsize=9.5, color=style.INK)
    figure.set_label(f"Membrane potentials over {timesteps} timesteps, {len(neurons)} neurons")
    return figure


def firing_rates(rates: Mapping[str, Any], *, title: str = "") -> Figure:
    """Firing rates: one bar per layer, in the order of the mapping.

    Args:
        rates: Layer name -> spikes per neuron and timestep, a number; see `metrics.firing_rates`.
        title: Title of the picture.

    Returns:
        The figure.

    Raises:
        ValueError: If there are no layers, or a rate is not a single number between 0 and 1.
    """
    if not rates:
        raise ValueError('no layers: ask the network for taps=("spikes",) first')
    # A rate per timestep or neuron would need another picture.
    wrong = [name for name, rate in rates.items() if np.size(rate) != 1]
    if wrong:
        raise ValueError(f"one number per layer is wanted, shape []; take the mean of {wrong}")
    for name, rate in rates.items():
        # A mean of other outputs than spikes would look like a rate.
        if not 0 <= float(np.squeeze(rate)) <= 1:
            raise ValueError(
                f"a firing rate lies between 0 and 1 spikes per timestep, and {name!r} has "
                f"{float(np.squeeze(rate)):.3g}: its outputs are not spikes, so leave it out, as "
                "metrics.firing_rates(aux.taps) does"
            )
    names, values = list(rates), np.array([float(np.squeeze(r)) for r in rates.values()])
    labels = [style.wrap(name) for name in names]
    lines = max(label.count("\n") + 1 for label in labels)
    figure, axes = style.subplots(height=1.0 + (0.12 + 0.15 * lines) * len(names))
    axis, rows = axes[0, 0], np.arange(len(names))
    axis.barh(rows, values, height=0.66, color=style.BLUE)
    for row, value in zip(rows, values, strict=True):
        # A bar of length 0 is invisible: the text says so.
        text = f"{value:.3g}" if value else "0 (silent)"
        axis.annotate(
            text, (max(value, 0), row), (4, 0), textcoords="offset points", va="center",
            fontsize=8.5, color=style.INK if value else style.VERMILION,
        )  # fmt: skip
    axis.set_yticks(rows, labels, parse_math=False)
    axis.set_ylim(len(names) - 0.45, -0.55)  # reversed: the first layer is on top
    # Room at the right for the numbers; an axis of all zeros still needs a length.
    axis.set_xlim(0, 1.16 * (values.max() or 0.1))
    style.polish(axis, grid="x")
    style.write(axis, title=title, x="spikes per neuron per timestep")
    busiest = f"{names[int(values.argmax())]} with {values.max():.3g}"
    figure.set_label(
        f"Firing rates of {len(names)} layers; the busiest is {busiest} spikes per neuron per "
        "timestep"
    )
    return figure


def frames(images: Any, *, title: str = "", limit: int = 8) -> Figure:
    """Event frames as a strip: one tile per timestep, on events in blue, off events in orange.

    Args:
        images: `[T, H, W, 2]`, counts of off events in channel 0 and of on events in channel 1.
        title: Title of the picture.
        limit: Largest number of frames to show, evenly spaced over `T`.

    Returns:
        The figure.

    Raises:
        ValueError: If `images` is not `[T, H, W, 2]`.
    """
    images = np.abs(style.array(images, "T H W P", "images", P=2))
    times = style.spread(len(images), limit)
    full, colours = _paint(images[times])
    # A few frames would otherwise fill the page.
    tile = min(style.WIDTH / len(times), 2.2) * images.shape[1] / images.shape[2]
    figure, axes = style.subplots(height=tile + 0.85, columns=len(times))
    for axis, colour, t in zip(axes[0], colours, times, strict=True):
        # Without smoothing: single pixels are the data.
        axis.imshow(colour, interpolation="nearest")
        axis.set_xticks([])
        axis.set_yticks([])
        for spine in axis.spines.values():
            spine.set_color("#bbbbbb")
        axis.set_xlabel(f"t = {t}", fontsize=9, color=style.INK)
    style.headline(figure, title)
    few = len(times) < len(images)
    note = f"; {len(times)} of {len(images)} frames shown" if few else ""
    _legend(
        figure, [style.patch(style.BLUE, "on"), style.patch(style.VERMILION, "off")],
        title=f"full colour from {full:.3g} per pixel{note}",
    )  # fmt: skip
    figure.set_label(f"Event frames: {len(times)} of {len(images)} timesteps")
    return figure


def _spikes(spikes):
    """Spikes `[T, N]` as booleans."""
    array = style.array(spikes, "T N", "spikes")
    if not np.isin(array, (0, 1)).all():
        raise ValueError(
            f"spikes are 0 or 1, got values from {array.min():.3g} to {array.max():.3g}: membranes "
            "and other real outputs are drawn by viz.membranes"
        )
    return array != 0


def _number_rows(axis, rows, count):
    """Ticks of the raster rows, labelled with neuron numbers."""
    if len(rows) == count:
        style.whole_numbers(axis.yaxis)
    else:
        # Rows are a selection: their own numbers would mislead.
        ticks = style.spread(len(rows), 6)
        axis.set_yticks(ticks, [str(n) for n in rows[ticks]])


def _paint(images):
    """Counts `[T, H, W, 2]` as colours `[T, H, W, 3]` on white, and the count of full colour."""
    from matplotlib.colors import to_rgb

    counts = images[images > 0]
    # The brightest pixels are often defective: scaled to them, all others would be invisible.
    full = float(np.quantile(counts, 0.98)) if counts.size else 1.0
    # A single event starts at a quarter of the colour, else it could not be told from white.
    strength = np.where(images > 0, 0.25 + 0.75 * np.minimum(images / full, 1), 0)
    inks = 1 - np.array([to_rgb(style.VERMILION), to_rgb(style.BLUE)])
    return full, np.clip(1 - strength @ inks, 0, 1)


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
