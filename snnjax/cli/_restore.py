"""Restoring of a run with the state of a checkpoint, for commands that inspect runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from snnjax import training
from snnjax.cli import _cache as cache
from snnjax.cli._options import REQUIRED, Option

__all__ = ["OPTIONS", "restore"]

OPTIONS = [
    Option("run", str, REQUIRED, "Run directory.", positional=True),
    Option("checkpoint", str, "last", 'Checkpoint: "last", "best" or the number of a step.'),
    Option("data_dir", str | None, None, "Folder of data sets, if it moved."),
    cache.OPTION,
]


def restore(
    options: Any,
    *,
    warn: Callable[[str], None],
    rates: bool = False,
    gradients: bool = True,
) -> tuple[training.Run, Any, training.TrainState]:
    """Opens a run directory and prepares its session, without a training step, and a state.

    Args:
        options: Options parsed from `OPTIONS`.
        warn: Called with a sentence about each skipped damaged checkpoint, and about data that
            are not those of the training.
        rates: Measures firing rates in evaluation.
        gradients: True if the command requires a network that learned by gradients.

    Returns:
        The run, the session, and the state of the checkpoint.

    Raises:
        training.errors.RunError: The run has no such checkpoint.
        training.errors.ExperimentError: The run learned in another way.
    """
    run = training.Run.open(options.run)
    # Before the data are loaded and the network is compiled.
    path = training.loading.choose_checkpoint(run, options.checkpoint, warn=warn)
    experiment = run.experiment()
    if gradients:
        training.config.gradient_experiment(experiment)
    if options.data_dir is not None:
        # A run may be inspected on another machine than the one it was trained on.
        experiment = training.config.override(experiment, {"data_dir": options.data_dir})
    cache.enable(on=not options.no_cache, warn=warn)
    # Inspection needs no training step, whose compilation would take time for nothing.
    session = training.prepare(experiment, training=False, rates=rates)
    session.warn_of_other_data(run, warn=warn)
    if path is not None:
        return run, session, training.checkpoints.load(path, session.state, warn=warn)
    state = training.checkpoints.load_newest(run.checkpoints, session.state, warn=warn)
    # There is at least one step, and `load_newest` raises an error if none can be read.
    assert state is not None
    return run, session, state
