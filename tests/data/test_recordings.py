"""Recordings on disk: read on access, one at a time, usable like a tuple."""

import weakref

import numpy as np
import pytest

from snnjax import data, encoding
from snnjax.data._recordings import Recordings, as_events


class Disk:
    """Counts reads and recordings alive at the same time."""

    def __init__(self):
        self.read, self.alive, self.most = [], 0, 0

    def __call__(self, source):
        self.read.append(source)
        events = np.array([[0, source, 0, 1], [9, source, 1, 0]], np.int32)
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(events, self._free)
        return events

    def _free(self):
        self.alive -= 1


def _to_frames(events):
    return encoding.events.frames_by_time(events, timesteps=3, height=2, width=40, dtype=np.uint8)


def _dataset(disk, number=12):
    return data.from_arrays(
        Recordings(range(number), disk),
        np.arange(number) % 2,
        Recordings(range(20, 24), disk),
        np.arange(4) % 2,
        input_shape=(2, 40, 2),
    )


@pytest.mark.fast
def test_nothing_is_read_before_it_is_asked_for():
    disk = Disk()
    dataset = _dataset(disk)
    taken = dataset.train.take(np.array([7, 2]))
    assert disk.read == [] and len(taken) == 2 and len(dataset.train.inputs[3:5]) == 2
    np.testing.assert_array_equal(taken.inputs[1], [[0, 2, 0, 1], [9, 2, 1, 0]])
    events, label = dataset.train[5]
    assert events[0, 1] == 5 and label == 1
    assert dataset.train.inputs[3:5][-1][0, 1] == 4
    assert disk.read == [2, 5, 4]


@pytest.mark.fast
def test_recordings_that_end_end_a_loop():
    disk = Disk()
    assert [events[0, 1] for events in Recordings((3, 1), disk)] == [3, 1]


@pytest.mark.fast
def test_folds_of_recordings_read_none():
    disk = Disk()
    seen = [fold.test.inputs.sources for fold in data.folds(_dataset(disk), k=4)]
    assert disk.read == []
    assert sorted(sum(seen, ())) == [*range(12), *range(20, 24)]


@pytest.mark.fast
def test_recordings_of_two_readers_are_not_joined():
    with pytest.raises(ValueError, match="the same read"):
        Recordings((1,), Disk()) + Recordings((2,), Disk())


@pytest.mark.fast
def test_frames_are_made_of_one_recording_at_a_time(tmp_path):
    disk = Disk()
    dataset = _dataset(disk)
    frames = data.dense(dataset, _to_frames)
    assert disk.read == [*range(12), *range(20, 24)]  # each once
    assert disk.most <= 2  # the one before goes when the next has come
    assert frames.train.inputs.shape == (12, 3, 2, 40, 2)
    assert frames.input_shape == (2, 40, 2)
    on_disk = data.dense(dataset, _to_frames, directory=tmp_path / "frames")
    for split in ("train", "test"):
        kept, mapped = getattr(frames, split).inputs, getattr(on_disk, split).inputs
        np.testing.assert_array_equal(kept, mapped)
        assert mapped.dtype == np.uint8 and isinstance(mapped, np.memmap)
        np.testing.assert_array_equal(np.load(tmp_path / "frames" / f"arrays-{split}.npy"), kept)
    batch = data.Loader(on_disk.train, batch_size=4).batch(1)
    assert type(batch.inputs) is np.ndarray
    np.testing.assert_array_equal(
        batch.inputs, data.Loader(frames.train, batch_size=4).batch(1).inputs
    )


def test_grain_makes_frames_on_the_fly():
    pytest.importorskip("grain")
    disk = Disk()
    dataset = _dataset(disk)
    batches = data.grain_loader(
        dataset.train,
        batch_size=4,
        transform=lambda pair: (_to_frames(pair[0]), pair[1]),
        threads=0,
    )
    batch = next(iter(batches))
    assert batch.inputs.shape == (4, 3, 2, 40, 2) and len(disk.read) <= 4
    columns = batch.inputs.sum(axis=(1, 2, 4)).argmax(axis=1)
    np.testing.assert_array_equal(columns % 2, batch.labels)


def _columns(**changed):
    columns = {"t": [3, 1, 2], "x": [0, 1, 2], "y": [2, 1, 0], "p": [0, 1, 0]} | changed
    return {name: np.array(values) for name, values in columns.items()}


@pytest.mark.fast
def test_a_recording_is_in_order_of_time():
    events = as_events(**_columns(), height=3, width=3, name="one")
    np.testing.assert_array_equal(events, [[1, 1, 1, 1], [2, 2, 0, 0], [3, 0, 2, 0]])
    assert events.dtype == np.int32
    ties = _columns(t=[1] * 99 + [0], x=np.arange(100), y=[0] * 100, p=[0] * 100)
    events = as_events(**ties, height=1, width=100, name="one")
    np.testing.assert_array_equal(events[:, 1], [99, *range(99)])
    empty = as_events(*[np.empty(0, np.int64)] * 4, height=3, width=3, name="one")
    assert empty.shape == (0, 4)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("changed", "error", "match"),
    [
        ({"x": [0, 1, 3]}, data.CorruptDataError, "one has events up to column 3, row 2, outside"),
        ({"y": [3, 1, 0]}, data.CorruptDataError, "column 2, row 3, outside 3x3"),
        ({"p": [0, 5, 0]}, data.CorruptDataError, "one has a polarity of 5"),
        ({"t": [0, 2**31, 0]}, ValueError, "one has times up to 2147483648 us"),
    ],
)
def test_a_malformed_recording_is_named(changed, error, match):
    with pytest.raises(error, match=match):
        as_events(**_columns(**changed), height=3, width=3, name="one")
