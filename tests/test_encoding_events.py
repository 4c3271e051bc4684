"""Laws of event frames: conservation, even slices, causality."""

import functools
import tarfile

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snnjax import encoding

fast = settings(max_examples=40, deadline=None)
slices = st.integers(1, 9)


@st.composite
def recordings(draw, height=5, width=7):
    n = draw(st.integers(0, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    t = np.sort(rng.integers(0, draw(st.integers(1, 10**6)), n)) + draw(st.integers(0, 2**40))
    columns = [t, rng.integers(0, width, n), rng.integers(0, height, n), rng.integers(0, 2, n)]
    return np.stack(columns, axis=1).astype(np.int64)


size = {"height": 5, "width": 7}


@pytest.mark.parametrize("cut", [encoding.events.frames_by_time, encoding.events.frames_by_count])
@fast
@given(events=recordings(), timesteps=slices)
def test_frames_conserve_the_events_of_every_pixel(cut, events, timesteps):
    frames = cut(events, timesteps=timesteps, **size)
    assert frames.shape == (timesteps, 5, 7, 2) and frames.dtype == np.float32
    expected = np.zeros((5, 7, 2))
    for _, x, y, p in events:
        expected[y, x, p] += 1
    np.testing.assert_array_equal(frames.sum(0), expected)
    np.testing.assert_array_equal(frames, cut(events, timesteps=timesteps, dtype=np.uint8, **size))


@fast
@given(events=recordings(), timesteps=slices)
def test_frames_by_count_differ_by_at_most_one_event(events, timesteps):
    counts = encoding.events.frames_by_count(events, timesteps=timesteps, **size).sum((1, 2, 3))
    assert counts.max() - counts.min() <= 1


@fast
@given(events=recordings(), timesteps=slices, duration=st.integers(1, 10**6))
def test_frames_by_time_match_the_slices_of_the_clock(events, timesteps, duration):
    frames = encoding.events.frames_by_time(events, timesteps=timesteps, duration=duration, **size)
    elapsed = [int(t - events[0, 0]) for t in events[:, 0]]
    for i in range(timesteps):
        # Whole numbers: i D <= t T < (i + 1) D.
        inside = [i * duration <= t * timesteps < (i + 1) * duration for t in elapsed]
        assert frames[i].sum() == sum(inside)


def test_frames_by_time_are_causal_blind_to_order_and_to_the_origin_of_time():
    events = np.array([[10, 0, 0, 0], [20, 1, 1, 1], [30, 2, 2, 0], [109, 3, 3, 1]])
    cut = functools.partial(encoding.events.frames_by_time, timesteps=10, duration=100, **size)
    frames = cut(events)
    np.testing.assert_array_equal(frames, cut(events[::-1]))
    np.testing.assert_array_equal(frames, cut((events + [7, 0, 0, 0]).astype(np.uint32)))
    np.testing.assert_array_equal(frames[:9], cut(events[:3])[:9])
    assert frames[9, 3, 3, 1] == 1 and frames[1, 1, 1, 1] == 1  # [y, x, polarity]


def test_real_recordings_conserve_their_events(shared):
    archive = shared("data", "nmnist-small", "NMNISTsmall.tar.xz")
    with tarfile.open(archive, "r|xz") as files:  # a stream: only the beginning is unpacked
        recording = next(f for f in files if f.name.endswith(".bs2"))
        stream = files.extractfile(recording)
        assert stream is not None
        content = stream.read()
    a = np.frombuffer(content, np.uint8).reshape(-1, 5).astype(np.int64)
    t = ((a[:, 2] & 127) << 16) | (a[:, 3] << 8) | a[:, 4]
    events = np.stack([t, a[:, 0], a[:, 1], a[:, 2] >> 7], axis=1)
    for cut in (encoding.events.frames_by_time, encoding.events.frames_by_count):
        assert cut(events, timesteps=16, height=34, width=34).sum() == len(events)


@pytest.mark.parametrize(("dtype", "count"), [(np.float16, 2048), (jnp.bfloat16, 256), (bool, 1)])
def test_counts_up_to_the_limit_of_a_dtype_are_exact(dtype, count):
    frames = cut(np.zeros((count, 4), int), dtype=dtype)
    assert frames.dtype == dtype and int(frames[0, 0, 0, 0]) == count


@pytest.mark.parametrize("limit", [1, 255])
def test_counts_are_cut_off_at_a_limit(limit):
    crowd = np.repeat([[0, 1, 1, 0], [9, 2, 2, 1]], [300, 1], axis=0)
    for cut in (encoding.events.frames_by_time, encoding.events.frames_by_count):
        frames = cut(crowd, timesteps=1, limit=limit, dtype=np.uint8, **size)
        assert frames[0, 1, 1, 0] == limit and frames[0, 2, 2, 1] == 1 and frames.sum() == limit + 1


def test_times_may_be_negative_and_large():
    moved = cut(events - [2**52, 0, 0, 0], start=-(2**52), duration=10)
    np.testing.assert_array_equal(moved, cut(events, duration=10))
    np.testing.assert_array_equal(cut(late(2**62)), cut(events))


def late(time):
    return events.astype(np.uint64) + np.array([time, 0, 0, 0], np.uint64)


events = np.array([[0, 1, 1, 0], [5, 2, 2, 1]])
cut = functools.partial(encoding.events.frames_by_time, timesteps=2, **size)


@pytest.mark.parametrize(
    ("call", "error", "cure"),
    [
        (lambda: cut(events[:, :3]), ValueError, "np.stack"),
        (lambda: cut(events / 2), TypeError, "astype"),
        (lambda: cut(events + [0, 5, 0, 0]), ValueError, "x must lie"),
        (lambda: cut(events - [0, 0, 2, 0]), ValueError, "y must lie"),
        (lambda: cut(events * [1, 1, 1, -1]), ValueError, "p > 0"),
        (lambda: cut(events, duration=0), ValueError, "duration=1"),
        (lambda: cut(events, limit=0), ValueError, "limit=1"),
        (lambda: cut(np.zeros((1000, 4), int), dtype=np.uint8), ValueError, "np.float32"),
        (lambda: cut(np.zeros((2, 4), int), dtype=bool), ValueError, "limit="),
        (lambda: cut(np.zeros((2049, 4), int), dtype=np.float16), ValueError, "exactly"),
        (lambda: cut(np.zeros((257, 4), int), dtype=jnp.bfloat16), ValueError, "exactly"),
        (lambda: cut(events, dtype="U3"), TypeError, "np.uint8"),
        (lambda: cut(events, dtype=object), TypeError, "np.uint8"),
        (lambda: cut(events, dtype=complex), TypeError, "np.uint8"),
        (lambda: cut(events[:0], dtype="U3"), TypeError, "np.uint8"),
        (lambda: cut(np.ma.masked_equal(events, 5)), TypeError, "events\\[~mask\\]"),
        (lambda: cut(events.astype(object)), TypeError, "astype"),
        (lambda: cut(events.astype("U")), TypeError, "astype"),
        (lambda: cut(events > 0), TypeError, "astype"),
        (lambda: cut([[1, 2, 3, 1], [2]]), ValueError, "different lengths"),
        (lambda: cut(events + [np.nan, 0, 0, 0]), TypeError, "astype"),
        (lambda: cut(late(2**63)), ValueError, "beyond 64 bits"),
        (lambda: cut(events * [2**60, 1, 1, 1]), ValueError, "exceed 64 bits"),
        (lambda: cut(events, start=-(2**63)), ValueError, "exceed 64 bits"),
        (lambda: cut(events, duration=2**63), ValueError, "exceed 64 bits"),
        (lambda: cut(events, start=0.5), TypeError, "start is a whole number"),
        (lambda: cut(events, start=np.nan), TypeError, "start is a whole number"),
        (lambda: cut(events, duration=1.5), TypeError, "whole number"),
        (
            lambda: encoding.events.frames_by_count(
                np.array([[2**62, 0, 0, 0], [-(2**62) - 1, 0, 0, 0]]), timesteps=2, **size
            ),
            ValueError,
            "sort",
        ),
        (
            lambda: encoding.events.frames_by_count(events[::-1], timesteps=2, **size),
            ValueError,
            "sort",
        ),
    ],
)
def test_wrong_arguments_name_the_cure(call, error, cure):
    with pytest.raises(error, match=cure):
        call()


@fast
@given(events=recordings(height=1, width=12), timesteps=slices)
def test_channels_are_binned_from_zero_and_summed_with_their_neighbors(events, timesteps):
    events[:, 0] %= 1000
    options = {"timesteps": timesteps, "channels": 12, "duration": 700}
    counts = encoding.events.channels_by_time(events, neighbors=3, **options)
    expected = np.zeros((timesteps, 4))
    for t, x, _, _ in events:
        if t < 700:
            expected[t * timesteps // 700, x // 3] += 1
    np.testing.assert_array_equal(counts, expected)
    single = encoding.events.channels_by_time(events, **options)
    np.testing.assert_array_equal(single.reshape(timesteps, 4, 3).sum(-1), expected)
    present = encoding.events.channels_by_time(events, neighbors=3, limit=1, dtype=bool, **options)
    np.testing.assert_array_equal(present, expected > 0)


@pytest.mark.parametrize(
    ("events", "options", "error", "match"),
    [
        ([[0, 12, 0, 1]], {}, ValueError, r"x must lie in \[0, 12\)"),
        ([[0, 1, 1, 1]], {}, ValueError, r"y must lie in \[0, 1\)"),
        ([[0, 1, 0, 1]], {"neighbors": 5}, ValueError, "do not divide 12 channels"),
        ([[0.5, 1, 0, 1]], {}, TypeError, r"\(1e6 \* t\)"),
        ([[0, 1, 0, 1]], {"duration": 0}, ValueError, "duration counts from 1"),
    ],
)
def test_channels_outside_and_fractional_times_are_refused(events, options, error, match):
    usual = {"timesteps": 2, "channels": 12, "duration": 10}
    with pytest.raises(error, match=match):
        encoding.events.channels_by_time(np.array(events), **(usual | options))
