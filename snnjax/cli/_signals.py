"""Handling of SIGINT, SIGTERM and SIGHUP: the first requests a stop, the second kills the process.

A lost terminal (SIGHUP) may send its signal more than once, so that a second SIGHUP is ignored.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

from snnjax.cli._failures import Interrupted

__all__ = ["Listener", "listening"]

_HANGUP = getattr(signal, "SIGHUP", None)  # not on Windows
_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([_HANGUP] if _HANGUP else []))


class Listener:
    """Receiver of the signals.

    Attributes:
        number: Number of the received signal, or None.
        patient: True if the work polls `number`; otherwise a signal raises `Interrupted`.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.patient = False

    def handle(self, number: int, frame: object) -> None:
        """Handles each of the signals."""
        del frame
        self.number = number
        for each in _handled():
            # A second signal ends a process that does not come to its next poll.
            signal.signal(each, signal.SIG_IGN if each == _HANGUP else signal.SIG_DFL)
        if number == _HANGUP:
            _leave_terminal()
        if not self.patient:
            raise Interrupted(number)


@contextlib.contextmanager
def listening() -> Iterator[Listener]:
    """Handles the signals inside the block, and restores the handlers afterwards."""
    listener = Listener()
    if threading.current_thread() is not threading.main_thread():
        yield listener  # only the main thread may set handlers
        return
    before = {number: signal.signal(number, listener.handle) for number in _handled()}
    try:
        yield listener
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _handled() -> list[int]:
    """Signals to handle: SIGHUP stays ignored under `nohup`."""
    ignored = _HANGUP and signal.getsignal(_HANGUP) == signal.SIG_IGN
    return [number for number in _SIGNALS if not (ignored and number == _HANGUP)]


def _leave_terminal() -> None:
    """Sends further output nowhere where it would go to the lost terminal."""
    # A write to a lost terminal fails, and would end the process before it has saved.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if os.isatty(stream.fileno()):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
