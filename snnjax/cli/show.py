"""`snnjax show RUN`: pictures of one test example in the network, and of the training.

Of a network that learned by plasticity, the receptive fields of its neurons instead.

Fields of its JSON object:

    run, step       the run directory, and the step of the checkpoint
    pictures        paths of the PNG files, by what they show
    page            path of one HTML page with all of them, that needs no other file
    firing_rates    layer to spikes per neuron and timestep over the examples looked at; null where
                    plasticity learned
    seconds         from the start of the command to its end
"""

from __future__ import annotations

import time
from typing import Any

import jax
import numpy as np

from snnjax import metrics, plasticity, training, viz
from snnjax.cli.options import Option, parse
from snnjax.cli.output import Screen
from snnjax.cli.restore import OPTIONS, restore
from snnjax.nn import in_order

__all__ = ["command"]

_LAYERS = 8  # deeper networks show some of theirs, evenly spread
_EXAMPLES = 64  # that firing rates are measured on
_OPTIONS = [*OPTIONS, Option("example", int, 0, "Which test example to look at.")]

_TEXTS = {
    "learning_curve": "Loss and accuracy per epoch, of the training examples as they were met and "
    "of all test examples.",
    "firing_rates": "Share of neurons that fire per timestep. A layer at 0 is dead; one near 1 "
    "says nothing by when it fires.",
    "receptive_fields": "The weights of each neuron, laid out as its input; darker is stronger.",
    "raster": "Each row is a neuron, each mark a spike.",
    "membrane": "Membrane potential of some neurons after the reset. Triangles mark spikes.",
}


def command(arguments: list[str], screen: Screen) -> tuple[dict[str, Any], int]:
    """Draws a run."""
    began = time.perf_counter()
    told = "Pictures of a run: rasters, membranes, firing rates, learning curve."
    options = parse("snnjax show", told, _OPTIONS, arguments)
    run, session, state = restore(options, warn=screen.warn, plastic=True)
    if isinstance(session.program, training.Learner):
        sections, rates = _learned(run, session, state), None
    else:
        taps, rates, label = _look(session, state, options.example)
        sections = _sections(run, taps, rates, f"test example {options.example}, a {label}")
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


def _look(session: training.Session, state: training.TrainState, example: int):
    """Taps of every layer `{layer: {kind: [T, N]}}` for one example, firing rates, its class."""
    test = session.dataset.test
    # The example first, then the ones after it; an example that is not there wraps round.
    places = (np.arange(min(_EXAMPLES, len(test))) + example) % len(test)
    batch = test.take(places)

    def run(state, inputs):
        frames = session.experiment.encode(session.experiment, inputs, None)
        network = session.program.network(state)
        start = network.initial_state(len(places))._replace(statistics=state.statistics)
        _, aux = network(frames, start, training=False, taps=("spikes", "membrane"))
        one = jax.tree.map(lambda x: x[:, 0].reshape(len(x), -1), aux.taps)
        return one, metrics.firing_rates({k: v["spikes"] for k, v in aux.taps.items()})

    taps, rates = (in_order(found) for found in jax.device_get(jax.jit(run)(state, batch.inputs)))
    spiking = {name for name, kinds in taps.items() if np.isin(kinds["spikes"], (0, 1)).all()}
    label = session.dataset.class_names[int(batch.labels[0])]
    return taps, {k: float(v) for k, v in rates.items() if k in spiking}, label


def _learned(run: training.Run, session: training.Session, state: training.TrainState):
    """Heading, text and figure of each picture of a network that learned by plasticity."""
    learner = session.program
    sections = _learning(run)
    height, width, channels = (*session.dataset.input_shape, 1, 1)[:3]
    if channels == 1 and height * width == learner.network.inputs:
        weights = plasticity.float_weights(learner.network, state.params["weights"])
        figure = viz.receptive_fields(weights, (height, width))
        text = _TEXTS["receptive_fields"]
        sections["receptive_fields"] = ("Receptive fields", text, figure)
    return sections


def _learning(run: training.Run) -> dict[str, tuple[str, str, Any]]:
    """The learning curve, where there are records."""
    if not (records := run.records()):
        return {}
    curve = viz.learning_curve(records)
    return {"learning_curve": ("Learning", _TEXTS["learning_curve"], curve)}


def _sections(run: training.Run, taps, rates, what: str) -> dict[str, tuple[str, str, Any]]:
    """Heading, text and figure of each picture, by name."""
    sections = _learning(run)
    if rates:
        figure = viz.firing_rates(rates)
        sections["firing_rates"] = ("Firing rates", _TEXTS["firing_rates"], figure)
    names = list(taps)
    chosen = np.unique(np.linspace(0, len(names) - 1, min(_LAYERS, len(names))).round().astype(int))
    for name in (names[i] for i in chosen):
        spikes, membrane = taps[name]["spikes"], taps[name]["membrane"]
        spiking = name in rates
        if spiking:
            figure = viz.raster(spikes, title=name)
            sections[f"raster {name}"] = (f"Spikes of {name}: {what}", _TEXTS["raster"], figure)
        figure = viz.membranes(membrane, spikes=spikes if spiking else None, title=name)
        sections[f"membrane {name}"] = (f"Membranes of {name}: {what}", _TEXTS["membrane"], figure)
    return sections
