"""Conversion of errors to one message and an exit code."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Iterator

__all__ = ["Failure", "Interrupted", "describe"]

_DEFECT = 70  # EX_SOFTWARE of sysexits.h
_LOST_PROCESS = 75  # EX_TEMPFAIL
# JAX's runtime has no class of errors for a lost process.
_LOST_WORDS = ("Gloo", "NCCL operation", "coordination service", "CoordinationService")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_WORDS = ("no space left on device", "disk quota exceeded", "file too large")


class Failure(Exception):
    """Bad input detected by the command line; the message names the cure."""


class Interrupted(BaseException):
    """SIGINT or SIGTERM before training began.

    Attributes:
        number: Number of the signal.
    """

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


def describe(error: BaseException) -> tuple[str, int]:
    """Message for a user and exit code of an error."""
    if isinstance(error, Interrupted):
        return f"{error} before the first step: nothing was saved", 128 + error.number
    if isinstance(error, KeyboardInterrupt):
        return "stopped", 128 + signal.SIGINT
    if any(_is_full(cause) for cause in _chain(error)):
        return (
            "the disk is full (or over quota): make room, or choose another disk by --out; "
            "what was saved before can be resumed"
        ), 2
    if isinstance(error, Failure) or _is("snnjax.data", "MissingDataError", error):
        return str(error), 2
    if _is("snnjax.data", "CorruptDataError", error):
        return str(error), 2
    if _is("snnjax.training.errors", "NotFiniteError", error):
        return str(error), 1
    if _is("snnjax.training.errors", "TrainingError", error):
        return str(error), 2
    if isinstance(error, PermissionError):
        return f"{error.filename} may not be written or read: choose another folder by --out", 2
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return (
            "out of memory: choose a smaller --batch, or a memory strategy in the network "
            f"({error})"
        ), 2
    if any(words in str(error) for words in _LOST_WORDS):
        return (
            "another process of this run ended or cannot be reached: start all of them again with "
            f"--resume ({' '.join(str(error).split())[:160]})"
        ), _LOST_PROCESS
    return (
        f"a defect of snnjax, or of the experiment: {type(error).__name__}: {error} "
        "(--debug shows where)"
    ), _DEFECT


def _is(module: str, name: str, error: BaseException) -> bool:
    # Through the loaded modules: an error of the library means that its module is loaded, and this
    # module imports nothing heavy.
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(error, kind)


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    # Orbax writes through TensorStore, whose errors carry the words only.
    words = str(error).lower()
    return any(phrase in words for phrase in _FULL_WORDS)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    # Causes may form a cycle.
    seen = 0
    while error is not None and seen < 20:
        yield error
        if isinstance(error, BaseExceptionGroup):
            yield from error.exceptions
        error, seen = error.__cause__ or error.__context__, seen + 1
