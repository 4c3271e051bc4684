"""Lazy inputs: reproducible from seed and step, different in each epoch."""

import dataclasses

import numpy as np
import pytest

from snnjax import data, encoding

pytestmark = pytest.mark.fast


def _recording(number):
    t = np.arange(100, dtype=np.int32) * 10 + 1000 * number
    zeros = np.zeros_like(t)
    column = (np.arange(100, dtype=np.int32) // 13 + number) % 8  # a point that moves
    return np.stack([t, column, zeros, zeros], axis=1)


def _dataset(train=6, test=3):
    splits = [
        data.Split(tuple(map(_recording, range(n))), np.arange(n, dtype=np.int32) % 3)
        for n in (train, test)
    ]
    return data.Dataset("lines", *splits, 3, ("a", "b", "c"), (1, 8, 2), 1.0, "made up")


def _frames(events, rng):
    if rng is not None:
        events = encoding.slices.random_slice(rng, events, duration=300)
    return encoding.events.frames_by_time(events, timesteps=4, height=1, width=8, duration=300)


def _loader(seed=0, **options):
    dataset = data.map_inputs(_dataset(), _frames)
    return data.Loader(dataset.train, batch_size=2, seed=seed, **options)


def test_a_data_set_tells_the_shape_and_reads_nothing_else():
    read = []

    def transform(events, rng):
        read.append(len(events))
        return _frames(events, rng)

    dataset = data.map_inputs(_dataset(), transform, scale=0.5)
    assert dataset.input_shape == (1, 8, 2) and dataset.scale == 0.5 and len(read) == 1
    assert len(dataset.train.take(np.array([4, 1]))) == 2 and len(read) == 1


def test_the_batch_of_a_step_is_a_function_of_the_seed_and_the_step():
    straight = [_loader().batch(step).inputs for step in range(9)]
    loader = _loader()
    for step in (7, 2, 8, 2):
        np.testing.assert_array_equal(loader.batch(step).inputs, straight[step])
    assert any(not np.array_equal(_loader(1).batch(i).inputs, straight[i]) for i in range(3))


def test_an_example_is_another_one_in_each_epoch_and_the_same_wherever_it_stands():
    loader, seen = _loader(), {}
    for step in range(30):
        batch, (epoch, _) = loader.batch(step), loader.position(step)
        for place, frames in zip(loader.indices(step)[0], batch.inputs, strict=True):
            seen.setdefault(int(place), []).append((epoch, frames))
    for drawn in seen.values():
        assert len(drawn) == 10
        assert len({frames.tobytes() for _, frames in drawn}) > 5  # of 10 epochs
    inputs = loader.split.inputs
    alone = inputs.batch(np.array([3]), draw=(0, 4))
    np.testing.assert_array_equal(inputs.batch(np.array([5, 3]), draw=(0, 4))[1], alone[0])


def test_evaluation_draws_nothing():
    split = data.map_inputs(_dataset(), _frames).test
    (first, second) = data.evaluation_batches(split, batch_size=2)
    expected = [_frames(_recording(i), None) for i in range(3)]
    np.testing.assert_array_equal(first.inputs, expected[:2])
    np.testing.assert_array_equal(second.inputs[:1], expected[2:])
    np.testing.assert_array_equal(second.weights, [1, 0])
    np.testing.assert_array_equal(split[1][0], expected[1])


def test_unequal_shapes_and_empty_splits_are_named():
    dataset = data.map_inputs(_dataset(), lambda events, rng: events[: 1 + events[0, 1]])
    with pytest.raises(ValueError, match="one shape"):
        data.Loader(dataset.train, batch_size=4).batch(0)
    with pytest.raises(ValueError, match="empty"):
        data.map_inputs(_dataset(train=0), _frames)


def test_clips_follow_their_recording():
    split = data.clips(_dataset().test, count=4, duration=300)
    assert len(split) == 12
    np.testing.assert_array_equal(split.labels, np.repeat([0, 1, 2], 4))
    for i in range(3):
        for k, expected in enumerate(encoding.slices.clips(_recording(i), count=4, duration=300)):
            np.testing.assert_array_equal(split.inputs[4 * i + k], expected)
    # They go the way of all recordings: frames at once, or batch by batch.
    dataset = dataclasses.replace(_dataset(), test=split)
    cut = lambda events, rng=None: _frames(events, None)  # noqa: E731
    at_once, on_request = data.dense(dataset, cut).test, data.map_inputs(dataset, cut).test
    np.testing.assert_array_equal(at_once.inputs, on_request.inputs.batch(np.arange(12)))


def test_lengths_of_recordings_are_kept_and_fit_the_frames():
    split = data.Split(
        (np.zeros((3, 4), np.int32),) * 2, np.array([0, 1]), lengths=np.array([1, 3])
    )
    dataset = data.Dataset("made", split, split, 2, ("a", "b"), (4, 4, 2), 1.0, "")

    def frames(events, rng):
        return np.zeros((3, 4, 4, 2), np.float32)

    found = data.map_inputs(dataset, frames)
    loader = data.Loader(found.test, batch_size=1, shuffle=False, buckets=(2, 3))
    assert [b.inputs.shape[1] for b in loader.batches(stop=2)] == [2, 3]
    with pytest.raises(ValueError, match="3 valid ones"):
        data.map_inputs(dataset, lambda events, rng: frames(events, rng)[:2])
    with pytest.raises(ValueError, match="leave lengths out"):
        data.clips(split, count=2, duration=5)
