"""Output for people, on stdout or, if a machine reads stdout, on stderr; sizes in bytes.

A stream whose reader is gone (`snnjax train | head -1`) or whose disk is full never ends a command:
the rest of its text is discarded. Control characters of names are shown escaped, since a terminal
would obey them.
"""

from __future__ import annotations

import contextlib
import json as json_format
import logging
import math
import os
import re
import sys
import warnings
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

from snnjax.cli._failures import Failure
from snnjax.cli._signals import Listener

__all__ = ["Screen", "check_creatable", "escape", "read_size", "silence_libraries", "spell_size"]


_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


class Screen:
    """Messages and result of a command.

    Args:
        json: True if a machine reads stdout: its last line is then one JSON object.

    Attributes:
        several: True in one of several processes that work together.
        unwritable: Error of the first stream that could not be written, unless its reader closed
            it; None otherwise.
        listener: Receiver of the signals to stop.
    """

    def __init__(self, *, json: bool):
        self.json = json
        self.several = False
        self.unwritable: OSError | None = None
        self.listener = Listener()
        self.name: str | None = None
        self.null: TextIO | None = None

    def silence(self, name: str) -> None:
        """Discards all but warnings and failures, which are marked with a name."""
        # Not closed: the stream is used until the process ends.
        self.name, self.null = name, open(os.devnull, "w")  # noqa: SIM115

    @property
    def stream(self) -> Any:
        """Stream of the text for people."""
        if self.null:
            return self.null
        return self.tolerant(sys.stderr if self.json else sys.stdout)

    def tolerant(self, stream: Any) -> Any:
        """Stream that writes to another one and discards the text once that fails."""
        return stream if isinstance(stream, _Tolerant) else _Tolerant(stream, self._give_up)

    def say(self, text: str) -> None:
        """Prints a line for people."""
        self._print(text, self.stream)

    def warn(self, text: str) -> None:
        """Prints a warning on stderr."""
        self._complain(text)

    def fail(self, message: str) -> None:
        """Prints the message of a failed command on stderr."""
        self._complain(message)

    def finish(self, fields: dict[str, Any]) -> None:
        """Prints the JSON object, under `--json`."""
        if self.json and not self.name:
            text = json_format.dumps(_strict(fields), allow_nan=False)
            self._print(text, self.tolerant(sys.stdout))

    def _complain(self, text: str) -> None:
        # In order: stdout is buffered where it is no terminal.
        self.tolerant(sys.stdout).flush()
        name = f" ({self.name})" if self.name else ""
        self._print(f"snnjax{name}: {text}", self.tolerant(sys.stderr))

    @staticmethod
    def _print(text: str, stream: Any) -> None:
        # A terminal of another encoding than UTF-8 lacks some letters of names.
        encoding = getattr(stream, "encoding", None) or "utf-8"
        line = escape(text).encode(encoding, "backslashreplace").decode(encoding)
        print(line, file=stream, flush=True)

    def _give_up(self, stream: Any, error: OSError) -> None:
        # The interpreter flushes the stream as it ends, and would report the same error again.
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
        if isinstance(error, BrokenPipeError) or self.unwritable is not None:
            return
        self.unwritable = error
        if stream is not sys.stderr:
            self._complain(
                f"the output cannot be written ({error.strerror}) and is discarded from here on: "
                "redirect it to another file"
            )


class _Tolerant:
    """Text stream that discards its text after the first failed write.

    Args:
        stream: Stream to write to; None is a closed one.
        give_up: Called with the stream and the error of a failed write.
    """

    def __init__(self, stream: Any, give_up: Callable[[Any, OSError], None]):
        self._stream, self._give_up = stream, give_up

    def write(self, text: str) -> int:
        """Writes text, or discards it."""
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        """Writes the buffered text, or discards it."""
        self._try("flush")

    def _try(self, method: str, *arguments: str) -> None:
        if self._stream is None:  # as of `snnjax info >&-`
            return
        try:
            getattr(self._stream, method)(*arguments)
        except OSError as error:
            self._give_up(self._stream, error)

    def isatty(self) -> bool:
        """True if the stream is a terminal."""
        return self._stream is not None and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def check_creatable(folder: Path) -> None:
    """Checks before minutes of work that a folder can be made.

    Raises:
        Failure: Its nearest existing parent is no folder, or may not be written.
    """
    parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise Failure(f"{folder} cannot be made in {parent}: choose another folder by --out")


def escape(text: str) -> str:
    r"""Text on one line, with control characters as escapes such as `\x1b` and `\n`."""
    # Also invisible ones, such as marks of direction, which make a name look like another one.
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def _strict(value: Any) -> Any:
    """Converts a value to strict JSON: numbers that are not finite become null."""
    # Python would write NaN and Infinity, which are no JSON.
    if isinstance(value, dict):
        return {name: _strict(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def silence_libraries() -> None:
    """Silences logs of Orbax about errors that the user gets as one message."""
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.FATAL)
    # If reading one array fails, Orbax abandons the tasks that read the others.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited")


def read_size(text: str) -> int:
    """Parses `8GiB`, `500 MB` or `1e9` to bytes, rounded down.

    Raises:
        Failure: The text is no size from 1 byte to 2^63.
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:e\+?[0-9]+)?)\s*([a-z]*)\s*", text.lower())
    try:
        assert match is not None
        # Decimal: a float holds 53 bits, fewer than a size may have.
        size = Decimal(match[1]) * _UNITS[match[2]]
    except (ArithmeticError, AssertionError, KeyError):
        size = 0
    if not 1 <= size < 2**63:
        raise Failure(f"{text!r} is no size: write 8GiB, 500MB or a number of bytes")
    return int(size)


def spell_size(size: float) -> str:
    """Formats bytes as `12.3 MB`, in powers of a thousand."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
