"""Encoding: the only door by which time enters. Images, series and events become `[T, B, ...]`.

    values.py    numbers that do not change: direct current, rate and latency code, receptive fields
    signals.py   what has a time axis already: windows and frames turned time-major, level crossings
    spike_lists.py  Poisson trains as lists of who fires, for simulations driven by events
    events.py    event recordings cut into frames, in NumPy on the host, before there is a batch
    slices.py    parts of recordings: random slices, clips, dropped events; likewise on the host

Everything here runs before the first synapse and carries no parameters. Results are time-major and
channels-last. The functions on arrays can be jitted, with `timesteps` (a shape) static.
"""

from snnjax.encoding.events import frames_by_count, frames_by_time, stack_frames
from snnjax.encoding.signals import delta, frames, series
from snnjax.encoding.slices import clips, event_drop, random_slice, slice_by_time
from snnjax.encoding.spike_lists import dense_spikes, poisson_lists, slots_for
from snnjax.encoding.values import direct, latency, poisson, population

__all__ = [
    "clips",
    "delta",
    "dense_spikes",
    "direct",
    "event_drop",
    "frames",
    "frames_by_count",
    "frames_by_time",
    "latency",
    "poisson",
    "poisson_lists",
    "population",
    "random_slice",
    "series",
    "slice_by_time",
    "slots_for",
    "stack_frames",
]
