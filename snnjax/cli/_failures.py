"""Conversion of errors to one message and an exit code."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
from collections.abc import Iterator

__all__ = ["Failure", "HelpPrinted", "Interrupted", "describe"]

_DEFECT = 70  # EX_SOFTWARE of sysexits.h
_SHOWN = 200  # characters of a path
_LOST_PROCESS = 75  # EX_TEMPFAIL
# JAX's runtime has no class of errors for a lost process.
_LOST_WORDS = ("Gloo", "NCCL operation", "coordination service", "CoordinationService")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_WORDS = ("no space left on device", "disk quota exceeded", "file too large")
# TensorStore, through which Orbax writes, has no class of errors for the operating system's.
_OS_ERROR = re.compile(r"(?:OS error |os_error_code=')(\d+)")
_OS_PATH = re.compile(r'"([^"]+)": [^"]*$')
_OS_CURES = {
    errno.ENOENT: "{path} is not there: check the path",
    errno.ENOTDIR: "{path}: a part of this path is a file and no folder: choose another path",
    errno.EISDIR: "{path} is a folder: give the path of a file",
    errno.EEXIST: "{path} is there already: choose another path",
    errno.EROFS: "{path} is on a file system that is read only: choose another folder by --out",
    errno.EACCES: "{path} may not be read or written: allow it, or choose another folder by --out",
    errno.EPERM: "{path} may not be read or written: allow it, or choose another folder by --out",
    errno.ENAMETOOLONG: "{path} is too long for the file system: choose a shorter path or name",
    errno.ELOOP: "{path} leads through a loop of symbolic links: choose another path",
    errno.EMFILE: "too many files are open in this process: raise its limit, as by ulimit -n 4096",
    errno.ENFILE: "too many files are open on this machine: end other programs, or raise its limit",
    errno.EPIPE: "the reader of {path} closed its pipe: write to a file, or keep it open",
}


class Failure(Exception):
    """Bad input detected by the command line; the message names the cure."""


class HelpPrinted(SystemExit):
    """The user asked for the help of a command and has it."""


class Interrupted(BaseException):
    """Signal to stop while nothing trained.

    Attributes:
        number: Number of the signal.
    """

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


def describe(error: BaseException) -> tuple[str, int]:
    """Message for a user and exit code of an error."""
    if isinstance(error, Interrupted):
        return f"{error}: nothing was saved, and earlier checkpoints remain", 128 + error.number
    if isinstance(error, KeyboardInterrupt):
        return "stopped", 128 + signal.SIGINT
    if any(_is_full(cause) for cause in _chain(error)):
        return (
            "the disk is full (or over quota): make room, or choose another disk by --out; "
            "what was saved before can be resumed"
        ), 2
    # Before the errors of training: a checkpoint that cannot be opened for this is not damaged.
    if any(_os_number(cause) in (errno.EMFILE, errno.ENFILE) for cause in _chain(error)):
        return _OS_CURES[errno.EMFILE], 2
    if isinstance(error, Failure) or _is("snnjax.data", "MissingDataError", error):
        return str(error), 2
    if _is("snnjax.data", "CorruptDataError", error):
        return str(error), 2
    if _is("snnjax.training.errors", "NotFiniteError", error):
        return str(error), 1
    if _is("snnjax.training.errors", "TrainingError", error):
        return str(error), 2
    if isinstance(error, SystemExit):
        why = f" ({error.code})" if error.code else ""
        return (
            f"the experiment ended the command by sys.exit{why}: let it raise an error, or leave "
            "the call out"
        ), 2
    # Its declared causes only: a defect met while an error was handled is still a defect.
    for cause in _chain(error, context=False):
        if message := _os_message(cause):
            return message, 2
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


def _os_number(error: BaseException) -> int | None:
    """Number of an error of the operating system; None for any other error."""
    if isinstance(error, OSError):
        return error.errno
    found = _OS_ERROR.search(str(error))
    return int(found[1]) if found else None


def _os_message(error: BaseException) -> str | None:
    """Message about an error of the operating system; None for any other error."""
    if (number := _os_number(error)) is None:
        return None
    # An error while writing to an open file does not say to which.
    path = getattr(error, "filename", None)
    if path is None or isinstance(path, int):  # a descriptor says nothing to a user
        found = _OS_PATH.search(str(error))
        path = found[1] if found else "a file or stream"
    path = os.fsdecode(path)
    path = path if len(path) <= _SHOWN else f"{path[:_SHOWN]}..."
    cure = _OS_CURES.get(number, "{path} cannot be used ({reason}): check the path and its disk")
    return cure.format(path=path, reason=os.strerror(number))


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    # Orbax writes through TensorStore, whose errors carry the words only.
    words = str(error).lower()
    return any(phrase in words for phrase in _FULL_WORDS)


def _chain(error: BaseException | None, *, context: bool = True) -> Iterator[BaseException]:
    """An error, its causes, and with `context` the errors it was raised in the handling of."""
    # Causes may form a cycle.
    seen = 0
    while error is not None and seen < 20:
        yield error
        if isinstance(error, BaseExceptionGroup):
            yield from error.exceptions
        error, seen = error.__cause__ or (error.__context__ if context else None), seen + 1
