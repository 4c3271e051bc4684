"""What a run uses: bytes of memory, and on request a trace of some steps.

A trace shows what host and devices did at which microsecond. TensorBoard with its profile plugin
opens the folder, and ui.perfetto.dev the `perfetto_trace.json.gz` in it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax

from snnjax.typing import PyTree

__all__ = ["Trace", "memory_bytes", "window"]

_WARM_UP = 5
_TRACED = 10


def window(start: int, stop: int) -> range:
    """The steps to trace of those from `start` to `stop`: 10, behind 5 to warm up where there are.

    The first steps after compilation are not like the others: caches are filled, memory is taken.
    """
    first = min(start + _WARM_UP, max(stop - 1, start))
    return range(first, min(first + _TRACED, stop))


class Trace:
    """A trace of the steps of a window, written into a folder; nothing without a window.

    Args:
        folder: Where it is written; each trace gets a folder named after the time in it.
        steps: The steps to trace, see `window`; an empty range traces none.
    """

    def __init__(self, folder: Path, *, steps: range):
        self.folder, self.steps = folder, steps
        self.running = False

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """What is done inside the block is step `number`."""
        if not self.running and self.steps and number == self.steps.start:
            jax.profiler.start_trace(str(self.folder), create_perfetto_trace=True)
            self.running = True
        if not self.running:
            yield
            return
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield

    def after(self, number: int, state: PyTree) -> None:
        """Ends the trace after its last step, once the devices are done with it."""
        if self.running and number == self.steps[-1]:
            jax.block_until_ready(state)
            self.close()

    def close(self) -> None:
        """Ends a trace that is running."""
        if self.running:
            self.running = False
            jax.profiler.stop_trace()
            # One trace is enough, also of a run that rolls back to before it.
            self.steps = range(0)


def memory_bytes(devices: Iterable[Any]) -> int | None:
    """The most memory used so far.

    Args:
        devices: Of this process.

    Returns:
        Bytes in use at the peak on the device that needed most, as the backend counts them; where
        it does not, as on a CPU, the largest resident set of the process, Python and data included.
        None where neither is told.
    """
    stats = [device.memory_stats() or {} for device in devices]
    peaks = [each["peak_bytes_in_use"] for each in stats if "peak_bytes_in_use" in each]
    return max(peaks) if peaks else _resident_bytes()


def _resident_bytes() -> int | None:
    try:
        import resource
    except ImportError:  # not on this platform
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
