"""`snnjax train [EXPERIMENT.py] [--field value ...]`.

    snnjax train other.py --init-from runs/x --freeze "body.*" --head new

starts from the weights and running statistics of a run, with a new last layer, which alone learns.

Fields of its JSON object:

    name, run               name of the experiment, and run directory
    test_accuracy           share of right answers on the test examples after the last step, in
                            [0, 1]; other tasks have test_NAME for each of their metrics
    test_loss               mean loss on the test examples
    firing_rates            layer to spikes per neuron and timestep on the test examples, after the
                            last step, for layers that spike
    nasfr                   mean of these rates over all neurons, see `metrics.nasfr`; null if
                            nothing spikes
    best_test_accuracy      best of all evaluations (selected on the test set, so optimistic); other
                            tasks have best_test_NAME for their deciding metric
    best_step               step of that evaluation
    steps, epochs           updates, and passes over the training examples
    parameters              number of learned parameters
    train_seconds           time in the training loop, with evaluations and checkpoints, without
                            compilation, over all sessions of the run
    compile_seconds         time spent on compiling in this session
    seconds                 duration of the command
    device                  kind of device
    bytes_per_device        bytes of the state and of the temporary arrays of a training step
    mesh, processes         sizes of the axes, and number of processes
    initialization          weights taken from another run (--init-from), as in its
                            initialization.json; null if all were drawn
    profile                 folder of the trace of --profile, else null
    other_data              steps after which training went on with other data (--other-data)
    interrupted             "SIGINT", "SIGTERM" or "SIGHUP" if stopped, else null; metrics,
                            test_loss, firing_rates and nasfr are then null, unless this step was
                            evaluated
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax

from snnjax import default_experiment, training
from snnjax.cli import _cache as cache
from snnjax.cli._devices import HOSTS, MESH, check_same_fields, connect, describe_mesh, parse_mesh
from snnjax.cli._experiment_args import experiment_path, parse_fields
from snnjax.cli._failures import Failure
from snnjax.cli._options import Option, peek
from snnjax.cli._output import Screen, check_creatable, spell_size
from snnjax.cli._progress import clock, progress
from snnjax.cli.evaluate import spell_metrics

__all__ = ["command"]

_OPTIONS = [
    Option(
        "out", str | None, None, "Run directory; None is runs/NAME-SEED, numbered if it exists."
    ),
    Option("resume", str | None, None, "Run directory to resume."),
    Option(
        "other_data",
        bool,
        False,
        "Resume on other data than before; test examples may then have been trained on.",
    ),
    Option(
        "profile", bool, False, "Trace some steps into RUN/profile, for TensorBoard or Perfetto."
    ),
    MESH,
    *HOSTS,
    cache.OPTION,
    Option("keep_pages", bool, False, "Keep freed memory for the next step (faster on a CPU)."),
]


class _Plan(NamedTuple):
    experiment: Any
    source: str
    options: Any
    resumed: training.Run | None


def command(arguments: list[str], screen: Screen) -> tuple[dict[str, Any], int]:
    """Trains a network, or resumes training."""
    began = time.perf_counter()
    plan = _plan(arguments, screen)
    # Before JAX computes anything: malloc takes the setting for later allocations only.
    if plan.options.keep_pages and not training.keep_pages():
        screen.warn("--keep-pages needs Linux with glibc: freed memory is given back as usual")
    # JAX's runtime has to know all processes before any of them uses a device.
    connect(plan.options, screen)
    # Processes with other fields would compile other programs and wait for each other.
    check_same_fields(training.config.plain_values(plan.experiment))
    mesh = parse_mesh(plan.options.mesh)
    # A run stopped before its first checkpoint reads the weights of --init-from again.
    saved = plan.resumed is not None and bool(training.checkpoints.steps(plan.resumed.checkpoints))
    session = training.prepare(
        plan.experiment, mesh=mesh, rates=True, resume=saved, warn=screen.warn
    )
    # Before `fit`, which consumes the state of the session.
    device_bytes = session.bytes_per_device()
    screen.say(
        f"{plan.experiment.name}: {session.parameters:,} parameters, "
        f"{len(session.dataset.train):,} + {len(session.dataset.test):,} examples, "
        f"{session.steps:,} steps, {describe_mesh(mesh)}, "
        f"{spell_size(sum(device_bytes.values()))} on each, "
        f"compiled in {session.compile_seconds:.1f} s"
    )
    for line in session.describe_initialization():
        screen.say(line)
    # From here on a signal saves the state; before there is nothing to save.
    screen.listener.patient = True
    run = plan.resumed or _create(plan)
    result = _fit(session, run, screen, plan.options)
    evaluation, task = result.evaluation, session.task
    # A stopped run reports null for its deciding metric, the one name that is known.
    metrics = evaluation.metrics if evaluation else {task.best: None}
    fields = {
        "name": plan.experiment.name,
        "run": str(run.path),
        **{f"test_{name}": value for name, value in metrics.items()},
        "test_loss": evaluation and evaluation.loss,
        "firing_rates": evaluation and evaluation.rates,
        "nasfr": evaluation and evaluation.nasfr,
        f"best_test_{task.best}": result.best,
        "best_step": result.best_step,
        "steps": result.step,
        "epochs": round(result.step / session.loader.steps_per_epoch, 4),
        "parameters": session.parameters,
        "train_seconds": round(result.train_seconds, 3),
        "compile_seconds": round(session.compile_seconds, 3),
        "seconds": round(time.perf_counter() - began, 3),
        "device": next(iter(mesh.devices.flat)).device_kind,
        "bytes_per_device": device_bytes,
        "mesh": dict(mesh.shape),
        "processes": jax.process_count(),
        "initialization": run.read_json("initialization.json"),
        "profile": str(run.profile) if plan.options.profile else None,
        "other_data": result.other_data,
        "interrupted": None,
    }
    if plan.options.profile:
        screen.say(
            f"profile: {run.profile}    tensorboard --logdir {run.profile}, or "
            "perfetto_trace.json.gz in it on ui.perfetto.dev"
        )
    if result.interrupted:
        number = screen.listener.number or signal.SIGTERM  # received by another process
        fields["interrupted"] = signal.Signals(number).name
        screen.say(f"{fields['interrupted']}: saved after step {result.step} of {session.steps}")
        screen.say(f"resume with: snnjax train --resume {run.path}")
        return fields, 128 + number
    assert evaluation is not None
    screen.say(
        f"test {spell_metrics(task, evaluation).rstrip(', ')} after {fields['epochs']:g} epochs in "
        f"{clock(result.train_seconds)} ({session.compile_seconds:.1f} s to compile)"
    )
    screen.say(f"run: {run.path}    pictures: snnjax show {run.path}")
    # For tools that read finished runs without their output.
    run.write_json("result.json", {"command": "train", **fields, "exit_code": 0})
    return fields, 0


def _fit(session, run, screen: Screen, options: Any) -> Any:
    with progress(screen, session) as report:
        return training.fit(
            session,
            run,
            stop=lambda: screen.listener.number,
            report=report,
            warn=screen.warn,
            profile=options.profile,
            allow_other_data=options.other_data,
        )


def _plan(arguments: list[str], screen: Screen) -> _Plan:
    """Parses the arguments to experiment, source and options; writes nothing."""
    path, rest = experiment_path(arguments)
    resumed = None
    # The options depend on the experiment, and the experiment on --resume: read it first.
    if (resume := peek(rest, "--resume")) is not None:
        if not resume:
            raise Failure("--resume is empty, such as an unset variable: give a run directory")
        if path:
            raise Failure(f"--resume takes the experiment from {resume}: leave out {path}")
        resumed = training.Run.open(resume)
        experiment = resumed.experiment()
        source = _read(resumed.source)
    else:
        path = path or Path(default_experiment.__file__)
        experiment = training.config.load_experiment(path)
        source = _read(path)
    options, changed = parse_fields("train", "Train a network.", experiment, _OPTIONS, rest)
    if resumed and options.out:
        raise Failure("--resume goes on in its own directory: leave out --out")
    if options.other_data and not resumed:
        raise Failure("--other-data goes with --resume: a new run has no data of before")
    fixed = sorted(set(changed) & set(training.config.FIXED)) if resumed else []
    if fixed:
        raise Failure(
            f"a resumed run cannot change {', '.join(fixed)}: train anew into another --out, from "
            "its weights by --init-from RUN"
        )
    experiment = training.config.override(experiment, changed)
    training.config.check(experiment)
    # Its syntax only; the devices are known after `connect`.
    training.sharding.parse_mesh(options.mesh or "")
    if not resumed:
        # Before minutes of loading and compiling.
        path = _path(options.out, experiment)
        check_creatable(path.parent if options.out is None else path)
        if options.out is not None:
            training.Run.check_free(path)
    cache.enable(on=not options.no_cache, warn=screen.warn)
    return _Plan(experiment, source, options, resumed)


def _read(path: Path) -> str:
    """Text of an experiment's file."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        # Python reads other encodings as well, but the run keeps its copy as UTF-8.
        raise Failure(f"{path} is not UTF-8 text ({error.reason}): save it as UTF-8") from error


def _path(out: str | None, experiment: Any) -> Path:
    """Path of `--out`, or of the first run under runs/."""
    return Path(out) if out is not None else Path("runs") / f"{experiment.name}-{experiment.seed}"


def _create(plan: _Plan) -> training.Run:
    """Makes the directory of `--out`, or the first unused one under runs/."""
    out, experiment = plan.options.out, plan.experiment
    path = _path(out, experiment)
    return training.Run.create(path, experiment, plan.source, numbered=out is None)
