"""`snnjax fspinn search EXPERIMENT.py --grid "neurons=100,400 bits=8,32" [--max-bytes 1MB] ...`.

Every combination of the grid is a candidate. Its bytes are known in advance; if they fit the
budget, its energy is estimated on a few training examples. Candidates over a budget are discarded
without training. The others are trained, each in its own run directory under --out; after an
interruption the same command resumes. The reward selects a candidate (`cost.selection`), and a
picture shows the Pareto front.

Fields of its JSON object:

    name, out           name of the experiment, and folder of the runs
    candidates          per combination: name, fields, bytes, inference and training (nanojoules per
                        example, null if over the budget of bytes), accuracy (null if discarded),
                        discarded (reason, or null), front, chosen
    chosen              name of the candidate with the highest reward, or null if none fits
    picture             path of the picture, or null
    seconds             duration of the command
"""

from __future__ import annotations

import functools
import itertools
import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from snnjax import cost, data, training, viz
from snnjax.cli import _cache as cache
from snnjax.cli._experiment_args import experiment_path, parse_fields
from snnjax.cli._failures import Failure, Interrupted
from snnjax.cli._options import REQUIRED, Option, parse
from snnjax.cli._output import Screen, read_size, spell_size
from snnjax.cli._progress import progress

__all__ = ["command"]

_DESCRIPTION = (
    "Train networks that learn by plasticity within budgets of bytes and energy; choose one."
)
_OPTIONS = [
    Option("grid", str, REQUIRED, 'Fields and their values: "neurons=100,400 bits=8,32".'),
    Option("max_bytes", str | None, None, "Budget of synapse bytes, such as 1MB."),
    Option("max_inference", float | None, None, "Budget of nanojoules per example in inference."),
    Option("max_training", float | None, None, "Budget of nanojoules per example in training."),
    Option("bytes_weight", float, 0.0, "Accuracy worth the whole budget of bytes."),
    Option("energy_weight", float, 0.0, "Accuracy worth the whole budget of energy."),
    Option("examples", int, 50, "Training examples for the estimate of the energy."),
    Option("out", str, "runs/search", "Folder of the runs; existing runs are resumed."),
    cache.OPTION,
]


def command(arguments: list[str], screen: Screen) -> tuple[dict[str, Any], int]:
    """Searches the grid and trains its candidates."""
    began = time.perf_counter()
    if not arguments or arguments[0] != "search":
        raise Failure(
            "the only form is snnjax fspinn search EXPERIMENT.py --grid ..."
            + (f", not {arguments[0]!r}" if arguments else "")
        )
    path, rest = experiment_path(arguments[1:])
    # Fields are options as well, but without an experiment none are known.
    if path is None and {"--help", "-h"} & set(rest):
        parse("snnjax fspinn search EXPERIMENT.py", _DESCRIPTION, _OPTIONS, ["--help"])
    if path is None:
        raise Failure("the experiment is missing: snnjax fspinn search EXPERIMENT.py --grid ...")
    experiment = training.config.load_experiment(path)
    training.config.check_learning(experiment, "plasticity")
    options, changed = parse_fields("fspinn search", _DESCRIPTION, experiment, _OPTIONS, rest)
    experiment = training.config.override(experiment, changed)
    # Checks every value, before the first candidate is simulated.
    grid = _grid(options.grid, experiment)
    most = read_size(options.max_bytes) if options.max_bytes else None
    budgets = cost.selection.Budgets(most, options.max_inference, options.max_training)
    cache.enable(on=not options.no_cache, warn=screen.warn)
    rows = _estimate(experiment, grid, budgets, options.examples, screen)
    # Each run keeps a copy of the file, so that it can be resumed without the original.
    source = path.read_text(encoding="utf-8")
    for row in rows:
        if row["discarded"] is None:
            row["accuracy"] = _train(row, Path(options.out), source, screen)
    picture = _conclude(rows, budgets, options, screen)
    # An experiment holds functions, which JSON cannot express.
    candidates = [{k: v for k, v in row.items() if k != "experiment"} for row in rows]
    return {
        "name": experiment.name,
        "out": options.out,
        "candidates": candidates,
        "chosen": next((row["name"] for row in rows if row["chosen"]), None),
        "picture": picture,
        "seconds": round(time.perf_counter() - began, 3),
    }, 0 if any(row["chosen"] for row in rows) else 1


def _grid(text: str, experiment: Any) -> list[dict[str, Any]]:
    """Fields of every combination of the values."""
    known, axes = training.config.plain_fields(experiment), {}
    for part in text.split():
        name, _, values = part.partition("=")
        if name not in known or not values:
            raise Failure(
                f"--grid {part!r}: write field=value,value; the fields are {', '.join(known)}"
            )
        axes[name] = [_value(v, name, experiment) for v in values.split(",")]
    if not axes:
        raise Failure('--grid is empty: write "neurons=100,400 bits=8,32"')
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _value(text: str, name: str, experiment: Any) -> Any:
    """Parses a value as JSON, or else takes the text."""
    try:
        # Python writes booleans with a capital, JSON does not: both are accepted.
        value = json.loads(text.lower() if text in ("True", "False") else text)
    except ValueError:
        # Text that is no JSON is the value of a field of type str.
        value = None if text == "None" else text
    try:
        training.config.check(training.config.override(experiment, {name: value}))
    except training.errors.ExperimentError as error:
        raise Failure(f"--grid {name}={text}: {error}") from error
    return value


