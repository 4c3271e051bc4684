"""`snnjax convert RUN --timesteps 8,16,32`: a trained run as a spiking network.

The source is a run whose network has activations of `snnjax.conversion` and whose input is constant
over time. It is converted, evaluated on the test examples at each number of timesteps, and written
as a run of the largest one, which `show`, `eval`, `cost`, `export` and `train --resume` take.

Methods:
    qcfs       trained thresholds of quantised activations
    optimal    largest activations of training examples, or a percentile (Deng and Gu)
    rmp        largest currents of the spiking network, layer by layer (RMP-SNN)

With `--progressive` one layer after the other becomes spiking while the layers behind it train on
(progressive tandem learning). The same command goes on with a conversion that was stopped.

Fields of its JSON object:

    run, source     run of the spiking network, and of its source
    method, recipe  method of the thresholds, and options of the conversion
    source_METRIC   metric of the source, the deciding one of its task
    source_millijoules      its energy at 45 nm, per example
    rows            per number of timesteps: timesteps, METRIC, loss, spikes (per example), rate
                    (spikes per neuron and timestep), millijoules
    layers          per layer, at the largest number of timesteps: name, threshold, activation,
                    total, clipping, quantization, inherited, unevenness, see
                    `conversion.layer_errors`
    pictures        paths of the PNG files, by content
    seconds         duration of the command

and with `--progressive`: run, source, timesteps, metrics (of the networks `source`, `primitive`,
converted without training, and `spiking`), thresholds, epochs (over all stages), interrupted
("SIGINT", "SIGTERM" or "SIGHUP" if stopped, else null; metrics are then empty) and seconds.
"""

from __future__ import annotations

import dataclasses
import functools
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from snnjax import conversion, cost, nn, training, viz
from snnjax.cli import _cache as cache
from snnjax.cli._failures import Failure
from snnjax.cli._options import Option, parse
from snnjax.cli._output import Screen, check_creatable
from snnjax.cli._restore import OPTIONS, restore
from snnjax.cli.cost import measure_examples

__all__ = ["command"]

_DESCRIPTION = "Convert a trained run into a spiking network and evaluate it."
_METHODS = ("qcfs", "optimal", "rmp")
_TIMESTEPS = "4,8,16,32"
_OPTIONS = [
    *OPTIONS,
    Option("timesteps", str, _TIMESTEPS, "Numbers of timesteps; the run is of the largest."),
    Option(
        "method", str | None, None,
        "Thresholds: qcfs (trained), optimal (largest activations), rmp (largest currents); None "
        "is qcfs where all are trained, else optimal.",
    ),
    Option("out", str | None, None, "Run directory; None is RUN-METHOD, numbered if it exists."),
    Option("examples", int, 512, "Training examples of the calibration."),
    Option(
        "percentile", float | None, None,
        "Percentile of activations or currents; None is 100, the largest, 99.9 if progressive.",
    ),
    Option("scale", float, 1.0, "Factor of all thresholds of the method rmp."),
    Option("reset", str, "soft", "Reset: soft keeps the charge above the threshold, or hard."),
    Option("shift", str | None, None, "Half a threshold: initial, step or none; None is initial, "
           "with rmp none."),
    Option("last", str, "linear", "Last layer: linear, or spiking."),
    Option("latency", bool, False, "Fire one timestep late, on the membrane before."),
    Option("counted", int, 64, "Test examples for energy and layer errors."),
    Option("progressive", bool, False, "Train on, layer by layer, for one number of timesteps."),
    Option("epochs", int, 20, "Most epochs of a stage (progressive)."),
    Option("patience", int, 6, "Epochs without improvement that end a stage (progressive)."),
    Option("learning_rate", float, 1e-3, "Learning rate of Adam (progressive)."),
    Option("validation", float, 0.1, "Share of training examples held out (progressive)."),
    Option("image", str, "impulse", "Image as an impulse, or constant over time (progressive)."),
]  # fmt: skip
# Options that progressive learning reads: those of every conversion, and its own.
_OF_ALL = ("run", "timesteps", "out", "percentile", "examples", "no_cache", "progressive")
_PROGRESSIVE = ("epochs", "patience", "learning_rate", "validation", "image")


