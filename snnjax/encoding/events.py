"""Frames from event recordings, in NumPy on the host, one recording at a time.

A recording is an integer array `[n, 4]`, one row per event, with the columns

    t  microseconds        x  column in [0, W)        y  row in [0, H)        p  polarity, 0 or 1

A frame counts the events of a time slice, `frame[y, x, p]`. There are two ways to slice:

    by time    frame = (t - t[0]) T // duration     equal durations, different counts
    by count   frame = k T // n for event k of n    equal counts, different durations

Both conserve events: the frames of a recording sum to its number of events (within the duration).
Frames of one recording are `[T, H, W, 2]`, of many `[N, T, H, W, 2]` (`data.dense`);
`encoding.frames` turns a batch of them time-major. Spikes of a cochlea are events of one row:
`channels_by_time` bins them to `[T, C]`.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from numpy.typing import DTypeLike

from snnjax.encoding import _checks as checks

_END_OF_TIME = 2**63


def frames_by_time(
    events: np.ndarray,
    *,
    timesteps: int,
    height: int,
    width: int,
    start: int | None = None,
    duration: int | None = None,
    limit: int | None = None,
    dtype: DTypeLike = np.float32,
) -> np.ndarray:
    """Cuts a recording into `timesteps` slices of equal duration and counts the events of each.

        frame of an event = floor((t - start) T / duration)

    Events need not be sorted.

    Args:
        events: `[n, 4]`, integers: t in microseconds, x, y, polarity 0 or 1.
        timesteps: T, at least 1.
        height: H in pixels.
        width: W in pixels.
        start: Beginning of the window, in microseconds; earlier events are dropped. None is the
            first event of the recording; slices (`encoding.slices.clips`) begin at 0.
        duration: Length of the window, in microseconds; later events are dropped, and a shorter
            recording ends in empty frames. None extends the window to the last event.
        limit: Largest count; a pixel with more events has this count. 1 is presence alone, 255
            fits `np.uint8`. None keeps all events.
        dtype: dtype of the counts. `np.uint8` takes a quarter of the memory and raises an error
            for counts over 255; float16 does above 2048, bool above 1.

    Returns:
        Counts `[T, H, W, 2]`.

    Raises:
        TypeError: If `events` are not integers, or `dtype` is none of numbers.
        ValueError: If an event lies outside the frame, a polarity is not 0 or 1, `dtype` does not
            hold a count exactly, the window exceeds 64 bits, or `timesteps`, `height`, `width`,
            `duration` or `limit` is below 1.

    Example:
        >>> frames_by_time(events, timesteps=16, height=34, width=34, duration=300_000).shape
        (16, 34, 34, 2)
    """
    shape = _shape(timesteps, height, width)
    events = _validate(events, height, width)
    if duration is not None:
        duration = checks.positive_integer("duration", duration)
    # A random slice may be empty, and has no first timestamp.
    if len(events) == 0:
        _largest_count(dtype)  # refuses a dtype of no numbers here too
        return np.zeros(shape, dtype)
    t = events[:, 0]
    first, last = int(t.min()), int(t.max())
    start = first if start is None else checks.integer("start", start)
    if duration is None:
        duration = max(last - start + 1, 1)  # + 1: the last event belongs to the last frame
    # Python's integers know the products below before 64 bits wrap around.
    if max(abs(first - start), abs(last - start), duration) * shape[0] >= _END_OF_TIME:
        raise ValueError(
            f"times from {first} to {last} us, counted from {start} in {shape[0]} timesteps of "
            f"{duration} us together, exceed 64 bits: count time from the first event, in "
            "microseconds"
        )
    elapsed = t - start
    inside = (elapsed >= 0) & (elapsed < duration)
    # Integer arithmetic: a float quotient could put an event on a boundary into the wrong frame.
    return _count(events[inside], elapsed[inside] * shape[0] // duration, shape, dtype, limit)


def frames_by_count(
    events: np.ndarray,
    *,
    timesteps: int,
    height: int,
    width: int,
    limit: int | None = None,
    dtype: DTypeLike = np.float32,
) -> np.ndarray:
    """Cuts a recording into `timesteps` runs of equally many events.

        frame of event k = floor(k T / n),  k = 0 ... n-1

    The numbers of events of two frames differ by at most one. Fast motion gets more frames, slow
    motion fewer, and absolute time is lost.

    Args:
        events: `[n, 4]`, integers, ordered by time: t in microseconds, x, y, polarity 0 or 1.
        timesteps: T, at least 1.
        height: H in pixels.
        width: W in pixels.
        limit: Largest count; a pixel with more events has this count. 1 is presence alone, 255
            fits `np.uint8`. None keeps all events.
        dtype: dtype of the counts. `np.uint8` takes a quarter of the memory and raises an error
            for counts over 255; float16 does above 2048, bool above 1.

    Returns:
        Counts `[T, H, W, 2]`.

    Raises:
        TypeError: If `events` are not integers, or `dtype` is none of numbers.
        ValueError: If the events are not ordered by time, an event lies outside the frame, a
            polarity is not 0 or 1, `dtype` does not hold a count exactly, or `timesteps`, `height`,
            `width` or `limit` is below 1.
    """
    shape = _shape(timesteps, height, width)
    events = _validate(events, height, width)
    # Not sorted silently: unordered times are often a sign of exchanged columns.
    if np.any(events[1:, 0] < events[:-1, 0]):
        raise ValueError(
            "events must be ordered by time to be cut by count: give "
            "events[np.argsort(events[:, 0], kind='stable')]"
        )
    # int64: k T may exceed 32 bits.
    order = np.arange(len(events), dtype=np.int64)
    return _count(events, order * shape[0] // max(len(events), 1), shape, dtype, limit)


def channels_by_time(
    events: np.ndarray,
    *,
    timesteps: int,
    channels: int,
    duration: int,
    start: int = 0,
    neighbors: int = 1,
    limit: int | None = None,
    dtype: DTypeLike = np.float32,
) -> np.ndarray:
    """Bins spikes of channels in one row, such as those of SHD and SSC.

        y[t, c] = events with  floor((time - start) T / duration) = t  and  floor(x / neighbors) = c

    Usual for SHD and SSC: `channels=700`, `timesteps=100`, `duration=1_400_000`; `neighbors=5` sums
    them to 140 channels. Time counts from `start`, not from the first spike, and polarity is not
    read.

    Args:
        events: `[n, 4]`, integers: t in microseconds, channel, row 0, polarity 0 or 1.
        timesteps: T, at least 1.
        channels: Number of channels of the recording.
        duration: Length of the window, in microseconds; later spikes are dropped.
        start: Beginning of the window, in microseconds; earlier spikes are dropped.
        neighbors: Neighboring channels summed into one; a divisor of `channels`.
        limit: Largest count; None keeps all spikes, 1 is presence alone.
        dtype: dtype of the counts, see `frames_by_time`.

    Returns:
        Counts `[T, channels / neighbors]`.

    Raises:
        TypeError: If `events` are not integers, or `dtype` is none of numbers.
        ValueError: If an event lies outside the channels or row 0, `neighbors` does not divide
            `channels`, or a number is outside its range.

    References:
        B. Cramer, Y. Stradmann, J. Schemmel, F. Zenke, "The Heidelberg Spiking Data Sets for the
        Systematic Evaluation of Spiking Neural Networks", 2022, arXiv:1910.07407.
        I. Hammouamri, I. Khalfaoui-Hassani, T. Masquelier, "Learning Delays in Spiking Neural
        Networks using Dilated Convolutions with Learnable Spacings", 2023, arXiv:2306.17670 (140
        channels).

    Example:
        >>> spikes = np.array([[0, 3, 0, 1], [9_000, 699, 0, 1], [20_000, 4, 0, 1]])
        >>> channels_by_time(spikes, timesteps=2, channels=700, duration=40_000, neighbors=5).sum(1)
        array([2., 1.], dtype=float32)
    """
    neighbors = checks.positive_integer("neighbors", neighbors)
    channels = checks.positive_integer("channels", channels)
    if channels % neighbors:
        raise ValueError(
            f"{neighbors} neighbors do not divide {channels} channels: give a divisor, 5 for 700"
        )
    # Before channels are divided: one outside could fall into the last bin.
    events = _validate(events, 1, channels)
    summed = np.stack([events[:, 0], events[:, 1] // neighbors, events[:, 2], events[:, 2]], axis=1)
    counts = frames_by_time(
        summed,
        timesteps=timesteps,
        height=1,
        width=channels // neighbors,
        start=start,
        duration=duration,
        limit=limit,
        dtype=dtype,
    )
    return counts[:, 0, :, 0]


def _shape(timesteps: int, height: int, width: int) -> tuple[int, int, int, int]:
    return (
        checks.positive_integer("timesteps", timesteps),
        checks.positive_integer("height", height),
        checks.positive_integer("width", width),
        2,
    )


def _validate(events: np.ndarray, height: int, width: int) -> np.ndarray:
    """Events as int64 `[n, 4]`, all inside the frame."""
    events = checks.recording(events)
    # No other dtype exceeds int64.
    if len(events) and events.dtype == np.uint64 and events.max() > np.iinfo(np.int64).max:
        raise ValueError(
            f"events hold {events.max()}, beyond 64 bits: count time from the first event, "
            "t - t.min()"
        )
    # int64: differences of unsigned timestamps would wrap around, and t * T may exceed 32 bits.
    events = events.astype(np.int64)
    for name, column, end in (("x", 1, width), ("y", 2, height)):
        values = events[:, column]
        if np.any((values < 0) | (values >= end)):
            raise ValueError(
                f"{name} must lie in [0, {end}), got {values.min()} to {values.max()}: check "
                f"height, width and the order of the columns (t, x, y, polarity)"
            )
    if np.any((events[:, 3] < 0) | (events[:, 3] > 1)):
        raise ValueError("polarity must be 0 or 1: where it is -1 and 1, write p > 0")
    return events


def _count(
    events: np.ndarray,
    frame: np.ndarray,
    shape: tuple[int, int, int, int],
    dtype: DTypeLike,
    limit: int | None,
) -> np.ndarray:
    # bincount is one pass over the events; np.add.at is several times slower.
    index = np.ravel_multi_index((frame, events[:, 2], events[:, 1], events[:, 3]), shape)
    counts = np.bincount(index, minlength=int(np.prod(shape))).reshape(shape)
    if limit is not None:
        counts = np.minimum(counts, checks.positive_integer("limit", limit))
    if counts.max() > _largest_count(dtype):
        raise ValueError(
            f"a pixel counts {counts.max()} events in one frame, more than {np.dtype(dtype)} holds "
            f"exactly: give dtype=np.float32, more timesteps, or limit= to cut counts off, 1 where "
            "presence counts alone"
        )
    return counts.astype(dtype)


def _largest_count(dtype: DTypeLike) -> int:
    """Largest number up to which `dtype` holds every count."""
    # NumPy takes None for float64.
    dtype = np.dtype(object if dtype is None else dtype)
    if dtype.kind == "b":
        return 1
    if jnp.issubdtype(dtype, jnp.integer):
        return int(jnp.iinfo(dtype).max)
    if jnp.issubdtype(dtype, jnp.floating):
        return 2 ** (jnp.finfo(dtype).nmant + 1)
    raise TypeError(f"counts are numbers: dtype is np.uint8 or np.float32, not {dtype}")
