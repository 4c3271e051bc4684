"""Slices of recordings: selected events and their clock, even clips, EventDrop."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snnjax import encoding
from snnjax.encoding.slices import slice_by_time

fast = settings(max_examples=60, deadline=None, database=None)
durations = st.integers(1, 10**6)


@st.composite
def recordings(draw):
    n = draw(st.integers(1, 50))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    t = np.sort(rng.integers(0, draw(st.integers(1, 10**6)), n)) + draw(st.integers(0, 10**8))
    columns = [t, rng.integers(0, 7, n), rng.integers(0, 5, n), rng.integers(0, 2, n)]
    return np.stack(columns, axis=1).astype(np.int32)


def dense(count=4000, seed=0):
    """Events everywhere in 20 x 30 pixels and one second, one each 250 microseconds."""
    rng = np.random.default_rng(seed)
    t = np.arange(count) * 250 + 1000
    columns = [t, rng.integers(0, 30, count), rng.integers(0, 20, count), rng.integers(0, 2, count)]
    return np.stack(columns, axis=1).astype(np.int32)


@fast
@given(events=recordings(), start=st.integers(0, 10**8), duration=durations)
def test_a_slice_is_the_events_of_its_time_on_its_own_clock(events, start, duration):
    part = slice_by_time(events, start=start, duration=duration)
    expected = [(t - start, x, y, p) for t, x, y, p in events if start <= t < start + duration]
    np.testing.assert_array_equal(part, np.reshape(expected, (-1, 4)))
    assert part.dtype == events.dtype


@fast
@given(events=recordings(), duration=durations, seed=st.integers(0, 2**31))
def test_random_slices_lie_within_the_recording(events, duration, seed):
    part = encoding.slices.random_slice(np.random.default_rng(seed), events, duration=duration)
    span = int(events[-1, 0] - events[0, 0]) + 1
    if span <= duration:  # whole, on a clock that begins with it
        np.testing.assert_array_equal(part, events - [events[0, 0], 0, 0, 0])
    else:  # some slice of this length gives these events, and it fits in
        starts = range(events[0, 0], events[-1, 0] + 2 - duration)
        tried = np.arange(starts.start, starts.stop)
        low = np.searchsorted(events[:, 0], tried)
        high = np.searchsorted(events[:, 0], tried + duration)
        assert any(
            len(part) == b - a and np.array_equal(part[:, 1:], events[a:b, 1:])
            for a, b in sorted(set(zip(low, high, strict=True)))
        )


def test_random_slices_begin_anywhere_evenly():
    # Half of all starts lie in the first half of the 600 milliseconds where a slice can begin.
    events, rng = dense(), np.random.default_rng(1)
    events[:, 1] = np.arange(len(events)) >= 1200
    parts = [encoding.slices.random_slice(rng, events, duration=400_000) for _ in range(600)]
    assert {len(part) for part in parts} == {1600}
    assert 0.42 < np.mean([part[0, 1] == 0 for part in parts]) < 0.58  # four standard errors


@fast
@given(events=recordings(), duration=durations, count=st.integers(1, 9))
def test_clips_are_spread_evenly(events, duration, count):
    made = encoding.slices.clips(events, count=count, duration=duration)
    assert len(made) == count
    first, last = int(events[0, 0]), int(events[-1, 0])
    slack = max(last + 1 - duration - first, 0)
    for k, clip in enumerate(made):
        start = first + (k * slack // (count - 1) if count > 1 else 0)
        np.testing.assert_array_equal(clip, slice_by_time(events, start=start, duration=duration))
    if count > 1 and slack:  # they reach from the first event to the last
        assert made[0][0, 0] == 0 and made[-1][-1, 0] == duration - 1


def test_frames_of_a_slice_keep_its_clock():
    events = np.array([[10, 0, 0, 0], [60, 1, 0, 0], [99, 2, 0, 1]], np.int32)
    part = slice_by_time(events, start=50, duration=50)
    cut = {"timesteps": 5, "height": 1, "width": 3, "duration": 50}
    frames = encoding.events.frames_by_time(part, start=0, **cut)
    assert frames[1, 0, 1, 0] == frames[4, 0, 2, 1] == 1 and frames.sum() == 2
    np.testing.assert_array_equal(frames, encoding.events.frames_by_time(events, start=50, **cut))
    # Without a start, the clock of the first event: another result, which is why there is one.
    assert encoding.events.frames_by_time(part, **cut)[0].sum() == 1


@functools.cache
def drops(count=400, **options):
    """Masks of the events of `dense` that EventDrop keeps, for many draws."""
    events, rng = dense(), np.random.default_rng(3)
    number = {tuple(row): i for i, row in enumerate(events)}
    assert len(number) == len(events)
    kept = np.zeros((count, len(events)), bool)
    for one in kept:
        part = encoding.slices.event_drop(rng, events, height=20, width=30, **options)
        places = [number[tuple(row)] for row in part]
        assert places == sorted(places)  # in their order
        one[places] = True
    return events, kept


def _kind(events, kept):
    """Ways of EventDrop, of four, that are consistent with a mask."""
    if kept.all():
        return "nothing"
    lost = np.flatnonzero(~kept)
    if lost[-1] - lost[0] + 1 == len(lost):
        return "a while"
    x, y = events[:, 1], events[:, 2]
    box = np.ones(len(events), bool)
    for values in (x, y):
        box &= (values >= values[lost].min()) & (values <= values[lost].max())
    return "a rectangle" if (~kept)[box].all() else "any"


def test_event_drop_drops_in_four_ways_equally_often():
    events, kept = drops()
    kinds = [_kind(events, one) for one in kept]
    counts = {kind: kinds.count(kind) for kind in ("nothing", "a while", "a rectangle", "any")}
    assert sum(counts.values()) == 400
    assert all(65 <= n <= 135 for n in counts.values()), counts  # 100 each, four standard errors


@pytest.mark.parametrize(
    ("kind", "low", "high"), [("a while", 0.1, 0.9), ("a rectangle", 0, 0.92), ("any", 0.05, 0.95)]
)
def test_event_drop_drops_as_much_as_its_range_says(kind, low, high):
    events, kept = drops()
    shares = [1 - one.mean() for one in kept if _kind(events, one) == kind]
    assert low <= min(shares) < 0.3 and 0.6 < max(shares) <= high


def test_event_drop_takes_other_ranges_and_its_rectangle_is_no_cross():
    events, kept = drops(200, time=(0.5, 0.5), side=(0.5, 0.5), share=(0.0, 0.0))
    for one in kept:
        if (kind := _kind(events, one)) == "a while":
            assert (~one).sum() in (1999, 2000)  # half a second of one event each 250 us
        elif kind == "a rectangle":
            x, y = events[~one][:, 1], events[~one][:, 2]
            assert x.max() - x.min() == 14 and y.max() - y.min() == 9
            assert 0.2 < (~one).mean() < 0.3  # a cross of these sides would take 0.75
        else:
            assert kind == "nothing"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e, r: slice_by_time(e[:, :3], start=0, duration=1), "must be"),
        (lambda e, r: slice_by_time(e, start=0, duration=0), "duration"),
        (lambda e, r: encoding.slices.random_slice(r, e, duration=-1), "duration"),
        (lambda e, r: encoding.slices.clips(e, count=0, duration=1), "count"),
        (lambda e, r: encoding.slices.event_drop(r, e, height=2, width=2, side=(0.5, 2)), "side"),
        (lambda e, r: encoding.slices.event_drop(r, e, height=2, width=2, time=(0.5, 0.1)), "time"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(dense(10), np.random.default_rng(0))


def test_an_empty_recording_stays_empty():
    empty, rng = np.zeros((0, 4), np.int32), np.random.default_rng(0)
    assert encoding.slices.random_slice(rng, empty, duration=5).shape == (0, 4)
    assert [c.shape for c in encoding.slices.clips(empty, count=2, duration=5)] == [(0, 4)] * 2
    for _ in range(9):
        assert encoding.slices.event_drop(rng, empty, height=2, width=2).shape == (0, 4)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda s, e, r: s.slice_by_time(e, start=0.5, duration=5), TypeError, "start is a whole"),
        (lambda s, e, r: s.slice_by_time(e, start=True, duration=5), TypeError, "start is a whole"),
        (lambda s, e, r: s.slice_by_time(e, start=0, duration=5.0), TypeError, "whole number"),
        (lambda s, e, r: s.slice_by_time(e / 2, start=0, duration=5), TypeError, "astype"),
        (lambda s, e, r: s.clips(e * np.nan, count=2, duration=5), TypeError, "astype"),
        (lambda s, e, r: s.clips(np.ma.masked_equal(e, 1), count=2, duration=5), TypeError, "mask"),
        (lambda s, e, r: s.random_slice(0, e, duration=5), TypeError, "default_rng"),
        (lambda s, e, r: s.event_drop(None, e, height=2, width=2), TypeError, "default_rng"),
        (lambda s, e, r: s.event_drop(r, e, height=0, width=2), ValueError, "height"),
        (
            lambda s, e, r: s.event_drop(r, e, height=2, width=2, share=(np.nan, 1)),
            ValueError,
            "share",
        ),
        (
            lambda s, e, r: s.slice_by_time(LATE, start=-50, duration=2**32),
            ValueError,
            "exceed int32",
        ),
    ],
)
def test_wrong_events_and_generators_are_refused(call, error, match):
    with pytest.raises(error, match=match):
        call(encoding.slices, dense(10), np.random.default_rng(0))


LATE = np.array([[2**31 - 20, 0, 0, 0]], np.int32)


def test_times_near_the_end_of_their_dtype_are_shifted_exactly():
    part = encoding.slices.slice_by_time(LATE, start=2**31 - 30, duration=2**40)
    np.testing.assert_array_equal(part, [[10, 0, 0, 0]])
