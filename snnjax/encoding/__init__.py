"""Encoding: conversion of images, series and events to time-major input `[T, B, ...]`.

    values.py       constant numbers: direct current, rate and latency code, receptive fields
    signals.py      arrays with a time axis: windows and frames to time-major, level crossings
    spike_lists.py  Poisson trains as lists of indices, for event-driven simulation
    events.py       event recordings to frames, in NumPy on the host, one recording at a time
    slices.py       parts of event recordings: random slices, clips, dropped events; on the host

Encoders run before the first synapse and carry no parameters; no other package adds the time axis.
Results are time-major and channels-last. The functions of arrays can be jitted, with `timesteps` (a
shape) static.
"""

from snnjax.encoding import events, slices, spike_lists
from snnjax.encoding.signals import delta, frames, series
from snnjax.encoding.values import direct, latency, poisson, population

__all__ = [
    "events",
    "spike_lists",
    "slices",
    "delta",
    "direct",
    "frames",
    "latency",
    "poisson",
    "population",
    "series",
]
