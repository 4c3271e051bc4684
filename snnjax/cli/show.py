"""`snnjax show RUN`: pictures of the training, and of the network's activity on a test example.

A network that learned by plasticity shows receptive fields of its neurons instead of activity, a
regression also its predictions against the targets, and a task per timestep its predictions over
time.

Fields of its JSON object:

    run, step       run directory, and step of the checkpoint
    pictures        paths of the PNG files, by content
    page            path of a self-contained HTML page with all pictures
    firing_rates    layer to spikes per neuron and timestep over some test examples; null for
                    plasticity
    seconds         duration of the command
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from snnjax import data, metrics, training, viz
from snnjax.cli._options import Option, parse
from snnjax.cli._output import Screen
from snnjax.cli._restore import OPTIONS, restore
from snnjax.nn.taps import in_order

__all__ = ["command"]

_LAYERS = 8  # of deeper networks, evenly spread
_EXAMPLES = 64  # for firing rates
_PREDICTIONS = 1_000  # test examples whose predictions are drawn
_DESCRIPTION = "Pictures of a run: rasters, membranes, firing rates, learning curve."
_OPTIONS = [*OPTIONS, Option("example", int, 0, "Number of the test example.")]

_TEXTS = {
    "learning_curve": "Loss and the deciding metric per epoch, of the training examples during "
    "training and of all test examples.",
    "firing_rates": "Share of neurons that fire per timestep. A layer at 0 is dead; near 1 its "
    "spike times carry no information.",
    "predictions": "Prediction against target of test examples; on the diagonal they are equal.",
    "predictions_over_time": "Prediction and target at every timestep of one example; of labels "
    "that do not exclude each other the probability.",
    "classes_over_time": "Class with the largest output and label at every timestep of one "
    "example; wrong answers are marked.",
    "receptive_fields": "Weights of each neuron, laid out as its input; darker is stronger.",
    "raster": "Each row is a neuron, each mark a spike.",
    "membrane": "Membrane potential of some neurons after the reset. Triangles mark spikes.",
}

_HEADINGS = {
    "predictions_over_time": "Predictions over time",
    "classes_over_time": "Classes over time",
}


def command(arguments: list[str], screen: Screen) -> tuple[dict[str, Any], int]:
    """Draws the pictures of a run."""
    began = time.perf_counter()
    options = parse("snnjax show", _DESCRIPTION, _OPTIONS, arguments)
    run, session, state = restore(options, warn=screen.warn, gradients=False)
    draw = {"gradients": _network_sections, "plasticity": _plasticity_sections}
    sections, rates = draw[session.experiment.learns_by](
        run, session, state, options.example, screen.warn
    )  # fmt: skip
    folder = run.path / "pictures"
    folder.mkdir(exist_ok=True)
    pictures = {}
    for name, (_, _, figure) in sections.items():
        file = f"{name.replace('/', '-').replace(' ', '-')}.png"
        pictures[name] = str(viz.save(figure, folder / file))
    title = f"{session.experiment.name}, step {int(state.step)}"
    page = folder / "index.html"
    page.write_text(viz.page(title, list(sections.values())), encoding="utf-8")
    screen.say(f"{len(pictures)} pictures in {folder}; all of them on one page: {page}")
    return {
        "run": str(run.path),
        "step": int(state.step),
        "pictures": pictures,
        "page": str(page),
        "firing_rates": rates,
        "seconds": round(time.perf_counter() - began, 3),
    }, 0


def _network_sections(
    run: training.Run,
    session: Any,
    state: training.TrainState,
    example: int,
    warn: Callable[[str], None],
):
    """Heading, text and figure of each picture of a layered network, by name; firing rates."""
    outputs, taps, rates = _taps(session, state, example)
    label, dataset = f"test example {example}", session.dataset
    if dataset.classes and dataset.test.labels.ndim == 1:
        number = dataset.test.labels[example % len(dataset.test)]
        label = f"{label}, a {dataset.class_names[int(number)]}"
    sections = _learning_section(run, session, warn)
    if not (dataset.classes or isinstance(session.task, training.task.MultiLabel)):
        predictions, targets = _predictions(session, state)
        figure = viz.predictions(predictions, targets)
        sections["predictions"] = ("Predictions", _TEXTS["predictions"], figure)
    if getattr(session.task, "per_timestep", False):
        name, figure = _course(session, outputs, example)
        sections[name] = (f"{_HEADINGS[name]}: {label}", _TEXTS[name], figure)
    return sections | _layer_sections(taps, rates, label), rates


def _taps(session: Any, state: training.TrainState, example: int):
    """Outputs `[T, K]` and taps `{layer: {kind: [T, N]}}` of one example, and firing rates."""
    test = session.dataset.test
    # The example comes first, then its successors; numbers past the end wrap around.
    places = (np.arange(min(_EXAMPLES, len(test))) + example) % len(test)
    # Rates of one example would be noisy; the pictures show the first.
    batch = test.take(places)

    def run(state, inputs, lengths):
        frames = session.experiment.encode(session.experiment, inputs, None)
        network = session.program.network(state)
        start = network.initial_state(len(places))._replace(statistics=state.statistics)
        outputs, aux = network(
            frames, start, training=False, taps=("spikes", "membrane"), lengths=lengths
        )
        one = jax.tree.map(lambda x: x[:, 0].reshape(len(x), -1), aux.taps)
        spikes = {k: v["spikes"] for k, v in aux.taps.items()}
        return outputs[:, 0], one, metrics.firing_rates(spikes, lengths=lengths)

    outputs, taps, rates = jax.device_get(jax.jit(run)(state, batch.inputs, batch.lengths))
    if batch.lengths is not None:
        # Without its padding.
        outputs, taps = jax.tree.map(lambda x: x[: batch.lengths[0]], (outputs, taps))
    # Real-valued outputs, as of a readout, have no firing rate.
    rates = {k: float(v) for k, v in in_order(rates).items() if not np.isnan(v)}
    return outputs, in_order(taps), rates


def _predictions(session: Any, state: training.TrainState) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and targets `[N, D]` of the first test examples, timesteps as examples."""
    experiment, task, test = session.experiment, session.task, session.dataset.test
    # More points would cover each other.
    chosen = test.take(np.arange(min(_PREDICTIONS, len(test))))

    @jax.jit
    def predict(state, inputs, lengths):
        frames = experiment.encode(experiment, inputs, None)
        network = session.program.network(state)
        start = network.initial_state(len(inputs))._replace(statistics=state.statistics)
        outputs = network(frames, start, training=False, lengths=lengths)[0]
        predictions = task.predict(outputs, lengths=lengths)
        # A task per timestep predicts [T, B, D], and its targets are [B, T, D].
        return predictions if predictions.ndim == 2 else predictions.swapaxes(0, 1)

    found, size = [], session.evaluation_loader.batch_size
    for batch in data.evaluation_batches(chosen, batch_size=size):
        found.append(np.asarray(predict(state, batch.inputs, batch.lengths)))
    targets = chosen.labels
    predictions = np.concatenate(found)[: len(targets)]
    if chosen.lengths is not None and targets.ndim == 3:
        valid = np.arange(targets.shape[1]) < chosen.lengths[:, None]
        return predictions[valid], targets[valid]
    return predictions.reshape(-1, targets.shape[-1]), targets.reshape(-1, targets.shape[-1])