def _estimate(experiment, grid, budgets, examples, screen) -> list[dict[str, Any]]:
    """Row of each candidate: bytes, energy on a few examples, reason if discarded."""
    if examples < 1:
        raise Failure(f"--examples must be at least 1, got {examples}")
    dataset = training.config.load_dataset(experiment)
    few = dataset.train.take(np.arange(min(examples, len(dataset.train))))
    # One batch of all examples: a step of plasticity ignores the weights of padding.
    batch = next(data.evaluation_batches(few, batch_size=len(few)))
    screen.say(f"{experiment.name}: {len(grid)} candidates")
    rows = []
    for fields in grid:
        candidate = training.config.override(experiment, fields)
        name = " ".join(f"{k}={v}" for k, v in fields.items())
        row = _candidate(name, candidate, batch, dataset.classes, budgets)
        rows.append({**row, "fields": fields, "experiment": candidate})
        screen.say(_line(row))
    return rows


def _candidate(name, experiment, batch, classes, budgets) -> dict[str, Any]:
    """Bytes of a candidate, its energies if the bytes fit, and the reason if discarded."""
    program, state = training.unsupervised.initialize(experiment, classes=classes)
    found = cost.selection.Candidate(
        name, cost.unsupervised.synapse_bytes(program.network), 0.0, 0.0
    )
    # Bytes need no simulation: candidates over that budget cost nothing.
    if why := cost.selection.check_budgets(found, budgets):
        return {**found._asdict(), "inference": None, "training": None, "discarded": why}
    inference, trained = _energies(program, state, batch)
    found = found._replace(inference=inference, training=trained)
    return {**found._asdict(), "discarded": cost.selection.check_budgets(found, budgets)}


def _line(row) -> str:
    """Line about a candidate before training."""
    parts = [spell_size(row["bytes"])]
    if row["inference"] is not None:
        parts += [f"{row[kind]:,.0f} nJ in {kind}" for kind in ("inference", "training")]
    why = f": discarded, {row['discarded']}" if row["discarded"] else ""
    return f"  {row['name']}: {', '.join(parts)}{why}"


def _energies(program, state, batch) -> tuple[float, float]:
    """Nanojoules per example in inference and in training, measured on a few examples."""
    experiment = program.experiment
    rates = experiment.encode(experiment, batch.inputs, None)
    few = len(batch.labels)
    # The training step: weight updates are a part of the energy of training.
    step = jax.jit(functools.partial(training.unsupervised.train_step, program))
    # Without the new state: the training of a candidate starts from its initial one.
    metrics = jax.device_get(step(state, batch)[1])
    found = cost.unsupervised.plasticity_cost(
        program.network,
        input_spikes=float(rates.sum()) / few * program.network.timesteps,
        spikes=float(metrics.spikes),
        weight_updates=float(metrics.weight_updates),
        showings=float(metrics.showings),
    )
    return found.inference.nanojoules, found.training.nanojoules


def _train(row, out: Path, source: str, screen: Screen) -> float:
    """Trains a candidate, or resumes its run, and returns its test accuracy."""
    experiment, listener = row["experiment"], screen.listener
    # A slash in a value would open a folder inside the folder.
    folder = out / row["name"].replace(" ", "-").replace("/", "-")
    # Loading and compiling end at once on a signal; training polls it and saves.
    listener.patient = False
    session = training.prepare(experiment)
    if (folder / "config.json").is_file():
        run = training.Run.open(folder)
        # A folder is found by the name of its candidate, which holds the fields of the grid only.
        if run.config() != training.config.plain_values(experiment):
            raise Failure(
                f"{folder} was trained with other fields: give another --out, or the same ones"
            )
    else:
        run = training.Run.create(folder, experiment, source)
    screen.say(f"{row['name']}: {session.steps:,} steps, {run.path}")
    listener.patient = True
    with progress(screen, session) as report:
        result = training.fit(
            session, run, stop=lambda: listener.number, report=report, warn=screen.warn
        )
    # Also after the last step: a signal there asks not to go on with the next candidate.
    if listener.number is not None:
        screen.say("the same command resumes")
        # `fit` has saved this candidate; the next call resumes it and trains the others.
        raise Interrupted(listener.number)
    assert result.evaluation is not None
    screen.say(f"{row['name']}: test accuracy {result.evaluation.accuracy:.2%}")
    return result.evaluation.accuracy


def _conclude(rows, budgets, options, screen: Screen) -> str | None:
    """Marks the Pareto front and the choice in the rows, and draws them."""
    trained = [row for row in rows if row["accuracy"] is not None]
    # Discarded candidates have no accuracy, so neither front nor choice can contain them.
    measured = [
        cost.selection.Candidate(*(row[k] for k in cost.selection.Candidate._fields))
        for row in trained
    ]
    best = {candidate.name for candidate in cost.selection.pareto_front(measured)}
    mark = None
    if measured:
        weights = {"bytes_weight": options.bytes_weight, "energy_weight": options.energy_weight}
        mark = cost.selection.choose(measured, budgets=budgets, **weights).name
    for row in rows:
        row.update(front=row["name"] in best, chosen=row["name"] == mark)
    if mark is None:
        screen.say("every candidate is over a budget: nothing was trained")
        return None
    picture = viz.save(
        viz.plasticity.trade_off(rows, title="accuracy and bytes"), Path(options.out) / "search.png"
    )
    screen.say(f"chosen: {mark}, on the Pareto front; picture: {picture}")
    return str(picture)
