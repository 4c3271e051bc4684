"""Cross-validation: each example is tested once, stratified, and groups are refused."""

import dataclasses

import numpy as np
import pytest

from snnjax import data


@pytest.fixture
def dataset():
    labels = np.repeat([0, 1], [40, 20])
    x = np.arange(60)[:, None]
    return data.from_arrays(x[:45], labels[:45], x[45:], labels[45:], class_names=("a", "b"))


def test_each_example_is_tested_once(dataset):
    parts = list(data.folds(dataset, k=5))
    tested = np.concatenate([part.test.inputs[:, 0] for part in parts])
    assert len(parts) == 5
    assert sorted(tested) == list(range(60))
    for part in parts:
        assert not set(part.test.inputs[:, 0]) & set(part.train.inputs[:, 0])
        assert len(part.train) + len(part.test) == 60
        np.testing.assert_array_equal(np.bincount(part.test.labels), [8, 4])


def test_the_division_depends_on_its_seed_only(dataset):
    first, again, other = (
        [f.test.inputs for f in data.folds(dataset, seed=seed)] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert any((a != b).any() for a, b in zip(first, other, strict=True))


def test_recordings_are_divided_too(dataset):
    recordings = [np.full((i + 1, 4), i) for i in range(60)]
    train = data.Split(recordings[:45], dataset.train.labels)
    test = data.Split(recordings[45:], dataset.test.labels)
    parts = list(data.folds(dataclasses.replace(dataset, train=train, test=test), k=3))
    tested = sorted(int(r[0, 0]) for part in parts for r in part.test.inputs)
    assert tested == list(range(60))


def test_grouped_examples_are_refused(dataset):
    train = dataclasses.replace(dataset.train, groups=np.zeros(45, np.int32))
    with pytest.raises(ValueError, match="use its own split"):
        data.folds(dataclasses.replace(dataset, train=train))


# Real recordings are read once, by tests/data/test_nmnist.py; these folds are those of any set.
@pytest.mark.slow
def test_nmnist_folds_cover_all_recordings(shared):
    dataset = data.load("nmnist", data_dir=shared("data", "nmnist-small").parent)
    sizes = [(len(f.train), len(f.test)) for f in data.folds(dataset, k=5)]
    assert sizes == [(880, 220)] * 5


def test_held_out_examples_are_training_examples_in_the_share_of_each_class(dataset):
    held = data.hold_out(dataset, share=0.2, seed=1)
    parts = [set(split.inputs[:, 0]) for split in (held.train, held.test)]
    assert not parts[0] & parts[1] and parts[0] | parts[1] == set(range(45))
    np.testing.assert_array_equal(np.bincount(held.test.labels), [8, 1])
    again, other = (data.hold_out(dataset, share=0.2, seed=s).test.inputs for s in (1, 2))
    np.testing.assert_array_equal(held.test.inputs, again)
    assert (other != again).any()


def test_groups_are_held_out_whole(dataset):
    groups = np.arange(45) // 9
    train = data.Split(dataset.train.inputs, dataset.train.labels, groups)
    test = data.Split(dataset.test.inputs, dataset.test.labels, np.full(15, 9))
    held = data.hold_out(dataclasses.replace(dataset, train=train, test=test), share=0.4)
    assert len(set(held.test.groups)) == 2 and len(held.test) == 18
    assert not set(held.test.groups) & set(held.train.groups)


@pytest.mark.parametrize("share", [0.0, 1.0, 0.001, 0.999])
def test_a_share_that_leaves_nothing_is_refused(dataset, share):
    with pytest.raises(ValueError, match="share"):
        data.hold_out(dataset, share=share)
