"""Parts of event recordings, in NumPy on the host: time slices, clips, and dropped events.

A recording is an integer array `[n, 4]` of rows t, x, y, polarity, see `events.py`. The time of a
slice counts from its own start, so that `frames_by_time(slice, start=0, duration=...)` encodes it:

    slice        { (t - start, x, y, p) : start <= t < start + duration }
    random       start ~ uniform over t_first ... t_last + 1 - duration
    clip k of K  start = t_first + k (t_last + 1 - duration - t_first) / (K - 1)

Random functions take a generator of the caller; the module keeps no random state.

References: Yao, Hu, Zhao, Wang, Zhang, Xu, Li, "Inherent Redundancy in Spiking Neural Networks",
ICCV 2023, arXiv:2308.08227 (random slices to train on, ten clips to test on); Gu, Sng, Hu, Yu,
"EventDrop: Data Augmentation for Event-based Learning", IJCAI 2021, arXiv:2106.05836.
"""

from __future__ import annotations

import numpy as np

from snnjax.encoding import _checks as checks

__all__ = ["clips", "event_drop", "random_slice", "slice_by_time"]

Range = tuple[float, float]


def slice_by_time(events: np.ndarray, *, start: int, duration: int) -> np.ndarray:
    """Selects the events of a time interval and counts time from its start.

        { (t - start, x, y, p) : start <= t < start + duration }

    Args:
        events: `[n, 4]`, integers.
        start: Start of the interval, in microseconds of the recording's clock.
        duration: Length of the interval, in microseconds, at least 1.

    Returns:
        `[m, 4]`, of the dtype of `events`, in their order.

    Raises:
        TypeError: If `events` are not integers.
        ValueError: If `events` are not `[n, 4]`, or `duration` is below 1.
    """
    events, duration = checks.recording(events), checks.positive_integer("duration", duration)
    start = checks.integer("start", start)
    t = events[:, 0]
    # A copy, since the clock is shifted in place below and the caller keeps the recording.
    selected = events[(t >= start) & (t < start + duration)].copy()
    # A start before time zero moves times up, possibly beyond the dtype of the recording.
    if len(selected):
        last, end = int(selected[:, 0].max()) - start, np.iinfo(events.dtype).max
        if last > end or abs(start) > end:
            raise ValueError(
                f"times up to {last} us from start={start} exceed {events.dtype}: give "
                "events.astype(np.int64)"
            )
    selected[:, 0] -= start
    return selected


def random_slice(rng: np.random.Generator, events: np.ndarray, *, duration: int) -> np.ndarray:
    """Cuts a slice at a random position within the recording, for training.

    A recording that is no longer than `duration` is returned whole.

    Args:
        rng: Generator that draws the start.
        events: `[n, 4]`, integers.
        duration: Length of the slice, in microseconds, at least 1.

    Returns:
        `[m, 4]`, see `slice_by_time`.

    Raises:
        TypeError: If `events` are not integers.
        ValueError: If `events` are not `[n, 4]`, or `duration` is below 1.
    """
    checks.generator(rng)
    events = checks.recording(events)
    first, slack = _start_range(events, duration)
    # The end is a valid start: there the slice ends with the last event.
    start = first + int(rng.integers(0, slack, endpoint=True))
    return slice_by_time(events, start=start, duration=duration)


