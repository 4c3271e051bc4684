"""Results of training: the learning curve, and predictions against targets, also over time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from snnjax.viz import _style as style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["classes_over_time", "learning_curve", "predictions", "predictions_over_time"]

_PANELS = 4
_KINDS = {"train": style.ORANGE, "eval": style.BLUE}


def learning_curve(
    records: Iterable[Mapping[str, Any]],
    *,
    metric: str = "accuracy",
    lowest: bool = False,
    title: str = "",
) -> Figure:
    """Loss and a metric against the epoch, with the best and the last evaluation.

    Several records of one kind at one epoch are averaged. Values that are not finite are omitted
    and counted in the note above the panel.

    Args:
        records: Parsed lines of `metrics.jsonl`: `{"kind": "train" or "eval", "epoch": ...,
            "loss": ..., "accuracy": ...}`; other kinds and entries are ignored, and a panel without
            values is omitted.
        metric: Name of the metric in the records.
        lowest: True if its lowest value is the best.
        title: Title of the picture.

    Returns:
        The figure.

    Raises:
        ValueError: If no record has an epoch and a loss or the metric.
    """
    # An iterator would be empty after the first curve.
    records = list(records)
    curves = {m: {k: _curve(records, k, m) for k in _KINDS} for m in ("loss", metric)}
    # A regression by its loss alone has no panel of a metric.
    panels = {m: kinds for m, kinds in curves.items() if any(len(c[0]) for c in kinds.values())}
    if not panels:
        raise ValueError(
            'nothing to draw: records are {"kind": "train" or "eval", "epoch": ..., "loss": ..., '
            f'"{metric}": ...}}, and none holds an epoch and a loss or the {metric}'
        )
    figure, axes = style.subplots(height=3.3, columns=len(panels), sharex=True)
    notes = [
        _panel(axis, name, kinds, lowest or name == "loss")
        for axis, (name, kinds) in zip(axes[0], panels.items(), strict=True)
    ]
    style.headline(figure, title)
    notes = [f"{metric} {note}" for metric, note in zip(panels, notes, strict=True)]
    figure.set_label(". ".join(["Learning curve", *notes]))
    return figure


def _panel(axis, metric, kinds, lowest):
    """Draws one metric and returns its note."""
    for kind, (epochs, values) in kinds.items():
        if len(epochs):
            # Markers of more than 40 epochs would merge into a thick line.
            marker = "o" if len(epochs) <= 40 else None
            axis.plot(
                epochs, values, color=_KINDS[kind], label=kind, linewidth=1.6, marker=marker,
                markersize=3.5, zorder=3 if kind == "eval" else 2,
            )  # fmt: skip
    note = _note(axis, lowest, *kinds["eval"])
    style.polish(axis)
    style.whole_numbers(axis.xaxis)
    style.write(axis, x="epoch", y=metric, note=note)
    epochs = np.concatenate([epochs for epochs, _ in kinds.values()])
    # A single epoch has no range.
    room = 0.04 * (np.ptp(epochs) or 1)
    axis.set_xlim(epochs.min() - room, epochs.max() + room)
    axis.margins(y=0.08)
    axis.legend(frameon=False, fontsize=8.5, labelcolor=style.INK)
    return note


def _note(axis, lowest, epochs, values):
    """Marks the best evaluation and returns `"eval: best 0.91 (epoch 7), last 0.9"`."""
    finite = np.isfinite(values)
    if not finite.any():
        return "eval: no finite value" if len(values) else ""
    # A run that diverged still has a best evaluation.
    epochs, finite_values = epochs[finite], values[finite]
    # The first of equal values, as the checkpoints choose it.
    best = int(finite_values.argmin() if lowest else finite_values.argmax())
    axis.plot(
        epochs[best], finite_values[best], marker="o", markersize=9, linestyle="none",
        markerfacecolor="none", markeredgecolor=style.VERMILION, markeredgewidth=1.6, zorder=4,
    )  # fmt: skip
    note = (
        f"eval: best {finite_values[best]:.4g} (epoch {epochs[best]:g}), "
        f"last {finite_values[-1]:.4g}"
    )
    omitted = len(values) - len(finite_values)
    return f"{note}, {omitted} not finite" if omitted else note


def _curve(records, kind, metric):
    """Epochs in ascending order, and the mean of the metric at each."""
    values: dict[float, list[float]] = {}
    for record in records:
        if record.get("kind") == kind and metric in record and record.get("epoch") is not None:
            value = record[metric]
            # JSON has no NaN: the log writes values that are not finite as null.
            number = math.nan if value is None else float(value)
            values.setdefault(float(record["epoch"]), []).append(number)
    epochs = sorted(values)
    return np.array(epochs), np.array([np.mean(values[epoch]) for epoch in epochs])


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
        label = _dimension(number, count, names)
        note = f"RMSE {_rmse(values[:, number], targets[:, number]):.4g}"
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


def predictions_over_time(
    values: Any, targets: Any, *, names: Sequence[str] | None = None, title: str = ""
) -> Figure:
    """Prediction and target at every timestep of one example, a panel per target dimension.

    Of more than four dimensions some are drawn, evenly spread.

    Args:
        values: `[T, D]`, predictions.
        targets: `[T, D]`.
        names: Names of the D dimensions; None numbers them.
        title: Title of the figure.

    Raises:
        ValueError: The arrays are not `[T, D]` of one shape, or empty.
    """
    targets = style.array(targets, "T D", "targets")
    values = style.array(values, "T D", "predictions", T=targets.shape[0], D=targets.shape[1])
    chosen = style.spread(targets.shape[1], _PANELS)
    figure, axes = style.subplots(height=1.7 * len(chosen) + 0.6, rows=len(chosen), sharex=True)
    notes = []
    for axis, number in zip(axes[:, 0], chosen, strict=True):
        label = _dimension(number, targets.shape[1], names)
        note = f"RMSE {_rmse(values[:, number], targets[:, number]):.4g}"
        lines = ((targets, "target", style.FAINT), (values, "prediction", style.BLUE))
        for series, name, colour in lines:
            axis.plot(series[:, number], color=colour, label=name, linewidth=1.6)
        style.polish(axis)
        style.write(axis, x="timestep" if number == chosen[-1] else "", y=label, note=note)
        notes.append(f"{label} {note}")
    style.whole_numbers(axes[-1, 0].xaxis)
    axes[0, 0].legend(frameon=False, fontsize=8.5, labelcolor=style.INK)
    style.headline(figure, title)
    figure.set_label(". ".join(["Predictions over time", *notes]))
    return figure


def classes_over_time(
    answers: Any, labels: Any, *, names: Sequence[str] | None = None, title: str = ""
) -> Figure:
    """Answer and label at every timestep of one example; wrong answers are marked.

    Args:
        answers: `[T]` integers, the classes with the largest outputs.
        labels: `[T]` integers.
        names: Names of the classes; None numbers them.
        title: Title of the figure.

    Raises:
        ValueError: The arrays are not `[T]` of one shape, or empty.
    """
    labels = style.array(labels, "T", "labels")
    answers = style.array(answers, "T", "answers", T=labels.shape[0])
    figure, axes = style.subplots(height=2.6)
    axis, wrong = axes[0, 0], answers != labels
    axis.step(
        range(len(labels)), labels, where="mid", color=style.FAINT, linewidth=4, label="label"
    )
    axis.step(range(len(labels)), answers, where="mid", color=style.BLUE, linewidth=1.4,
              label="answer")  # fmt: skip
    axis.plot(np.flatnonzero(wrong), answers[wrong], "x", color=style.VERMILION, markersize=4,
              label="wrong")  # fmt: skip
    note = f"{1 - wrong.mean():.2%} right"
    style.polish(axis)
    style.write(axis, x="timestep", y="class", note=note)
    style.whole_numbers(axis.xaxis)
    style.whole_numbers(axis.yaxis)
    # Names of many classes would overlap.
    if names and len(names) <= 12:
        axis.set_yticks(range(len(names)), [style.wrap(name) for name in names])
    axis.legend(frameon=False, fontsize=8.5, labelcolor=style.INK)
    style.headline(figure, title)
    figure.set_label(f"Classes over time. {note}")
    return figure


def _dimension(number: int, count: int, names: Sequence[str] | None) -> str:
    """Label of a target dimension."""
    return names[number] if names else f"target {number}" if count > 1 else "target"


def _rmse(values: np.ndarray, targets: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values - targets))))
