"""Grain loader: batch contract, resumption, disjoint shards."""

import itertools
import sys

import numpy as np
import pytest

from snnjax import data

grain = pytest.importorskip("grain")


def _split(count=20):
    labels = np.arange(count, dtype=np.int32)
    return data.Split(labels[:, None].astype(np.float32), labels)


def _labels(loader, count):
    return [b.labels.tolist() for b in itertools.islice(iter(loader), count)]


@pytest.mark.parametrize("threads", [0, 2])
def test_batches_are_whole_and_each_epoch_has_its_order(threads):
    loader = data.grain_loader(_split(), batch_size=6, seed=1, threads=threads)
    batches = list(itertools.islice(iter(loader), 6))
    assert all(isinstance(b, data.Batch) and b.inputs.shape == (6, 1) for b in batches)
    assert all((b.weights == 1).all() and b.weights.dtype == np.float32 for b in batches)
    first = [label for b in batches[:3] for label in b.labels]
    second = [label for b in batches[3:] for label in b.labels]
    assert len(set(first)) == len(set(second)) == 18 and first != second
    assert _labels(loader, 6) == [b.labels.tolist() for b in batches]


def test_an_iterator_resumes_from_its_state():
    loader = data.grain_loader(_split(), batch_size=4, seed=2)
    whole = _labels(loader, 9)
    iterator = iter(loader)
    for _ in range(4):
        next(iterator)
    state = iterator.get_state()
    other = iter(data.grain_loader(_split(), batch_size=4, seed=2))
    other.set_state(state)
    assert [next(other).labels.tolist() for _ in range(5)] == whole[4:]


def test_shares_of_processes_are_disjoint():
    shares = []
    for index in range(2):
        loader = data.grain_loader(_split(), batch_size=5, shard=(index, 2))
        shares.append({label for batch in _labels(loader, 2) for label in batch})
    assert len(shares[0]) == len(shares[1]) == 10 and not shares[0] & shares[1]


def test_recordings_become_frames_one_by_one():
    recordings = [np.full((i + 1, 4), i) for i in range(8)]
    split = data.Split(recordings, np.arange(8, dtype=np.int32))
    loader = data.grain_loader(
        split, batch_size=4, transform=lambda e: (np.full((2, 3), len(e[0])), e[1])
    )
    batch = next(iter(loader))
    assert batch.inputs.shape == (4, 2, 3)
    np.testing.assert_array_equal(batch.inputs[:, 0, 0], batch.labels + 1)


def test_padded_sequences_keep_their_lengths():
    lengths = np.array([3, 1, 2, 4, 4, 2])
    inputs = (np.arange(4)[:, None] < lengths[:, None, None]) * 1.0
    split = data.Split(inputs, np.arange(6), lengths=lengths)
    longer = lambda e: (np.pad(e[0], [(0, 2), (0, 0)]), e[1])  # noqa: E731
    doubled = lambda e: (e[0].repeat(2, 0), e[1], 2 * int(e[0].sum()))  # noqa: E731
    for transform, steps, factor in [(None, 4, 1), (longer, 6, 1), (doubled, 8, 2)]:
        batch = next(iter(data.grain_loader(split, batch_size=6, transform=transform, threads=0)))
        assert batch.inputs.shape == (6, steps, 1) and batch.lengths.dtype == np.int32
        np.testing.assert_array_equal(batch.lengths, factor * lengths[batch.labels])
        np.testing.assert_array_equal(batch.lengths, batch.inputs[:, :, 0].sum(1))
    cut = data.grain_loader(split, batch_size=6, transform=lambda e: (e[0][:2], e[1]), threads=0)
    with pytest.raises(ValueError, match="the input has 2 timesteps"):
        next(iter(cut))


def test_errors_name_the_cure(monkeypatch):
    with pytest.raises(ValueError, match="smaller batch_size"):
        data.grain_loader(_split(), batch_size=11, shard=(0, 2))
    with pytest.raises(ValueError, match="0 <= index < count"):
        data.grain_loader(_split(), batch_size=1, shard=(2, 2))
    loader = data.grain_loader([{"image": 1, "label": 2}] * 4, batch_size=2, threads=0)
    with pytest.raises(TypeError, match=r"transform=lambda e: \(e\['image'\]"):
        next(iter(loader))
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ImportError, match=r"snnjax\[data\]"):
        data.grain_loader(_split(), batch_size=2)