def command(arguments: list[str], screen: Screen) -> tuple[dict[str, Any], int]:
    """Converts a run."""
    began = time.perf_counter()
    options = parse("snnjax convert", _DESCRIPTION, _OPTIONS, arguments)
    _check(options)
    if options.progressive:
        return _progressive(options, screen, began)
    timesteps = _numbers(options.timesteps)
    recipe = _recipe(options)
    if options.out is not None:
        check_creatable(Path(options.out).parent)
        training.Run.check_free(Path(options.out))
    run, session, state = restore(options, warn=screen.warn)
    source = session.program.network(state)
    method = _method(options, source)
    frames = _frames(session, session.dataset.train, options.examples)
    thresholds = _thresholds(method, options, source, state.statistics, frames, max(timesteps))
    before = session.evaluate(state)
    task = session.task
    energy = _energy(session, state, options.counted)
    screen.say(_line("source", task, before, energy))
    rows, converted = [], None
    for number in timesteps:
        network = _convert(recipe, source, thresholds, state.statistics, number)
        converted = _session(session, recipe, network, number)
        rows.append(_row(*converted, number, options.counted))
        screen.say(_line(f"T = {number}", task, rows[-1][0], rows[-1][1]["millijoules"]))
    assert converted is not None  # at least one number of timesteps
    counted = _frames(session, session.dataset.test, options.counted)
    layers = [
        record._asdict()
        for record in conversion.layer_errors(
            source, counted, thresholds=_needed(recipe, thresholds), timesteps=timesteps[-1],
            statistics=state.statistics, **recipe.options(),
        )
    ]  # fmt: skip
    _print_layers(layers, screen)
    out = _write(options, run, method, recipe, converted)
    # Its thresholds were chosen on these training examples.
    out.write_json("data.json", [{"step": 0, "allowed": False, **session.data_fingerprint()}])
    table = [row for _, row in rows]
    pictures = _draw(out, table, layers, before.metrics[task.best], task)
    screen.say(f"run: {out.path}    snnjax eval {out.path}, snnjax show {out.path}")
    fields = {
        "run": str(out.path),
        "source": str(run.path),
        "method": method,
        "recipe": str(recipe),
        f"source_{task.best}": before.metrics[task.best],
        "source_millijoules": energy,
        "rows": table,
        "layers": layers,
        "pictures": pictures,
        "seconds": round(time.perf_counter() - began, 3),
    }
    out.write_json("conversion.json", fields)
    return fields, 0


def _progressive(options: Any, screen: Screen, began: float) -> tuple[dict[str, Any], int]:
    """Converts layer by layer, with training between."""
    numbers = _numbers(options.timesteps if options.timesteps != _TIMESTEPS else "4")
    if len(numbers) != 1:
        raise Failure("--progressive trains for one number of timesteps, such as --timesteps 4")
    try:
        chosen = training.progressive.Options(
            timesteps=numbers[0],
            epochs=options.epochs,
            patience=options.patience,
            learning_rate=options.learning_rate,
            percentile=99.9 if options.percentile is None else options.percentile,
            validation=options.validation,
            calibration=options.examples,
            image=options.image,
        )
    except ValueError as error:
        raise Failure(str(error)) from None
    source = training.Run.open(options.run)
    out = options.out or f"{source.path}-progressive"
    check_creatable(Path(out).parent)
    cache.enable(on=not options.no_cache, warn=screen.warn)
    experiment = training.config.gradient_experiment(source.experiment())
    task = experiment.task(experiment)
    # From here on a signal ends a stage at a checkpoint.
    screen.listener.patient = True
    result = training.progressive.train(
        source,
        out,
        chosen,
        stop=lambda: screen.listener.number,
        report=functools.partial(_say_stage, screen, task),
        warn=screen.warn,
    )
    name = task.best
    for network, metrics in result.metrics.items():
        screen.say(f"{network:<10} test {name} {task.format(name, metrics[name])}")
    if result.interrupted:
        screen.say(f"stopped in stage {result.progress.stage}: the same command goes on")
    else:
        screen.say(f"run: {out}    snnjax eval {out}, snnjax show {out}")
    number = (screen.listener.number or signal.SIGTERM) if result.interrupted else None
    return {
        "run": str(out),
        "source": str(source.path),
        "timesteps": numbers[0],
        "metrics": result.metrics,
        "thresholds": list(result.progress.thresholds),
        "epochs": result.progress.epoch,
        "interrupted": number and signal.Signals(number).name,
        "seconds": round(time.perf_counter() - began, 3),
    }, 128 + number if number else 0


