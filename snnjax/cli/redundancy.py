"""`snnjax redundancy RUN [--against OTHER_RUN]`: what a network wastes, and what changed.

Fields of its JSON object:

    run, step           the run directory, and the step of the checkpoint
    examples            test examples that were looked at
    accuracy            share of them that is right, in [0, 1]; of recordings that are cut in clips
                        by most of their clips, as `snnjax eval` judges them
    nasfr               spikes per neuron and timestep of the network, see `metrics.nasfr`
    layers              by name, those that spike: neurons; rate and rates_over_time, spikes per
                        neuron and timestep; features and channels, shares of null, normal and noise
                        among the spike features of each timestep and channel, and of each channel
                        over all timesteps; threshold, their mean; currents_at_threshold, the share
                        of input currents (after attention) at or above it
    left_out            names of the layers whose outputs are no spikes
    thresholds          of the classes, see `redundancy.Thresholds`
    pictures, page      paths of the PNG files by what they show, and of one HTML page of them all
    against             with --against: the same fields, as far as `left_out`, of the other run
    nasfr_change_percent   with --against: of this run's NASFR against the other one's
    comparison          with --against: path of the HTML page of before and after
    seconds             from the start of the command to its end

The table and the pages of `snnjax redundancy`: of one run, and of two.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from snnjax import data, metrics, redundancy, training, viz
from snnjax.cli.failures import Failure
from snnjax.cli.options import Option, parse
from snnjax.cli.output import Screen
from snnjax.cli.restore import OPTIONS, restore

__all__ = [
    "command",
    "table",
    "write_page",
    "write_comparison",
]

_LAYERS = 6  # whose spike features are shown, evenly spread

_TEXTS = {
    "rates": "Spikes per neuron and timestep. Their mean over all neurons, not over the layers, is "
    "the network average spiking firing rate, NASFR.",
    "classes": "Of the spike features of all timesteps and channels. Null ones fire nowhere, noise "
    "fires nearly everywhere, whatever the example shows; see `redundancy.Thresholds` for the "
    "rule, which is ours.",
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
        shares, above = layer.shares, layer.currents.share_above
        told = "-" if above is None else f"{above:.2%}"
        lines.append(
            f"  {name:<28} {layer.neurons:>9,} {layer.rate:>7.4f} {shares['null']:>6.1%} "
            f"{shares['normal']:>7.1%} {shares['noise']:>6.1%} {told:>21}"
        )
    if report.analog_layers:
        lines.append(f"  left out, since they do not spike: {', '.join(report.analog_layers)}")
    return lines


def write_page(
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
    text = "\n".join(table(report)[-1:]).strip() if report.analog_layers else ""
    head = ("Overview", text, None)
    return _save(run, "redundancy", title, sections, head)


def write_comparison(
    run: training.Run,
    other: training.Run,
    told: Sequence[tuple[str, redundancy.Report]],
    compared: Any,
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


def _rates(before: redundancy.Report, after: redundancy.Report, compared: Any):
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
        name: viz.Distribution(h.edges, h.counts, h.threshold, h.share_above)
        for name, h in found.items()
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


_TOLD = "What a network wastes: firing rates, spike features, input currents, by layer."
_RULE = redundancy.Thresholds()
_OPTIONS = [
    *OPTIONS,
    Option("against", str | None, None, "A run to compare with, the one before."),
    Option("examples", int | None, None, "How many test examples, evenly spread; None is all."),
    Option("batch", int, 8, "Examples at once, whole recordings: their spikes are in memory."),
    Option("null_rate", float, _RULE.null_rate, "A feature with a lower mean rate is null."),
    Option("noise_rate", float, _RULE.noise_rate, "A place with a higher rate is busy."),
    Option("noise_area", float, _RULE.noise_area, "At this share of busy places it is noise."),
]
_QUIET_SECONDS = 5


class _Found(NamedTuple):
    run: training.Run
    step: int
    accuracy: float
    report: redundancy.Report


def command(arguments: list[str], screen: Screen) -> tuple[dict[str, Any], int]:
    """Analyses a run, or two."""
    began = time.perf_counter()
    options = parse("snnjax redundancy", _TOLD, _OPTIONS, arguments)
    thresholds = _thresholds(options)
    if options.against is not None:
        training.Run.open(options.against)  # refused before the work, not after it
    found = _analyse(options, thresholds, screen)
    _tell(found, screen)
    page, pictures = write_page(found.run, found.report, title=_title(found))
    fields = {
        **_fields(found),
        "thresholds": dataclasses.asdict(thresholds),
        "pictures": pictures,
        "page": str(page),
    }
    screen.say(f"{len(pictures)} pictures in {page.parent}; all of them on one page: {page}")
    if options.against is not None:
        fields |= _against(options, thresholds, found, screen)
    return {**fields, "seconds": round(time.perf_counter() - began, 3)}, 0


def _against(options, thresholds, found: _Found, screen: Screen) -> dict[str, Any]:
    before = _analyse(dataclasses.replace(options, run=options.against), thresholds, screen)
    _tell(before, screen)
    compared = redundancy.compare(before.report, found.report)
    change = compared.nasfr_change
    screen.say(
        f"NASFR {before.report.nasfr:.4f} -> {found.report.nasfr:.4f}"
        + ("" if change is None else f" ({change:+.1f} %)")
        + f", accuracy {before.accuracy:.2%} -> {found.accuracy:.2%}"
    )
    told = [(_title(one), one.report) for one in (before, found)]
    page = write_comparison(found.run, before.run, told, compared)
    screen.say(f"before and after: {page}")
    return {
        "against": _fields(before),
        "nasfr_change_percent": change,
        "comparison": str(page),
    }


def _thresholds(options) -> redundancy.Thresholds:
    for name in ("examples", "batch"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise Failure(f"--{name} must be at least 1, got {value}")
    try:
        return redundancy.Thresholds(options.null_rate, options.noise_rate, options.noise_area)
    except ValueError as error:
        raise Failure(f"{error}: choose other --null-rate, --noise-rate, --noise-area") from None


def _analyse(options, thresholds: redundancy.Thresholds, screen: Screen) -> _Found:
    run, session, state = restore(options, warn=screen.warn)
    sums, accuracy = _look(session, state, options, screen)
    try:
        report = redundancy.report(sums, thresholds=thresholds)
    except ValueError as error:
        raise Failure(f"{run.path}: {error}") from None
    return _Found(run, int(state.step), accuracy, report)


def _look(session: training.Session, state: training.TrainState, options, screen: Screen):
    """Sums of every layer over the test examples, and the accuracy on them."""
    test, experiment = session.dataset.test, session.experiment
    clips = experiment.clips
    split = test.take(_places(len(test), options.examples, clips))
    size = max(min(options.batch, len(split)) // clips, 1) * clips

    def run(state, batch):
        frames = experiment.encode(experiment, batch.inputs, None)
        network = session.program.network(state)
        start = network.initial_state(len(batch.labels))._replace(statistics=state.statistics)
        outputs, aux = network(frames, start, training=False, taps=redundancy.TAPS)
        logits = experiment.readout(outputs)
        weights = batch.weights
        right = metrics.clip_accuracy(logits, batch.labels, clips=clips, weights=weights)
        correct = jnp.round(right * weights.sum())
        return redundancy.measure(aux.taps, weights=weights), correct

    screen.say(f"{options.run}: looking at {len(split):,} test examples")
    step, sums, right = jax.jit(run), None, 0.0
    for batch in _told(split, size, screen):
        part, correct = step(state, batch)
        sums, right = redundancy.add(sums, part), right + float(correct)
    assert sums is not None
    return sums, right / len(split)


def _places(there: int, wanted: int | None, clips: int) -> np.ndarray:
    """Which test examples, evenly spread; of a recording that is cut in clips all or none."""
    recordings = there // clips
    count = recordings if wanted is None else min(math.ceil(wanted / clips), recordings)
    chosen = np.linspace(0, recordings - 1, count).round().astype(int)
    return (chosen[:, None] * clips + np.arange(clips)).ravel()


def _told(split: data.Split, size: int, screen: Screen) -> Iterator[data.Batch]:
    """Batches, and a line now and then on how far it is."""
    spoken = time.perf_counter()
    for number, batch in enumerate(data.evaluation_batches(split, batch_size=size)):
        yield batch
        done = min((number + 1) * size, len(split))
        if time.perf_counter() - spoken > _QUIET_SECONDS and done < len(split):
            spoken = time.perf_counter()
            screen.say(f"  {done:,} of {len(split):,} examples")


def _title(found: _Found) -> str:
    return f"{found.run.path.name}, step {found.step}: {_summary(found)}"


def _summary(found: _Found) -> str:
    report, neurons = found.report, sum(found.report.neurons.values())
    return (
        f"accuracy {found.accuracy:.2%} of {report.examples:,} test examples, "
        f"NASFR {report.nasfr:.4f} over {neurons:,} neurons"
    )


def _tell(found: _Found, screen: Screen) -> None:
    screen.say(f"{found.run.path}, step {found.step}: {_summary(found)}")
    for line in table(found.report):
        screen.say(line)


def _fields(found: _Found) -> dict[str, Any]:
    return {
        "run": str(found.run.path),
        "step": found.step,
        "examples": found.report.examples,
        "accuracy": found.accuracy,
        "nasfr": found.report.nasfr,
        "layers": {name: _layer_fields(layer) for name, layer in found.report.layers.items()},
        "left_out": list(found.report.analog_layers),
    }


def _layer_fields(layer: Any) -> dict[str, Any]:
    return {
        "neurons": layer.neurons,
        "rate": layer.rate,
        "rates_over_time": layer.rates_over_time.tolist(),
        "features": layer.shares,
        "channels": layer.channel_shares,
        "threshold": layer.currents.threshold,
        "currents_at_threshold": layer.currents.share_above,
    }
