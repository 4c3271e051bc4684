"""Errors of training; each message names the cure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

__all__ = [
    "CheckpointError",
    "DamagedCheckpointError",
    "EvaluationError",
    "ExperimentError",
    "MeshError",
    "NotFiniteError",
    "RunError",
    "StreamBoundError",
    "TrainingError",
    "user_code",
]


class TrainingError(Exception):
    """Error that the user can correct; the message says how."""


class ExperimentError(TrainingError, ValueError):
    """Experiment that cannot be trained: a wrong field, or a file without an experiment."""


class MeshError(TrainingError, ValueError):
    """Missing devices or processes, or a run that cannot be distributed over them."""


class RunError(TrainingError, ValueError):
    """Path that is not a run directory, or is taken where one is to be created."""


class CheckpointError(TrainingError, ValueError):
    """Checkpoint that cannot be read, or belongs to another model."""


class DamagedCheckpointError(CheckpointError):
    """Checkpoint with missing, truncated or wrong files.

    Attributes:
        damage: Path of the checkpoint and its fault.
    """

    def __init__(self, damage: str):
        super().__init__(f"{damage}: delete that folder to go on from the checkpoint before it")
        self.damage = damage


# Not a ValueError: the input was admissible, and the command line returns 1 for it instead of 2.
class NotFiniteError(TrainingError, ArithmeticError):
    """Step that is not finite; the last good state was saved.

    Attributes:
        step: Number of steps before the failed one.
        in_data: True if an input or a target is not finite.
    """

    def __init__(self, message: str, *, step: int, in_data: bool = False):
        super().__init__(message)
        self.step, self.in_data = step, in_data


class StreamBoundError(NotFiniteError):
    """Reversible stream at the bound of its grid; the last good state was saved."""


class EvaluationError(TrainingError, ArithmeticError):
    """Evaluation of an example that is not finite, which would count as a wrong answer."""


@contextlib.contextmanager
def user_code(name: str) -> Iterator[None]:
    """Converts any exception of a user's function to an `ExperimentError` that names it."""
    try:
        yield
    except TrainingError:
        raise  # its message already names the cure
    # The original stays the cause, so that a debugger or `--debug` shows it.
    except Exception as error:
        raise ExperimentError(f"{name} failed: {type(error).__name__}: {error}") from error