def _say_stage(screen: Screen, task: Any, record: dict[str, Any]) -> None:
    """Prints a line for a threshold or an epoch of a stage."""
    if record["kind"] == "threshold":
        screen.say(f"stage {record['stage']}: threshold {record['threshold']:.4g}")
    elif record["kind"] == "eval":
        value = task.format(task.best, record[task.best])
        screen.say(
            f"stage {record['stage']}  epoch {record['epoch']:g}  validation {task.best} {value}"
        )


def _numbers(text: str) -> list[int]:
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = [0]
    if numbers[0] < 1:
        raise Failure(f"--timesteps takes numbers from 1 up, such as 4,8,16, got {text!r}")
    return numbers


def _check(options: Any) -> None:
    if options.percentile is not None and not 0 < options.percentile <= 100:
        raise Failure(f"--percentile lies in (0, 100], got {options.percentile:g}")
    if not options.scale > 0:
        raise Failure(f"--scale is positive, got {options.scale:g}")
    for name in ("examples", "counted"):
        if getattr(options, name) < 1:
            raise Failure(f"--{name} must be at least 1, got {getattr(options, name)}")
    _refuse_idle(options)


def _refuse_idle(options: Any) -> None:
    """Refuses an option that the chosen conversion does not read."""
    for option in _OPTIONS:
        own = option.name in _PROGRESSIVE
        read = own or option.name in _OF_ALL if options.progressive else not own
        if not read and getattr(options, option.name) != option.default:
            where = "leave out --progressive" if options.progressive else "add --progressive"
            flag = option.name.replace("_", "-")
            raise Failure(f"--{flag} has no effect here: {where}, or this option")


def _recipe(options: Any) -> conversion.Recipe:
    shift = options.shift or ("none" if options.method == "rmp" else "initial")
    try:
        return conversion.Recipe(
            reset=options.reset, shift=shift, last=options.last, latency=options.latency
        )
    except ValueError as error:
        raise Failure(str(error)) from None


def _method(options: Any, source: nn.Network) -> str:
    """Method of the thresholds; the default depends on the activations."""
    trained = all(layer.bound() is not None for layer in _activations(source).values())
    method = options.method or ("qcfs" if trained else "optimal")
    if method not in _METHODS:
        raise Failure(f"--method is one of {', '.join(_METHODS)}, not {method!r}")
    if method == "qcfs" and not trained:
        raise Failure(
            "the method qcfs takes trained thresholds, and this network has activations without: "
            "choose --method optimal, or train with neuron=conversion.QCFS"
        )
    # An option without an effect would be taken for one.
    if options.scale != 1 and method != "rmp":
        raise Failure(f"--scale belongs to --method rmp, and this is {method}: leave it out")
    if options.percentile is not None and method == "qcfs":
        raise Failure("--percentile belongs to measured thresholds, and those of qcfs are trained")
    return method


def _activations(source: nn.Network) -> dict[str, Any]:
    """Activations by name; refuses a network that does not convert."""
    try:
        # With weights of no meaning, so that a layer that does not convert is named at once.
        conversion.Recipe().structure(source)
        found = conversion.activation_names(source)
    except ValueError as error:
        raise Failure(str(error)) from None
    if not found:
        raise Failure("this network has no activations: there is nothing to convert")
    return found


def _frames(session: Any, split: Any, number: int) -> jax.Array:
    """One frame of some examples, evenly spread, `[B, ...]`; it must be constant over time."""
    places = np.unique(np.linspace(0, len(split) - 1, min(number, len(split))).round().astype(int))
    experiment = session.experiment
    encode = jax.jit(lambda inputs: experiment.encode(experiment, inputs, None))
    with training.errors.user_code("encode(experiment, inputs, key)"):
        frames = encode(split.take(places).inputs)
    if not bool(jnp.all(frames == frames[:1])):
        raise Failure(
            "the frames of this experiment change over time, and a rate stands for a constant "
            "input: encode by encoding.direct(images, timesteps=experiment.timesteps)"
        )
    return frames[0]


def _thresholds(method, options, source, statistics, frames, timesteps: int) -> dict[str, Any]:
    percentile = 100.0 if options.percentile is None else options.percentile
    if method == "rmp":
        return conversion.spiking_thresholds(
            source, frames, timesteps=timesteps, statistics=statistics,
            percentile=percentile, scale=options.scale,
        )  # fmt: skip
    if method == "qcfs" and options.last == "linear":
        return {}
    # Also for trained thresholds: the last layer has none.
    found = conversion.calibrate(source, [frames], statistics=statistics, percentile=percentile)
    return {"outputs": found["outputs"]} if method == "qcfs" else found


