"""Resources of a run: peak memory, and traces of some steps.

A trace shows the work of host and devices at a resolution of microseconds. TensorBoard with its
profile plugin opens its folder, and ui.perfetto.dev the `perfetto_trace.json.gz` in it.
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

# The first steps after compilation differ: they fill caches and allocate memory.
_WARM_UP = 5
# A trace of more steps is slow to open.
_TRACED = 10


def window(start: int, stop: int) -> range:
    """Steps to trace between `start` and `stop`: 10, after 5 steps of warm-up if possible."""
    first = min(start + _WARM_UP, max(stop - 1, start))
    return range(first, min(first + _TRACED, stop))


class Trace:
    """Trace of some steps, written into a folder.

    Args:
        folder: Parent folder; a trace is written to a folder in it, named by date and time.
        steps: Steps to trace, see `window`; an empty range disables tracing.
    """

    def __init__(self, folder: Path, *, steps: range):
        self.folder, self.steps = folder, steps
        self.running = False

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Marks the work inside the block as step `number`."""
        if not self.running and self.steps and number == self.steps.start:
            jax.profiler.start_trace(str(self.folder), create_perfetto_trace=True)
            self.running = True
        if not self.running:
            yield
            return
        # The profile plugin of TensorBoard divides a trace by these marks.
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield

    def end_step(self, number: int, state: PyTree) -> None:
        """Ends the trace after its last step."""
        if self.running and number == self.steps[-1]:
            # A step is dispatched, not done, when it returns: the trace waits for the devices.
            jax.block_until_ready(state)
            self.close()

    def close(self) -> None:
        """Ends a running trace."""
        if self.running:
            self.running = False
            jax.profiler.stop_trace()
            # A run that rolls back to before the window is not traced again.
            self.steps = range(0)


def memory_bytes(devices: Iterable[Any]) -> int | None:
    """Peak memory so far, in bytes.

    Args:
        devices: Devices of this process.

    Returns:
        Peak bytes in use of the largest device, as counted by the backend. A CPU does not count
        them: there the largest resident set of the process, Python and data included. None if
        neither is known.
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
    # macOS reports bytes, Linux kibibytes.
    return most if sys.platform == "darwin" else most * 1024
