"""What can go wrong with training, each an error whose message names the cure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

__all__ = [
    "CheckpointError",
    "DamagedCheckpointError",
    "ExperimentError",
    "MeshError",
    "NotFiniteError",
    "RunError",
    "StreamBoundError",
    "TrainingError",
    "calling",
]


class TrainingError(Exception):
    """Anything that a user can put right; the message says how."""


class ExperimentError(TrainingError, ValueError):
    """An experiment that cannot be trained: a wrong field, a file that is no experiment."""


class MeshError(TrainingError, ValueError):
    """Devices or processes that are not there, or that a run cannot be laid out on."""


class RunError(TrainingError, ValueError):
    """A run directory that is none, or is in the way."""


class CheckpointError(TrainingError, ValueError):
    """A checkpoint that cannot be read, or is of another model."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint of which files are missing, cut short or wrong.

    Attributes:
        damage: which one, and what is wrong with it.
    """

    def __init__(self, damage: str):
        super().__init__(f"{damage}: delete that folder to go on from the checkpoint before it")
        self.damage = damage


class NotFiniteError(TrainingError, ArithmeticError):
    """The loss or its gradient is not a number any more; the last good state was saved.

    Attributes:
        step: the steps done before the one that failed.
    """

    def __init__(self, message: str, *, step: int):
        super().__init__(message)
        self.step = step


class StreamBoundError(NotFiniteError):
    """A reversible stream reached the bound of its grid; the last good state was saved."""


@contextlib.contextmanager
def calling(what: str) -> Iterator[None]:
    """Turns any exception of a user's function into an `ExperimentError` that names the function.

    The original stays its cause, so that a debugger or `--debug` shows it.
    """
    try:
        yield
    except TrainingError:
        raise
    except Exception as error:
        raise ExperimentError(f"{what} failed: {type(error).__name__}: {error}") from error
