"""Handling of SIGINT, SIGTERM and SIGHUP.

While a network trains, the first signal requests a stop after the step, and the second ends the
process. At any other time a signal ends it at once: the C handler wakes a thread, and the thread
calls `os._exit`. A Python handler would come too late, since it waits for minutes of compilation,
and an exception from it too early: while JAX is imported it lands in the initialisation of an
extension module, which swallows it, reports an ImportError or crashes (a segmentation fault in 1 of
10 tries, jax 0.10.2).
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

from snnjax.cli._failures import Interrupted

__all__ = ["Listener", "listening"]

# A terminal that closes sends SIGHUP, which Windows lacks.
_HANGUP = getattr(signal, "SIGHUP", None)
_SIGNALS = [signal.SIGINT, signal.SIGTERM, *([_HANGUP] if _HANGUP else [])]


class Listener:
    """Receiver of the signals.

    Attributes:
        number: Number of the received signal, or None.
        end: Function of the number that ends the process; None raises `Interrupted` instead.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.end: Callable[[int], None] | None = None
        self._patient = False
        self._lock = threading.Lock()

    @property
    def patient(self) -> bool:
        """True if the work polls `number`."""
        return self._patient

    @patient.setter
    def patient(self, value: bool) -> None:
        """Waits for a signal in progress, so that nothing begins that its end would cut off."""
        with self._lock:
            self._patient = value

    def handle(self, number: int, frame: object) -> None:
        """Handles the signals in the main thread, once it returns to the interpreter."""
        del frame
        self.number = number
        for each in _SIGNALS:
            # A second signal ends a process that does not come to its next poll; a second SIGHUP
            # comes from the shell of the same lost terminal.
            signal.signal(each, signal.SIG_IGN if each == _HANGUP else signal.SIG_DFL)
        # Otherwise the thread ends the process: an exception from here may pass through a callback
        # of XLA's, which does not expect it.
        if not self.patient and self.end is None:
            raise Interrupted(number)

    def watch(self, reader: int) -> None:
        """Ends the process on a signal; runs in a thread of its own.

        Args:
            reader: Pipe to which the C handler writes the number of every signal.
        """
        assert self.end is not None
        received = 0
        while numbers := os.read(reader, 1):
            if numbers[0] not in _SIGNALS:
                continue
            received += 1
            # The handler waits for a long step, as the first signal does.
            if received > 1 and numbers[0] != _HANGUP:
                os._exit(128 + numbers[0])
            with self._lock:
                if not self._patient:
                    self.end(numbers[0])


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Handles the signals inside the block, and restores the handlers afterwards."""
    # Only the main thread may set handlers.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # One that is ignored stays so: nohup has asked for that.
    heeded = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, listener.handle) for number in heeded}
    if listener.end is not None:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=listener.watch, args=(reader,), daemon=True).start()
    try:
        yield
    finally:
        if listener.end is not None:
            # The pipe stays open, since the thread reads it until the process ends.
            signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            # A process that is done ends by the signal, without a traceback.
            signal.signal(number, handler if listener.end is None else signal.SIG_DFL)
