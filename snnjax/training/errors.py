"""Errors of training; each message names the cure."""

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
    "user_code",
]


class TrainingError(Exception):
    """An error that a user can put right; the message says how."""


class ExperimentError(TrainingError, ValueError):
    """An experiment that cannot be trained: a wrong field, a file that is no experiment."""


class MeshError(TrainingError, ValueError):
    """Missing devices or processes, or a run that cannot be laid out on them."""


class RunError(TrainingError, ValueError):
    """A path that is no run directory, or is in the way of one."""


class CheckpointError(TrainingError, ValueError):
    """A checkpoint that cannot be read, or belongs to another model."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint with files that are missing, truncated or wrong.

    Attributes:
        damage: The checkpoint, and what is wrong with it.
    """

    def __init__(self, damage: str):
        super().__init__(f"{damage}: delete that folder to go on from the checkpoint before it")
        self.damage = damage


class NotFiniteError(TrainingError, ArithmeticError):
    """A loss or gradient that is not finite; the last good state was saved.

    Attributes:
        step: Steps done before the one that failed.
    """

    def __init__(self, message: str, *, step: int):
        super().__init__(message)
        self.step = step


class StreamBoundError(NotFiniteError):
    """A reversible stream at the bound of its grid; the last good state was saved."""


@contextlib.contextmanager
def user_code(name: str) -> Iterator[None]:
    """Turns any exception of a user's function into an `ExperimentError` that names the function.

    The original becomes the cause, so that a debugger or `--debug` shows it.
    """
    try:
        yield
    except TrainingError:
        raise
    except Exception as error:
        raise ExperimentError(f"{name} failed: {type(error).__name__}: {error}") from error