def _convert(recipe, source, thresholds, statistics, timesteps: int) -> nn.Network:
    try:
        return recipe.convert(
            source, _needed(recipe, thresholds), statistics=statistics, timesteps=timesteps
        )
    except ValueError as error:
        raise Failure(str(error)) from None


def _needed(recipe: conversion.Recipe, thresholds: dict[str, Any]) -> dict[str, Any]:
    """The thresholds of the neurons that the spiking network has."""
    own = thresholds.items()
    return {k: v for k, v in own if k != "outputs" or recipe.last == "spiking"}


def _session(source: Any, recipe: Any, network: nn.Network, timesteps: int):
    """Session of the spiking network on the data of the source's, and its state."""
    spiking = training.converted.spiking_experiment(source.experiment, recipe, timesteps=timesteps)
    # Loaded once for all numbers of timesteps: decoding a set of images may take a minute.
    loaded = dataclasses.replace(spiking, dataset=lambda experiment: source.dataset)
    session = training.prepare(loaded, training=False, rates=True)
    _check_timesteps(session, timesteps)
    # Batch norms are folded: nothing has statistics.
    state = training.converted.with_values(session.state, network, session.state.statistics)
    return session, state


def _check_timesteps(session: Any, timesteps: int) -> None:
    experiment = session.experiment
    one = session.dataset.test.take(np.arange(1)).inputs
    frames = jax.eval_shape(lambda inputs: experiment.encode(experiment, inputs, None), one)
    if frames.shape[0] != timesteps:
        raise Failure(
            f"encode(experiment, inputs, key) gives {frames.shape[0]} frames for timesteps="
            f"{timesteps}: encode by encoding.direct(images, timesteps=experiment.timesteps)"
        )


def _energy(session: Any, state: Any, examples: int) -> float:
    found, _ = measure_examples(session.program, state, session.dataset, examples, trained=True)
    return cost.energy(found).millijoules


def _row(session: Any, state: Any, timesteps: int, examples: int):
    """Evaluation of a spiking network, and its row of the table."""
    found = session.evaluate(state)
    best = session.task.best
    spikes = sum(found.rates[name] * found.neurons[name] for name in found.rates) * timesteps
    return found, {
        "timesteps": timesteps,
        best: found.metrics[best],
        "loss": found.loss,
        "spikes": spikes,
        "rate": found.nasfr,
        "millijoules": _energy(session, state, examples),
    }


def _line(name: str, task: Any, found: Any, energy: float) -> str:
    metric = task.format(task.best, found.metrics[task.best])
    rate = "" if found.nasfr is None else f"  {found.nasfr:.4f} spikes per neuron and timestep"
    return f"{name:<8}  {task.best} {metric}  loss {found.loss:.4f}  {energy:.3g} mJ{rate}"


def _print_layers(layers: Sequence[dict[str, Any]], screen: Screen) -> None:
    width = max(len(row["name"]) for row in layers)
    _, *names = layers[0]
    titles = ("error" if name == "total" else name for name in names)
    screen.say(f"{'layer':<{width}}" + "".join(f"  {title:>12}" for title in titles))
    for row in layers:
        numbers = "".join(f"  {row[name]:>12.3g}" for name in names)
        screen.say(f"{row['name']:<{width}}{numbers}")


def _write(
    options: Any, run: training.Run, method: str, recipe: Any, converted: Any
) -> training.Run:
    """Writes the run of the spiking network."""
    session, state = converted
    path = run.path.with_name(f"{run.path.name}-{method}") if options.out is None else options.out
    call = (
        "training.converted.spiking_experiment(source(), "
        f"conversion.{recipe!r}, timesteps={session.experiment.timesteps})"
    )
    text = training.converted.experiment_text(run.source.read_text(encoding="utf-8"), call)
    out = training.Run.create(path, session.experiment, text, numbered=options.out is None)
    training.checkpoints.save(out.checkpoints, state)
    return out


def _draw(out: training.Run, rows, layers, source: float, task: Any) -> dict[str, str]:
    folder = out.path / "pictures"
    folder.mkdir(exist_ok=True)
    figures = {
        "timesteps": viz.conversion.metric_over_timesteps(rows, source=source, metric=task.best),
        "layer_errors": viz.conversion.layer_errors(layers),
    }
    return {name: str(viz.save(figure, folder / f"{name}.png")) for name, figure in figures.items()}
