"""`snnjax redundancy RUN [--against OTHER_RUN]`: wasted activity of a run, or of two.

Draws the pictures and HTML pages of one run, or of a comparison before and after a change.

Fields of its JSON object:

    run, step           run directory, and step of the checkpoint
    examples            number of test examples measured
    accuracy            share of right answers on these examples, in [0, 1], over recordings for
                        clips, as in `snnjax eval`; other tasks have their own metrics by name
    nasfr               spikes per neuron and timestep of the network, see `metrics.nasfr`
    layers              spiking layers by name: neurons; rate and rates_over_time, spikes per neuron
                        and timestep; features and channels, shares of null, normal and noise among
                        the spike features of each timestep and channel, and of each channel over
                        all timesteps; threshold, mean over the neurons; currents_at_threshold, the
                        share of input currents (after attention) at or above it
    analog_layers       names of the layers that do not spike
    thresholds          thresholds of the classes, see `redundancy.Thresholds`
    pictures, page      paths of the PNG files by content, and of an HTML page with all of them
    against             with --against: the fields up to analog_layers, of the other run
    nasfr_change_percent   with --against: change of NASFR from the other run to this one
    comparison          with --against: path of the HTML page about both runs
    seconds             duration of the command
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

from snnjax import data, redundancy, training, viz
from snnjax.cli._failures import Failure
from snnjax.cli._options import Option, parse
from snnjax.cli._output import Screen
from snnjax.cli._restore import OPTIONS, restore

__all__ = [
    "command",
    "table",
    "write_page",
    "write_comparison",
]

_LAYERS = 6  # shown with their spike features, evenly spread

_TEXTS = {
    "rates": "Spikes per neuron and timestep. The mean over all neurons, not over the layers, is "
    "the network average spiking firing rate, NASFR.",
    "classes": "Classes of the spike features of all timesteps and channels. Null features fire "
    "nowhere and noise fires nearly everywhere, for any example; the rule is ours, see "
    "`redundancy.Thresholds`.",
    "currents": "Input currents of the neurons, after normalisation and attention; the dashed line "
    "is their threshold (the mean, if neurons differ). Currents of a noisy layer lie mostly above "
    "it, those of a null layer at 0. The outermost bars include all values beyond them.",
    "membranes": "Membrane potentials after the reset.",
    "features": "Mean spike maps over all examples: dark is a rate of 1, frames are the classes.",
    "compared": "Network average spiking firing rates, and rates of the layers.",
}


def table(report: redundancy.Report) -> list[str]:
    """Lines of the table of layers, and of the layers left out."""
    lines = [
        f"  {'layer':<28} {'neurons':>9} {'rate':>7} {'null':>6} {'normal':>7} {'noise':>6} "
        f"{'current >= threshold':>21}"
    ]
    for name, layer in report.layers.items():
        shares, above = layer.shares, layer.currents.share_above
        share = "-" if above is None else f"{above:.2%}"
        lines.append(
            f"  {name:<28} {layer.neurons:>9,} {layer.rate:>7.4f} {shares['null']:>6.1%} "
            f"{shares['normal']:>7.1%} {shares['noise']:>6.1%} {share:>21}"
        )
    if report.analog_layers:
        lines.append(f"  left out, since they do not spike: {', '.join(report.analog_layers)}")
    return lines


def write_page(
    run: training.Run, report: redundancy.Report, *, title: str
) -> tuple[Path, dict[str, str]]:
    """Writes the pictures and the page of one run into its folder of pictures.

    Returns:
        Path of the page, and paths of the pictures by content.
    """
    sections = {
        "rates": ("Firing rates", _TEXTS["rates"], viz.firing_rates(report.rates)),
        "classes": (
            "Null, normal, noise",
            _TEXTS["classes"],
            viz.redundancy.class_shares(_shares(report)),
        ),
        "currents": (
            "Input currents",
            _TEXTS["currents"],
            viz.redundancy.distributions(_distributions(report, "currents")),
        ),
        "membranes": (
            "Membrane potentials",
            _TEXTS["membranes"],
            viz.redundancy.distributions(
                _distributions(report, "membrane"), quantity="membrane potential"
            ),
        ),
    }
    for name in _select_layers(list(report.layers)):
        figure = _features(report, name, name)
        sections[f"features {name}"] = (f"Spike features of {name}", _TEXTS["features"], figure)
    # The last line of the table names the layers left out.
    text = "\n".join(table(report)[-1:]).strip() if report.analog_layers else ""
    head = ("Overview", text, None)
    return _save(run, "redundancy", title, sections, head)


def write_comparison(
    run: training.Run,
    other: training.Run,
    reports: Sequence[tuple[str, redundancy.Report]],
    compared: Any,
) -> Path:
    """Writes the page about two runs into the folder of pictures of the later one.

    Args:
        run: Run after the change.
        other: Run before the change.
        reports: Title and report of the runs before and after the change.
        compared: Comparison of the reports.
    """
    (first, before), (second, after) = reports
    sections: dict[str, Any] = {"compared": _rates(before, after, compared)}
    # Networks that are built differently have no distributions to lay over each other.
    if compared.pairs:
        own, old = (_distributions(report, "currents") for report in (after, before))
        reference = {name: old[partner] for partner, name in compared.pairs}
        figure = viz.redundancy.distributions(own, reference=reference)
        sections["currents"] = ("Input currents", _TEXTS["currents"], figure)
    for word, report in (("before", before), ("after", after)):
        figure = viz.redundancy.class_shares(_shares(report), title=word)
        sections[f"classes {word}"] = (f"Null, normal, noise: {word}", _TEXTS["classes"], figure)
    # By number: the layers of two networks may have different names.
    for row in _select_layers(list(range(min(len(before.layers), len(after.layers))))):
        for word, report in (("before", before), ("after", after)):
            name = list(report.layers)[row]
            figure = _features(report, name, f"{word}: {name}")
            heading = f"Spike features of {name}, {word}"
            sections[f"features {row} {word}"] = (heading, _TEXTS["features"], figure)
    change = compared.nasfr_change
    text = f"Before: {first}.\n\nAfter: {second}.\n\n" + (
        "" if change is None else f"NASFR: {change:+.1f} %."
    )
    # The name of the other run keeps comparisons with several runs apart.
    name = f"redundancy-against-{other.path.name}"
    return _save(run, name, "Before and after", sections, ("Overview", text, None))[0]


def _save(run, name, title, sections, head) -> tuple[Path, dict[str, str]]:
    folder = run.path / "pictures"
    pictures = {}
    for content, (_, _, figure) in sections.items():
        # Names of layers contain slashes, which would be folders.
        file = f"{name}-{content.replace('/', '-').replace(' ', '-')}.png"
        pictures[content] = str(viz.save(figure, folder / file))
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
    return ("Firing rates", text, viz.redundancy.rate_comparison(rows))


def _shares(report: redundancy.Report) -> dict[str, dict[str, float]]:
    return {name: layer.shares for name, layer in report.layers.items()}


def _distributions(report: redundancy.Report, kind: str) -> dict[str, viz.redundancy.Distribution]:
    found = {name: getattr(layer, kind) for name, layer in report.layers.items()}
    return {
        name: viz.redundancy.Distribution(h.edges, h.counts, h.threshold, h.share_above)
        for name, h in found.items()
    }


def _features(report: redundancy.Report, name: str, title: str):
    layer = report.layers[name]
    features = layer.features
    if features.ndim > 4:  # more than two axes of space are flattened to one
        features = features.reshape(len(features), -1, features.shape[-1])
    return viz.redundancy.spike_features(features, classes=layer.classes, title=title)


def _select_layers(layers: list[Any]) -> list[Any]:
    """Selects some layers, evenly spread."""
    places = np.linspace(0, len(layers) - 1, min(_LAYERS, len(layers))).round().astype(int)
    return [layers[i] for i in np.unique(places)]


_DESCRIPTION = "Wasted activity: firing rates, spike features and input currents by layer."
# The library's rule gives the defaults, so that they are stated once.
_RULE = redundancy.Thresholds()
_OPTIONS = [
    *OPTIONS,
    Option("against", str | None, None, "Run to compare with, before the change."),
    Option("examples", int | None, None, "Number of test examples, evenly spread; None is all."),
    Option("batch", int, 8, "Batch size, in whole recordings; all their spikes are in memory."),
    Option("null_rate", float, _RULE.null_rate, "Mean rate below which a feature is null."),
    Option("noise_rate", float, _RULE.noise_rate, "Rate above which a place is busy."),
    Option("noise_area", float, _RULE.noise_area, "Share of busy places that makes noise."),
]
_QUIET_SECONDS = 5


class _Analysis(NamedTuple):
    run: training.Run
    step: int
    task: Any
    metrics: dict[str, float]
    report: redundancy.Report


def command(arguments: list[str], screen: Screen) -> tuple[dict[str, Any], int]:
    """Analyses a run, or compares two."""
    began = time.perf_counter()
    options = parse("snnjax redundancy", _DESCRIPTION, _OPTIONS, arguments)
    thresholds = _thresholds(options)
    if options.against is not None:
        training.Run.open(options.against)  # fail before the work, not after it
    analysis = _analyse(options, thresholds, screen)
    # The numbers come before the pictures, which take longer.
    _print(analysis, screen)
    page, pictures = write_page(analysis.run, analysis.report, title=_title(analysis))
    fields = {
        **_fields(analysis),
        "thresholds": dataclasses.asdict(thresholds),
        "pictures": pictures,
        "page": str(page),
    }
    screen.say(f"{len(pictures)} pictures in {page.parent}; all of them on one page: {page}")
    if options.against is not None:
        fields |= _compare(options, thresholds, analysis, screen)
    return {**fields, "seconds": round(time.perf_counter() - began, 3)}, 0


def _compare(options, thresholds, after: _Analysis, screen: Screen) -> dict[str, Any]:
    # The same options: both runs are measured on equally many examples, by one rule.
    before = _analyse(dataclasses.replace(options, run=options.against), thresholds, screen)
    _print(before, screen)
    compared = redundancy.compare(before.report, after.report)
    change = compared.nasfr_change
    screen.say(
        f"NASFR {before.report.nasfr:.4f} -> {after.report.nasfr:.4f}"
        + ("" if change is None else f" ({change:+.1f} %)")
        + f", {_metric(before)} -> {_metric(after).split()[-1]}"
    )
    reports = [(_title(one), one.report) for one in (before, after)]
    page = write_comparison(after.run, before.run, reports, compared)
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


def _analyse(options, thresholds: redundancy.Thresholds, screen: Screen) -> _Analysis:
    run, session, state = restore(options, warn=screen.warn)
    sums, metrics = _measure(session, state, options, screen)
    try:
        report = redundancy.report(sums, thresholds=thresholds)
    except ValueError as error:
        raise Failure(f"{run.path}: {error}") from None
    return _Analysis(run, int(state.step), session.task, metrics, report)


def _measure(session: Any, state: training.TrainState, options, screen: Screen):
    """Sums of every layer over the test examples, and metrics on these examples."""
    test, experiment, task = session.dataset.test, session.experiment, session.task
    if test.lengths is not None:
        raise Failure(
            f"{session.dataset.name} has sequences of different lengths, and redundancy compares "
            "timesteps of equal windows: measure an experiment on windows of one length"
        )
    # The accuracy of clips is that of whole recordings.
    unit = task.evaluation_unit
    split = test.take(_example_numbers(len(test), options.examples, unit))
    # In whole recordings: a vote needs all clips of a recording in one batch.
    size = max(min(options.batch, len(split)) // unit, 1) * unit

    def run(state, batch):
        frames = experiment.encode(experiment, batch.inputs, None)
        network = session.program.network(state)
        start = network.initial_state(len(batch.labels))._replace(statistics=state.statistics)
        outputs, aux = network(frames, start, training=False, taps=redundancy.TAPS)
        weights, predictions = batch.weights, task.predict(outputs)
        values = task.evaluation_metrics(predictions, batch.labels)
        # A NaN of a padded example times its weight of 0 would still be NaN.
        values = {n: jnp.sum(jnp.where(weights == 0, 0, v) * weights) for n, v in values.items()}
        return redundancy.measure(aux.taps, weights=weights), values

    screen.say(f"{options.run}: measuring {len(split):,} test examples")
    # One shape of batches, the last one padded, so that the step is compiled once.
    step, sums, totals = jax.jit(run), None, {}
    for batch in _batches(split, size, screen):
        part, values = step(state, batch)
        # Sums over batches, so that spikes of a single batch are in memory.
        sums = redundancy.add(sums, part)
        # As Python floats of 64 bits: a float32 sum over many batches would lose digits.
        totals = {name: totals.get(name, 0.0) + float(value) for name, value in values.items()}
    # `config.load_dataset` refuses a data set without test examples.
    assert sums is not None
    # Summarised once, over all examples: roots of batch means cannot be averaged.
    return sums, task.summary({name: total / len(split) for name, total in totals.items()})


def _example_numbers(total: int, wanted: int | None, unit: int) -> np.ndarray:
    """Numbers of evenly spread test examples, in whole recordings of `unit` clips."""
    # Spread: test sets are often sorted by class.
    recordings = total // unit
    count = recordings if wanted is None else min(math.ceil(wanted / unit), recordings)
    chosen = np.linspace(0, recordings - 1, count).round().astype(int)
    return (chosen[:, None] * unit + np.arange(unit)).ravel()


def _batches(split: data.Split, size: int, screen: Screen) -> Iterator[data.Batch]:
    """Iterates over the batches of a split, and prints progress every few seconds."""
    printed = time.perf_counter()
    for number, batch in enumerate(data.evaluation_batches(split, batch_size=size)):
        yield batch
        # Behind the yield: the caller has measured this batch.
        done = min((number + 1) * size, len(split))
        if time.perf_counter() - printed > _QUIET_SECONDS and done < len(split):
            printed = time.perf_counter()
            screen.say(f"  {done:,} of {len(split):,} examples")


def _title(analysis: _Analysis) -> str:
    return f"{analysis.run.path.name}, step {analysis.step}: {_summary(analysis)}"


def _metric(analysis: _Analysis) -> str:
    """Formats the deciding metric."""
    task = analysis.task
    return f"{task.best} {task.format(task.best, analysis.metrics.get(task.best, math.nan))}"


def _summary(analysis: _Analysis) -> str:
    report, neurons = analysis.report, sum(analysis.report.neurons.values())
    return (
        f"{_metric(analysis)} of {report.examples:,} test examples, "
        f"NASFR {report.nasfr:.4f} over {neurons:,} neurons"
    )


def _print(analysis: _Analysis, screen: Screen) -> None:
    screen.say(f"{analysis.run.path}, step {analysis.step}: {_summary(analysis)}")
    for line in table(analysis.report):
        screen.say(line)


def _fields(analysis: _Analysis) -> dict[str, Any]:
    report = analysis.report
    return {
        "run": str(analysis.run.path),
        "step": analysis.step,
        "examples": report.examples,
        **analysis.metrics,
        "nasfr": report.nasfr,
        "layers": {name: _layer_fields(layer) for name, layer in report.layers.items()},
        "analog_layers": list(report.analog_layers),
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
