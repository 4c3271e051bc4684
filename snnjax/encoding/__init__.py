"""Encoding: conversion of images, series and events to time-major input `[T, B, ...]`.

    direct, poisson, latency, population    codes of constant numbers
    series, frames, delta                   arrays with a time axis, to time-major

Public modules hold the rest:

    spike_lists    Poisson trains as lists of indices, for event-driven simulation
    audio          sound to mel bands or to spikes of a cochlea, on the host
    events         event recordings to frames, in NumPy on the host, one recording at a time
    slices         parts of event recordings: random slices, clips, dropped events; on the host

Encoders run before the first synapse and carry no parameters; no other package adds the time axis.
Results are time-major and channels-last. The functions of arrays can be jitted, with `timesteps` (a
shape) static.
"""

# As modules: they run on the host or return lists, unlike the encoders of arrays below.
from snnjax.encoding import audio, events, slices, spike_lists
from snnjax.encoding.signals import delta, frames, series
from snnjax.encoding.values import direct, latency, poisson, population

__all__ = [
    "audio",
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
