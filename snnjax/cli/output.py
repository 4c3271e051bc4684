"""Where words go: to stdout for people, or to stderr where stdout is read by a machine."""

from __future__ import annotations

import json as json_format
import logging
import math
import os
import sys
import warnings
from typing import Any, TextIO

__all__ = ["Screen", "silence_libraries"]


class Screen:
    """What a command says, and its result.

    Args:
        json: Whether stdout belongs to a machine: its last line is then one JSON object.

    Attributes:
        several: Whether this is one of several processes that work together.
    """

    def __init__(self, *, json: bool):
        self.json = json
        self.several = False
        self.hushed: str | None = None
        self.nowhere: TextIO | None = None

    def hush(self, name: str) -> None:
        """From now on only warnings and failures are told, under a name: others speak already."""
        self.hushed, self.nowhere = name, open(os.devnull, "w")  # noqa: SIM115

    @property
    def stream(self) -> TextIO:
        """The stream that people read."""
        if self.nowhere:
            return self.nowhere
        return sys.stderr if self.json else sys.stdout

    def say(self, text: str) -> None:
        """A line for people."""
        print(text, file=self.stream, flush=True)

    def warn(self, text: str) -> None:
        """A line about what was put up with, on stderr."""
        self._complain(text)

    def fail(self, message: str) -> None:
        """The one message of a command that failed."""
        self._complain(message)

    def finish(self, fields: dict[str, Any]) -> None:
        """The JSON object, where one was asked for."""
        if self.json and not self.hushed:
            print(json_format.dumps(_strict(fields), allow_nan=False), flush=True)

    def _complain(self, text: str) -> None:
        sys.stdout.flush()
        name = f" ({self.hushed})" if self.hushed else ""
        print(f"snnjax{name}: {text}", file=sys.stderr, flush=True)


def _strict(value: Any) -> Any:
    """What JSON can hold: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {name: _strict(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def silence_libraries() -> None:
    """Keeps Orbax from telling at length about errors that reach the user as one message."""
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.FATAL)
    # Where reading one array fails it forgets the tasks that read the others.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited")
