"""What can go wrong with training, each an error whose message names the cure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

__all__ = [
    "CheckpointError",
    "ExperimentError",
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


class RunError(TrainingError, ValueError):
    """A run directory that is none, or is in the way."""


class CheckpointError(TrainingError, ValueError):
    """A checkpoint that cannot be read, or is of another model."""


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
