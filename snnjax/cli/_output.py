"""Output for people, on stdout or, if a machine reads stdout, on stderr; sizes in bytes."""

from __future__ import annotations

import json as json_format
import logging
import math
import os
import re
import sys
import warnings
from decimal import Decimal
from typing import Any, TextIO

from snnjax.cli._failures import Failure

__all__ = ["Screen", "read_size", "silence_libraries", "spell_size"]


_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


class Screen:
    """Messages and result of a command.

    Args:
        json: True if a machine reads stdout: its last line is then one JSON object.

    Attributes:
        several: True in one of several processes that work together.
    """

    def __init__(self, *, json: bool):
        self.json = json
        self.several = False
        self.name: str | None = None
        self.null: TextIO | None = None

    def silence(self, name: str) -> None:
        """Discards all but warnings and failures, which are marked with a name."""
        # Not closed: the stream is used until the process ends.
        self.name, self.null = name, open(os.devnull, "w")  # noqa: SIM115

    @property
    def stream(self) -> TextIO:
        """Stream of the text for people."""
        if self.null:
            return self.null
        return sys.stderr if self.json else sys.stdout

    def say(self, text: str) -> None:
        """Prints a line for people."""
        print(text, file=self.stream, flush=True)

    def warn(self, text: str) -> None:
        """Prints a warning on stderr."""
        self._complain(text)

    def fail(self, message: str) -> None:
        """Prints the message of a failed command on stderr."""
        self._complain(message)

    def finish(self, fields: dict[str, Any]) -> None:
        """Prints the JSON object, under `--json`."""
        if self.json and not self.name:
            print(json_format.dumps(_strict(fields), allow_nan=False), flush=True)

    def _complain(self, text: str) -> None:
        # In order: stdout is buffered where it is no terminal.
        sys.stdout.flush()
        name = f" ({self.name})" if self.name else ""
        print(f"snnjax{name}: {text}", file=sys.stderr, flush=True)


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