def _course(session: Any, outputs: np.ndarray, example: int) -> tuple[str, Any]:
    """Name and figure of the predictions at every timestep of an example, beside its targets."""
    dataset = session.dataset
    targets = dataset.test.labels[example % len(dataset.test)][: len(outputs)]
    if isinstance(session.task, training.task.Classification):
        figure = viz.classes_over_time(outputs.argmax(-1), targets, names=dataset.class_names)
        return "classes_over_time", figure
    if isinstance(session.task, training.task.MultiLabel):
        outputs = 1 / (1 + np.exp(-outputs))
    return "predictions_over_time", viz.predictions_over_time(outputs, targets)


def _plasticity_sections(
    run: training.Run,
    session: Any,
    state: training.TrainState,
    example: int,
    warn: Callable[[str], None],
):
    """Heading, text and figure of each picture of a network that learned by plasticity."""
    del example
    network = session.program.network
    sections = _learning_section(run, session, warn)
    # Only inputs that are images have a field to draw.
    height, width, channels = (*session.dataset.input_shape, 1, 1)[:3]
    if channels == 1 and height * width == network.inputs:
        weights = network.float_weights(state.params["weights"])
        figure = viz.plasticity.receptive_fields(weights, (height, width))
        text = _TEXTS["receptive_fields"]
        sections["receptive_fields"] = ("Receptive fields", text, figure)
    return sections, None


def _learning_section(
    run: training.Run, session: Any, warn: Callable[[str], None]
) -> dict[str, tuple[str, str, Any]]:
    """Section of the learning curve; empty without records."""
    records = [record for record in run.records(warn=warn) if "epoch" in record]
    if not any(record["kind"] in ("train", "eval") for record in records):
        return {}
    task = session.task
    curve = viz.learning_curve(records, metric=task.best, lowest=task.lowest)
    return {"learning_curve": ("Learning", _TEXTS["learning_curve"], curve)}


def _layer_sections(taps, rates, label: str) -> dict[str, tuple[str, str, Any]]:
    """Sections of firing rates, and of spikes and membranes of some layers."""
    sections = {}
    if rates:
        figure = viz.firing_rates(rates)
        sections["firing_rates"] = ("Firing rates", _TEXTS["firing_rates"], figure)
    # A deep network would fill a page with hundreds of rasters.
    names = list(taps)
    chosen = np.unique(np.linspace(0, len(names) - 1, min(_LAYERS, len(names))).round().astype(int))
    for name in (names[i] for i in chosen):
        spikes, membrane = taps[name]["spikes"], taps[name]["membrane"]
        spiking = name in rates
        if spiking:
            figure = viz.raster(spikes, title=name)
            sections[f"raster {name}"] = (f"Spikes of {name}: {label}", _TEXTS["raster"], figure)
        figure = viz.membranes(membrane, spikes=spikes if spiking else None, title=name)
        sections[f"membrane {name}"] = (f"Membranes of {name}: {label}", _TEXTS["membrane"], figure)
    return sections