def clips(events: np.ndarray, *, count: int, duration: int) -> list[np.ndarray]:
    """Cuts evenly spaced slices of a recording, for testing by a vote of its clips.

    Clips overlap if `count * duration` is longer than the recording, and leave gaps if it is
    shorter. A single clip begins with the recording, and so do all clips of a recording that is no
    longer than `duration`.

    Args:
        events: `[n, 4]`, integers.
        count: K, number of clips, at least 1.
        duration: Length of a clip, in microseconds, at least 1.

    Returns:
        K arrays `[m, 4]`, see `slice_by_time`.

    Raises:
        TypeError: If `events` are not integers.
        ValueError: If `events` are not `[n, 4]`, or `count` or `duration` is below 1.
    """
    events, count = checks.recording(events), checks.positive_integer("count", count)
    first, slack = _start_range(events, duration)
    # The maximum keeps a single clip from dividing by zero: it begins with the recording.
    starts = [first + k * slack // max(count - 1, 1) for k in range(count)]
    return [slice_by_time(events, start=start, duration=duration) for start in starts]


def event_drop(
    rng: np.random.Generator,
    events: np.ndarray,
    *,
    height: int,
    width: int,
    time: Range = (0.1, 0.9),
    side: Range = (0.05, 0.95),
    share: Range = (0.1, 0.9),
) -> np.ndarray:
    """Augments a recording by EventDrop: drops nothing, an interval, a rectangle or random events.

        nothing      with probability 1/4, like each of the others
        interval     the events of an interval of `r` of the duration, r ~ uniform over `time`
        rectangle    the events of `r_y H` rows by `r_x W` columns, each r ~ uniform over `side`
        random       each event with probability r, r ~ uniform over `share`

    Interval and rectangle have uniform positions within the recording. The default ranges are those
    of ASA-SNN's recipe for gait. ASA-SNN's released code drops a cross instead of a rectangle (it
    joins "outside in x" and "outside in y" by *and*), takes the rectangle in the columns of y and
    polarity, and places it on a 32x32 grid while the events are still on 128x128; these three are
    not reproduced.

    Args:
        rng: Generator of all draws.
        events: `[n, 4]`, integers.
        height: H in pixels.
        width: W in pixels.
        time: Range of the interval's share of the duration.
        side: Range of the rectangle's share of each side.
        share: Range of the mean share of dropped events.

    Returns:
        `[m, 4]`, in the order and on the clock of the recording.

    Raises:
        TypeError: If `events` are not integers.
        ValueError: If `events` are not `[n, 4]`, or a range does not lie within 0 and 1.
    """
    checks.generator(rng)
    events = checks.recording(events)
    height = checks.positive_integer("height", height)
    width = checks.positive_integer("width", width)
    for name, bounds in (("time", time), ("side", side), ("share", share)):
        try:
            low, high = bounds
            ordered = 0 <= low <= high <= 1
        except (TypeError, ValueError):
            ordered = False
        if not ordered:
            raise ValueError(f"{name} must be two shares in order, within 0 and 1, got {bounds}")
    kind = rng.integers(4)
    # A copy in every case: callers may write into the result.
    if kind == 0 or len(events) == 0:
        return events.copy()
    t, x, y = events[:, 0], events[:, 1], events[:, 2]
    if kind == 1:
        dropped = _random_interval(rng, t, int(t.min()), int(t.max()) + 1, time)
    elif kind == 2:
        columns = _random_interval(rng, x, 0, width, side)
        dropped = columns & _random_interval(rng, y, 0, height, side)
    else:
        dropped = rng.random(len(events)) < rng.uniform(*share)
    return events[~dropped]


def _random_interval(
    rng: np.random.Generator, values: np.ndarray, low: int, high: int, shares: Range
) -> np.ndarray:
    """Mask of the integers `values` that lie in a random interval within low ... high - 1."""
    length = round(rng.uniform(*shares) * (high - low))
    start = low + rng.integers(0, high - low - length, endpoint=True)
    return (values >= start) & (values < start + length)


def _start_range(events: np.ndarray, duration: int) -> tuple[int, int]:
    """First timestamp, and the latest start of a full slice relative to it, in microseconds."""
    duration = checks.positive_integer("duration", duration)
    if len(events) == 0:
        return 0, 0
    first, last = int(events[:, 0].min()), int(events[:, 0].max())
    # Not below 0: a recording shorter than a slice begins where it begins.
    return first, max(last + 1 - duration - first, 0)
