"""Where words go: to stdout for people, or to stderr where stdout is read by a machine."""

from __future__ import annotations

import json as json_format
import logging
import math
import sys
import warnings
from typing import Any, TextIO

__all__ = ["Screen", "silence_libraries"]


class Screen:
    """What a command says, and its result.

    Args:
        json: Whether stdout belongs to a machine: its last line is then one JSON object.
    """

    def __init__(self, *, json: bool):
        self.json = json

    @property
    def stream(self) -> TextIO:
        """The stream that people read."""
        return sys.stderr if self.json else sys.stdout

    def say(self, text: str) -> None:
        """A line for people."""
        print(text, file=self.stream, flush=True)

    def fail(self, message: str) -> None:
        """The one message of a command that failed."""
        sys.stdout.flush()
        print(f"snnjax: {message}", file=sys.stderr, flush=True)

    def finish(self, fields: dict[str, Any]) -> None:
        """The JSON object, where one was asked for."""
        if self.json:
            print(json_format.dumps(_strict(fields), allow_nan=False), flush=True)


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
