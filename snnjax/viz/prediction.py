"""Predictions of a regression against its targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from snnjax.viz import _style as style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["predictions"]

_PANELS = 4


def predictions(
    values: Any, targets: Any, *, names: list[str] | tuple[str, ...] | None = None, title: str = ""
) -> Figure:
    """Scatter plot of predictions against targets, a panel per target dimension.

    On the diagonal they are equal. Of more than four dimensions some are drawn, evenly spread.

    Args:
        values: `[N, D]`, predictions.
        targets: `[N, D]`.
        names: Names of the D dimensions; None numbers them.
        title: Title of the figure.

    Raises:
        ValueError: The arrays are not `[N, D]` of one shape, or empty.
    """
    targets = style.array(targets, "N D", "targets")
    # The shape of the targets is required: broadcasting would pair wrong examples.
    values = style.array(values, "N D", "predictions", N=targets.shape[0], D=targets.shape[1])
    count = targets.shape[1]
    # More panels in a row would be too narrow.
    chosen = style.spread(count, _PANELS)
    figure, axes = style.subplots(height=3.3, columns=len(chosen))
    notes = []
    for axis, number in zip(axes[0], chosen, strict=True):
        label = names[number] if names else f"target {number}" if count > 1 else "target"
        error = float(np.sqrt(np.mean(np.square(values[:, number] - targets[:, number]))))
        note = f"RMSE {error:.4g}"
        both = np.concatenate([values[:, number], targets[:, number]])
        # A diverged prediction must not take the diagonal away.
        finite = both[np.isfinite(both)]
        ends = [finite.min(), finite.max()] if finite.size else [0.0, 1.0]
        axis.plot(ends, ends, color=style.FAINT, linewidth=1.0, zorder=2)
        axis.plot(
            targets[:, number], values[:, number], "o", color=style.BLUE, markersize=2.5,
            alpha=0.5, markeredgewidth=0, zorder=3,
        )  # fmt: skip
        style.polish(axis)
        style.write(axis, x=label, y="prediction", note=note)
        notes.append(f"{label} {note}")
    style.headline(figure, title)
    figure.set_label(". ".join(["Predictions against targets", *notes]))
    return figure
