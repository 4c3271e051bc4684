"""Pictures of a conversion: the metric against timesteps, and the error of each layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from snnjax.viz import _style as style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["layer_errors", "metric_over_timesteps"]

_PARTS = {
    "clipping": style.VERMILION,
    "quantization": style.ORANGE,
    "inherited": style.GRID,
    "unevenness": style.BLUE,
}


def metric_over_timesteps(
    rows: Iterable[Mapping[str, Any]],
    *,
    source: float,
    metric: str = "accuracy",
    title: str = "",
) -> Figure:
    """Metric of a converted network against timesteps, beside that of its source.

    Args:
        rows: One mapping per number of timesteps, `{"timesteps": ..., "accuracy": ...}`.
        source: Metric of the network before conversion, a dashed line.
        metric: Name of the metric in the rows.
        title: Title of the picture.

    Returns:
        The figure.

    Raises:
        ValueError: If there are no rows.
    """
    points = sorted((row["timesteps"], float(row[metric])) for row in rows)
    if not points:
        raise ValueError(
            f'nothing to draw: rows are {{"timesteps": ..., "{metric}": ...}}, and there are none'
        )
    timesteps, values = np.array(points).T
    figure, axes = style.subplots(height=3.3)
    axis = axes[0, 0]
    axis.axhline(source, color=style.VERMILION, linewidth=1.4, linestyle="--", label="source")
    axis.plot(timesteps, values, "o-", color=style.BLUE, markersize=4.5, label="spiking")
    # Timesteps double from row to row, so equal factors are equal distances.
    axis.set_xscale("log", base=2)
    axis.set_xticks(timesteps, [f"{int(t)}" for t in timesteps])
    axis.minorticks_off()
    style.polish(axis)
    last = f"source {source:.4g}, {values[-1]:.4g} at {int(timesteps[-1])} timesteps"
    style.write(axis, title=title, x="timesteps", y=metric, note=last)
    axis.legend(frameon=False, fontsize=8.5, labelcolor=style.INK)
    figure.set_label(f"{metric} against timesteps: {last}")
    return figure


def layer_errors(records: Iterable[Mapping[str, Any]], *, title: str = "") -> Figure:
    """Mean conversion error of each layer by cause, as a share of its threshold.

    The bars of the causes add up to at least the error itself, a black mark, since errors of
    different signs cancel.

    Args:
        records: Records of `conversion.layer_errors` as mappings, in order of the layers.
        title: Title of the picture.

    Returns:
        The figure.

    Raises:
        ValueError: If there are no records.
    """
    records = list(records)
    if not records:
        raise ValueError("nothing to draw: give the records of conversion.layer_errors")
    places = np.arange(len(records))[::-1]
    figure, axes = style.subplots(height=1.2 + 0.3 * len(records))
    axis = axes[0, 0]
    left = np.zeros(len(records))
    for part, colour in _PARTS.items():
        widths = np.array([record[part] / record["threshold"] for record in records])
        axis.barh(places, widths, left=left, height=0.65, color=colour, label=part)
        left = left + widths
    totals = np.array([record["total"] / record["threshold"] for record in records])
    axis.plot(totals, places, "|", color=style.INK, markersize=14, label="error")
    axis.set_yticks(places, [style.wrap(record["name"]) for record in records])
    style.polish(axis, grid="x")
    note = f"largest in {records[int(totals.argmax())]['name']}, {totals.max():.3g}"
    style.write(axis, title=title, x="error / threshold", note=note)
    axis.legend(frameon=False, fontsize=8.5, labelcolor=style.INK)
    figure.set_label(f"Conversion error of {len(records)} layers, {note}")
    return figure
