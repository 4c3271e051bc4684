"""Trained networks of run directories, ready to call.

    loaded      = snnjax.load("runs/digits-0")
    predictions = loaded(images)                             [B, ...] -> [B, K]

and with the network itself, on encoded frames `[T, B, *input_shape]`:

    outputs, aux = loaded.network(frames, loaded.initial_state(B), training=False)
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from snnjax import nn
from snnjax.training import checkpoints, config
from snnjax.training._parts import arrays
from snnjax.training.errors import RunError, user_code
from snnjax.training.experiment import Experiment
from snnjax.training.run import Run
from snnjax.training.state import initialize
from snnjax.training.task import Task
from snnjax.typing import Array, PyTree

__all__ = ["Loaded", "choose_checkpoint", "load"]


@dataclasses.dataclass(frozen=True, eq=False)
class Loaded:
    """A trained network with what it takes to use it.

    Attributes:
        network: Network with the trained parameters, under the precision and the memory strategy of
            the experiment.
        statistics: Running statistics of its normalisation layers.
        experiment: Experiment of the run; it encodes inputs.
        task: Its task, which reads predictions out of outputs.
        step: Number of updates before the checkpoint.
        run: Run directory.
    """

    network: nn.Network
    statistics: PyTree
    experiment: Experiment
    task: Task
    step: int
    run: Run

    def __call__(self, inputs: Any, *, lengths: Any = None) -> Array:
        """Predictions of a batch, as `snnjax eval` computes them; compiled once per shape.

        Args:
            inputs: Examples as the data set stores them, `[B, ...]`.
            lengths: Valid timesteps of padded sequences, `[B]`; None is all.

        Returns:
            Predictions `[B, K]`, logits in a classification; `[T, B, K]` for a task per timestep.
        """
        return self._predict(self.network, self.statistics, inputs, lengths)

    @functools.cached_property
    def _predict(self) -> Callable[..., Array]:
        def predict(network: nn.Network, statistics: PyTree, inputs: Array, lengths: Any) -> Array:
            frames = self.encode(inputs)
            start = network.initial_state(frames.shape[1], statistics=statistics)
            outputs, _ = network(frames, start, training=False, lengths=lengths)
            return self.task.predict(outputs, lengths=lengths)

        return jax.jit(predict)

    def encode(self, inputs: Any) -> Array:
        """Frames `[T, B, *input_shape]` of stored inputs `[B, ...]`, as in evaluation."""
        with user_code("encode(experiment, inputs, key)"):
            return self.experiment.encode(self.experiment, inputs, None)

    def initial_state(self, batch: int) -> nn.State:
        """State of the network before a batch: neurons at rest, and the trained statistics."""
        return self.network.initial_state(batch, statistics=self.statistics)

    @property
    def arrays(self) -> dict[str, Array]:
        """Parameters and constants by name, such as `body.layers.1.function.kernel`."""
        return arrays(self.network)


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=2)


def load(
    run: Run | str | Path,
    *,
    checkpoint: str | int = "last",
    warn: Callable[[str], None] = _warn,
    **fields: Any,
) -> Loaded:
    """Loads the trained network of a run, of `snnjax train` or `snnjax convert`.

    Data are not needed. The experiment's file in the run is executed: load only runs of people
    whose code you would run.

    Args:
        run: Run or its directory, or the folder of one of its checkpoints.
        checkpoint: `"last"`, the newest readable one, `"best"`, or the number of a step.
        warn: Called with a sentence about each tolerated fault, such as a skipped damaged
            checkpoint; by default a Python warning.
        **fields: Plain fields in place of those of the run, such as `timesteps=8` or `memory=...`;
            the shapes of the parameters must stay.

    Raises:
        RunError: There is no run, or no such checkpoint in it.
        CheckpointError: No checkpoint can be read, or the fields make another model.
        ExperimentError: The run learned without gradients, or a field is wrong.
    """
    run, checkpoint = _open(run, str(checkpoint))
    # Before the network is made.
    path = choose_checkpoint(run, checkpoint, warn=warn)
    experiment = config.gradient_experiment(run.experiment())
    experiment = config.override(experiment, fields)
    config.check(experiment)
    # The optimizer is not used, so its schedule may have any length.
    program, state = initialize(experiment, steps=experiment.epochs)
    if path is None:
        state = checkpoints.load_newest(run.checkpoints, state, warn=warn)
        assert state is not None  # there is a checkpoint, and none that can be read is an error
    else:
        state = checkpoints.load(path, state, warn=warn)
    network, step = program.network(state), int(state.step)
    return Loaded(network, state.statistics, experiment, program.task, step, run)


def choose_checkpoint(run: Run, name: str, *, warn: Callable[[str], None]) -> Path | None:
    """Path of a checkpoint by its name.

    Args:
        run: The run.
        name: `"last"`, `"best"` or the number of a step.
        warn: Called with a sentence about each skipped damaged checkpoint.

    Returns:
        The path; None for `"last"`, the newest one that can be read.

    Raises:
        RunError: The run has no such checkpoint.
    """
    steps = checkpoints.steps(run.checkpoints)
    if not steps:
        raise RunError(f"{run.path} has no checkpoint yet: snnjax train --resume {run.path}")
    if name == "last":
        return None
    if name == "best":
        best = checkpoints.best(run.checkpoints, warn=warn)
        if best is None:
            raise RunError(f"no checkpoint of {run.path} was evaluated: choose last")
        return best
    if not name.isdecimal() or int(name) not in steps:
        there = ", ".join(map(str, steps))
        raise RunError(f"{run.path} has no checkpoint {name!r}: choose last, best, {there}")
    return checkpoints.step_path(run.checkpoints, int(name))


def _open(run: Run | str | Path, checkpoint: str) -> tuple[Run, str]:
    """The run of a path, and the name of its checkpoint."""
    if isinstance(run, Run):
        return run, checkpoint
    path = Path(run)
    if path.parent.name == "checkpoints" and (path.parents[1] / "config.json").is_file():
        return Run.open(path.parents[1]), path.name
    if (path / "manifest.json").is_file() and not (path / "config.json").exists():
        raise RunError(
            f"{path} is no run directory: snnjax.export.load runs an artifact of snnjax export, "
            "and a checkpoint is read in its run"
        )
    return Run.open(path), checkpoint
