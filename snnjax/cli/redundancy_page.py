"""The table and the pages of `snnjax redundancy`: of one run, and of two."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from snnjax import redundancy, training, viz

__all__ = ["table", "write", "write_comparison"]

_LAYERS = 6  # whose spike features are shown, evenly spread

_TEXTS = {
    "rates": "Spikes per neuron and timestep. Their mean over all neurons, not over the layers, is "
    "the network average spiking firing rate, NASFR.",
    "classes": "Of the spike features of all timesteps and channels. Null ones fire nowhere, noise "
    "fires nearly everywhere, whatever the example shows; see `redundancy.classify` for the rule, "
    "which is ours.",
    "currents": "What the neurons are given, after normalisation and attention; the dashed line is "
    "their threshold (the mean, where neurons differ). A layer of noise lies mostly above it, a "
    "null one at 0. The outermost bars hold what lies beyond them.",
    "membranes": "Membrane potentials after the reset.",
    "features": "Mean spike maps over all examples: dark is a rate of 1, frames are the classes.",
    "compared": "Network average spiking firing rates, and those of the layers.",
}


def table(report: redundancy.Report) -> list[str]:
    """Lines for the screen: one layer each, and what was left out."""
    lines = [
        f"  {'layer':<28} {'neurons':>9} {'rate':>7} {'null':>6} {'normal':>7} {'noise':>6} "
        f"{'current >= threshold':>21}"
    ]
    for name, layer in report.layers.items():
        shares, above = layer.shares, layer.currents.above
        told = "-" if above is None else f"{above:.2%}"
        lines.append(
            f"  {name:<28} {layer.neurons:>9,} {layer.rate:>7.4f} {shares['null']:>6.1%} "
            f"{shares['normal']:>7.1%} {shares['noise']:>6.1%} {told:>21}"
        )
    if report.left_out:
        lines.append(f"  left out, since they do not spike: {', '.join(report.left_out)}")
    return lines


def write(
    run: training.Run, report: redundancy.Report, *, title: str
) -> tuple[Path, dict[str, str]]:
    """Pictures and page of one run, in its folder of pictures.

    Returns:
        The page, and paths of the pictures by what they show.
    """
    sections = {
        "rates": ("Firing rates", _TEXTS["rates"], viz.firing_rates(report.rates)),
        "classes": ("Null, normal, noise", _TEXTS["classes"], viz.class_shares(_shares(report))),
        "currents": (
            "Input currents",
            _TEXTS["currents"],
            viz.distributions(_distributions(report, "currents")),
        ),
        "membranes": (
            "Membrane potentials",
            _TEXTS["membranes"],
            viz.distributions(_distributions(report, "membrane"), what="membrane potential"),
        ),
    }
    for name in _chosen(list(report.layers)):
        figure = _features(report, name, name)
        sections[f"features {name}"] = (f"Spike features of {name}", _TEXTS["features"], figure)
    text = "\n".join(table(report)[-1:]).strip() if report.left_out else ""
    head = ("Overview", text, None)
    return _save(run, "redundancy", title, sections, head)


def write_comparison(
    run: training.Run,
    other: training.Run,
    told: Sequence[tuple[str, redundancy.Report]],
    compared: redundancy.Comparison,
) -> Path:
    """Page of before and after, in the run's folder of pictures.

    Args:
        run: The one after.
        other: The one before.
        told: Title and report before, and after.
        compared: What changed.
    """
    (first, before), (second, after) = told
    sections: dict[str, Any] = {"compared": _rates(before, after, compared)}
    if compared.pairs:
        own, old = (_distributions(report, "currents") for report in (after, before))
        against = {name: old[partner] for partner, name in compared.pairs}
        figure = viz.distributions(own, against=against)
        sections["currents"] = ("Input currents", _TEXTS["currents"], figure)
    for word, report in (("before", before), ("after", after)):
        figure = viz.class_shares(_shares(report), title=word)
        sections[f"classes {word}"] = (f"Null, normal, noise: {word}", _TEXTS["classes"], figure)
    for row in _chosen(list(range(min(len(before.layers), len(after.layers))))):
        for word, report in (("before", before), ("after", after)):
            name = list(report.layers)[row]
            figure = _features(report, name, f"{word}: {name}")
            heading = f"Spike features of {name}, {word}"
            sections[f"features {row} {word}"] = (heading, _TEXTS["features"], figure)
    change = compared.nasfr_change
    text = f"Before: {first}.\n\nAfter: {second}.\n\n" + (
        "" if change is None else f"NASFR: {change:+.1f} %."
    )
    name = f"redundancy-against-{other.path.name}"
    return _save(run, name, "Before and after", sections, ("Overview", text, None))[0]


def _save(run, name, title, sections, head) -> tuple[Path, dict[str, str]]:
    folder = run.path / "pictures"
    pictures = {}
    for what, (_, _, figure) in sections.items():
        file = f"{name}-{what.replace('/', '-').replace(' ', '-')}.png"
        pictures[what] = str(viz.save(figure, folder / file))
    page = folder / f"{name}.html"
    page.write_text(viz.page(title, [head, *sections.values()]), encoding="utf-8")
    return page, pictures


def _rates(before: redundancy.Report, after: redundancy.Report, compared: redundancy.Comparison):
    rows = [("NASFR", before.nasfr, after.nasfr)]
    for old, new in compared.pairs:
        name = new if old == new else f"{old} / {new}"
        rows.append((name, before.rates[old], after.rates[new]))
    text = _TEXTS["compared"]
    if not compared.pairs:
        text += " The two networks are built differently: no layers correspond."
    return ("Firing rates", text, viz.compared_rates(rows))


def _shares(report: redundancy.Report) -> dict[str, dict[str, float]]:
    return {name: layer.shares for name, layer in report.layers.items()}


def _distributions(report: redundancy.Report, kind: str) -> dict[str, viz.Distribution]:
    found = {name: getattr(layer, kind) for name, layer in report.layers.items()}
    return {
        name: viz.Distribution(h.edges, h.counts, h.threshold, h.above) for name, h in found.items()
    }


def _features(report: redundancy.Report, name: str, title: str):
    layer = report.layers[name]
    features = layer.features
    if features.ndim > 4:  # more axes of space than two: all of them in a row
        features = features.reshape(len(features), -1, features.shape[-1])
    return viz.spike_features(features, classes=layer.classes, title=title)


def _chosen(layers: list[Any]) -> list[Any]:
    """Some of the layers, evenly spread."""
    places = np.linspace(0, len(layers) - 1, min(_LAYERS, len(layers))).round().astype(int)
    return [layers[i] for i in np.unique(places)]
