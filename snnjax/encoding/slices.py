"""Parts of event recordings, in NumPy on the host: slices of time, clips, and dropped events.

A recording is an integer array `[n, 4]` of rows t, x, y, polarity, see `events.py`. A slice counts
its time from its own start, so that `frames_by_time(slice, start=0, duration=...)` cuts it:

    slice        { (t - start, x, y, p) : start <= t < start + duration }
    random       start ~ uniform over t_first ... t_last + 1 - duration
    clip k of K  start = t_first + k (t_last + 1 - duration - t_first) / (K - 1)

Whoever draws brings its own generator: nothing here keeps one.

References: Yao, Hu, Zhao, Wang, Zhang, Xu, Li, "Inherent Redundancy in Spiking Neural Networks",
ICCV 2023, arXiv:2308.08227 (random slices to train on, ten clips to test on); Gu, Sng, Hu, Yu,
"EventDrop: Data Augmentation for Event-based Learning", IJCAI 2021, arXiv:2106.05836.
"""

from __future__ import annotations

import numpy as np

from snnjax.encoding import checks

__all__ = ["clips", "event_drop", "random_slice", "slice_by_time"]

Range = tuple[float, float]


def slice_by_time(events: np.ndarray, *, start: int, duration: int) -> np.ndarray:
    """The events of one stretch of time, which counts from 0 where the stretch begins.

        { (t - start, x, y, p) : start <= t < start + duration }

    Args:
        events: `[n, 4]`, integers.
        start: In microseconds, on the clock of the recording.
        duration: In microseconds, at least 1.

    Returns:
        `[m, 4]`, of the dtype of `events`, in their order.

    Raises:
        ValueError: If `events` are not `[n, 4]`, or `duration` is below 1.
    """
    events, duration = checks.recording(events), checks.positive_integer("duration", duration)
    t = events[:, 0]
    inside = events[(t >= start) & (t < start + duration)].copy()
    inside[:, 0] -= start
    return inside


def random_slice(rng: np.random.Generator, events: np.ndarray, *, duration: int) -> np.ndarray:
    """A slice that begins anywhere in the recording where it still fits in: to train on.

    A recording that is not longer than `duration` is returned whole.

    Args:
        rng: Draws the start.
        events: `[n, 4]`, integers.
        duration: In microseconds, at least 1.

    Returns:
        `[m, 4]`, see `slice_by_time`.

    Raises:
        ValueError: If `events` are not `[n, 4]`, or `duration` is below 1.
    """
    events = checks.recording(events)
    first, slack = _slack(events, duration)
    start = first + int(rng.integers(0, slack, endpoint=True))
    return slice_by_time(events, start=start, duration=duration)


def clips(events: np.ndarray, *, count: int, duration: int) -> list[np.ndarray]:
    """Slices that are spread evenly over the recording: to test on, each voting for a class.

    They overlap where `count * duration` is longer than the recording, and leave gaps where it is
    shorter. A single clip begins with the recording, and so do all clips of a recording that is not
    longer than `duration`.

    Args:
        events: `[n, 4]`, integers.
        count: K, at least 1.
        duration: In microseconds, at least 1.

    Returns:
        K arrays `[m, 4]`, see `slice_by_time`.

    Raises:
        ValueError: If `events` are not `[n, 4]`, or `count` or `duration` is below 1.
    """
    events, count = checks.recording(events), checks.positive_integer("count", count)
    first, slack = _slack(events, duration)
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
    """Drops none of the events, those of a while, of a rectangle, or any of them: one of the four.

        nothing      with probability 1/4, like each of the others
        a while      the events of a stretch of `r` of the duration, r ~ uniform over `time`
        a rectangle  the events of `r_y H` rows by `r_x W` columns, each r ~ uniform over `side`
        any          each event with probability r, r ~ uniform over `share`

    Stretch and rectangle lie anywhere where they fit in. The ranges are those of ASA-SNN's recipe
    for gait. Its released code drops a cross instead of a rectangle (it joins "outside in x" and
    "outside in y" by *and*), looks for the rectangle in the columns of y and polarity, and places
    it as if on 32x32 pixels while the events are still on 128x128; here none of the three.

    Args:
        rng: Draws which of the four, and all else.
        events: `[n, 4]`, integers.
        height: H in pixels.
        width: W in pixels.
        time: Of the share of the duration.
        side: Of the share of each side.
        share: Of the share of events, in the mean.

    Returns:
        `[m, 4]`, in their order, on the clock of the recording.

    Raises:
        ValueError: If `events` are not `[n, 4]`, or a range does not lie within 0 and 1.
    """
    events = checks.recording(events)
    for name, bounds in (("time", time), ("side", side), ("share", share)):
        if not 0 <= bounds[0] <= bounds[1] <= 1:
            raise ValueError(f"{name} must be two shares in order, within 0 and 1, got {bounds}")
    what = rng.integers(4)
    if what == 0 or len(events) == 0:
        return events.copy()
    t, x, y = events[:, 0], events[:, 1], events[:, 2]
    if what == 1:
        dropped = _within(rng, t, int(t.min()), int(t.max()) + 1, time)
    elif what == 2:
        dropped = _within(rng, x, 0, width, side) & _within(rng, y, 0, height, side)
    else:
        dropped = rng.random(len(events)) < rng.uniform(*share)
    return events[~dropped]


def _within(
    rng: np.random.Generator, values: np.ndarray, low: int, high: int, shares: Range
) -> np.ndarray:
    """Which of the whole numbers `values` lie in a random interval of low ... high - 1."""
    length = round(rng.uniform(*shares) * (high - low))
    start = low + rng.integers(0, high - low - length, endpoint=True)
    return (values >= start) & (values < start + length)


def _slack(events: np.ndarray, duration: int) -> tuple[int, int]:
    """When the recording begins, and how much later the last slice that fits in can begin."""
    duration = checks.positive_integer("duration", duration)
    if len(events) == 0:
        return 0, 0
    first, last = int(events[:, 0].min()), int(events[:, 0].max())
    return first, max(last + 1 - duration - first, 0)
