"""A run's network with the parameters of one of its checkpoints, for commands that look at runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from snnjax import training
from snnjax.cli import cache
from snnjax.cli.failures import Failure
from snnjax.cli.options import REQUIRED, Option

__all__ = ["OPTIONS", "restore"]

OPTIONS = [
    Option("run", str, REQUIRED, "The run directory.", positional=True),
    Option("checkpoint", str, "last", 'Which one: "last", "best" or the number of a step.'),
    Option("data_dir", str | None, None, "Folder of data sets, where it moved."),
    Option("no_cache", bool, False, "Compile anew instead of taking it from the user's cache."),
]


def restore(
    options: Any,
    *,
    warn: Callable[[str], None],
    rates: bool = False,
    plastic: bool = False,
) -> tuple[training.Run, training.session.Session, training.TrainState]:
    """The run, its session (without a training step) and the state of the checkpoint.

    Args:
        options: Parsed from `OPTIONS`.
        warn: Called with a sentence about each damaged checkpoint that is passed over.
        rates: Whether evaluation shall measure firing rates.
        plastic: Whether the command knows what to do with a network that learned by plasticity.
    """
    run = training.Run.open(options.run)
    path = _checkpoint(run, options.checkpoint)
    experiment = run.experiment()
    if isinstance(experiment, training.Unsupervised) and not plastic:
        raise Failure(
            f"{run.path} learned by plasticity and has no layers to look into: snnjax eval and "
            "snnjax show are for it"
        )
    if options.data_dir is not None:
        experiment = training.config.override(experiment, {"data_dir": options.data_dir})
    cache.enable(on=not options.no_cache)
    session = training.prepare(experiment, training=False, rates=rates)
    if path is not None:
        return run, session, training.checkpoints.load(path, session.state)
    state = training.checkpoints.load_newest(run.checkpoints, session.state, warn=warn)
    assert state is not None
    return run, session, state


def _checkpoint(run: training.Run, which: str) -> Path | None:
    """The checkpoint asked for; None is the newest that can be read."""
    steps = training.checkpoints.steps(run.checkpoints)
    if not steps:
        raise Failure(f"{run.path} has no checkpoint yet: snnjax train --resume {run.path}")
    if which == "last":
        return None
    if which == "best":
        return training.checkpoints.best(run.checkpoints)
    if not which.isdecimal() or int(which) not in steps:
        there = ", ".join(map(str, steps))
        raise Failure(f"{run.path} has no checkpoint {which!r}: choose last, best, {there}")
    return training.checkpoints.step_path(run.checkpoints, int(which))
