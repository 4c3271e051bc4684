"""Handling of SIGINT and SIGTERM: the first requests a stop, the second kills the process."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from snnjax.cli._failures import Interrupted

__all__ = ["Listener", "listening"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
        """Handles both signals."""
        del frame
        self.number = number
        for each in _SIGNALS:
            # A second signal ends a process that does not come to its next poll.
            signal.signal(each, signal.SIG_DFL)
        if not self.patient:
            raise Interrupted(number)


@contextlib.contextmanager
def listening() -> Iterator[Listener]:
    """Handles the signals inside the block, and restores the handlers afterwards."""
    listener = Listener()
    if threading.current_thread() is not threading.main_thread():
        yield listener  # only the main thread may set handlers
        return
    before = {number: signal.signal(number, listener.handle) for number in _SIGNALS}
    try:
        yield listener
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
