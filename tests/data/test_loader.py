"""Loader: the batch of a step is a function of seed and step; evaluation covers all examples."""

import hashlib

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from snnjax import data

pytestmark = pytest.mark.fast
settings = hypothesis.settings(deadline=None, database=None, max_examples=60)
sizes = st.integers(1, 70)
seeds = st.integers(0, 2**32)


def _split(count: int) -> data.Split:
    labels = np.arange(count, dtype=np.int32)
    return data.Split(labels[:, None] * np.ones((1, 3), np.float32), labels)


def _epoch(loader: data.Loader, epoch: int) -> list[data.Batch]:
    start = epoch * loader.steps_per_epoch
    return list(loader.batches(start=start, stop=start + loader.steps_per_epoch))


@settings
@hypothesis.given(count=sizes, batch_size=sizes, seed=seeds, epoch=st.integers(0, 5))
def test_an_epoch_is_a_permutation(count, batch_size, seed, epoch):
    loader = data.Loader(_split(count), batch_size=batch_size, seed=seed, drop_last=False)
    batches = _epoch(loader, epoch)
    labels = np.concatenate([b.labels[b.weights == 1] for b in batches])
    assert sorted(labels) == list(range(count))
    assert {b.inputs.shape for b in batches} == {(batch_size, 3)}
    for b in batches:
        np.testing.assert_array_equal(b.inputs[:, 0], b.labels)


@settings
@hypothesis.given(count=sizes, batch_size=sizes, seed=seeds)
def test_dropping_the_rest_draws_no_example_twice(count, batch_size, seed):
    hypothesis.assume(batch_size <= count)
    batches = _epoch(data.Loader(_split(count), batch_size=batch_size, seed=seed), 3)
    labels = np.concatenate([b.labels for b in batches])
    assert len(labels) == len(set(labels)) == count // batch_size * batch_size
    assert all((b.weights == 1).all() for b in batches)


@settings
@hypothesis.given(seed=seeds, steps=st.lists(st.integers(0, 200), min_size=1, max_size=8))
def test_a_batch_does_not_depend_on_what_was_drawn_before(seed, steps):
    split = _split(37)
    straight = list(data.Loader(split, batch_size=5, seed=seed).batches(stop=max(steps) + 1))
    loader = data.Loader(split, batch_size=5, seed=seed)
    for step in steps:
        np.testing.assert_array_equal(loader.batch(step).labels, straight[step].labels)


def test_resuming_needs_the_step_only():
    loader = data.Loader(_split(50), batch_size=8, seed=3)
    whole = [b.labels for b in loader.batches(stop=20)]
    resumed = [
        b.labels for b in data.Loader(_split(50), batch_size=8, seed=3).batches(start=13, stop=20)
    ]
    np.testing.assert_array_equal(whole[13:], resumed)
    assert loader.position(13) == (2, 1)


def test_epochs_and_seeds_differ_and_order_can_be_kept():
    split = _split(64)
    first = data.Loader(split, batch_size=64, seed=0)
    assert (first.batch(0).labels != first.batch(1).labels).any()
    assert (
        first.batch(0).labels != data.Loader(split, batch_size=64, seed=1).batch(0).labels
    ).any()
    kept = data.Loader(split, batch_size=64, shuffle=False).batch(7)
    np.testing.assert_array_equal(kept.labels, split.labels)


def test_the_order_is_the_same_on_every_machine_and_numpy():
    indices, _ = data.Loader(_split(1000), batch_size=1000, seed=7).indices(2)
    digest = hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest()
    assert digest.startswith("fe4ad305c01a555c")


@settings
@hypothesis.given(count=st.integers(0, 70), batch_size=sizes)
def test_evaluation_covers_all_in_one_shape(count, batch_size):
    batches = list(data.evaluation_batches(_split(count), batch_size=batch_size))
    assert len(batches) == -(-count // batch_size)
    assert all(b.inputs.shape == (batch_size, 3) for b in batches)
    labels = [label for b in batches for label in b.labels[b.weights == 1]]
    assert labels == list(range(count))
    assert sum(float(b.weights.sum()) for b in batches) == count


def test_a_jitted_evaluation_compiles_once_and_averages_rightly():
    split, traces = _split(11), []

    @jax.jit
    def total(batch):
        traces.append(1)
        return (batch.weights * batch.inputs[:, 0]).sum()

    result = sum(float(total(b)) for b in data.evaluation_batches(split, batch_size=4))
    assert result == sum(range(11))
    assert len(traces) == 1


def test_errors_name_the_cure():
    with pytest.raises(ValueError, match="smaller batch_size, or drop_last=False"):
        data.Loader(_split(3), batch_size=4)
    with pytest.raises(ValueError, match="at least 1"):
        data.Loader(_split(3), batch_size=0)
    with pytest.raises(ValueError, match="at least 0"):
        data.Loader(_split(3), batch_size=1, seed=-1)
    with pytest.raises(ValueError, match="counted from zero"):
        data.Loader(_split(3), batch_size=1).batch(-1)
    with pytest.raises(TypeError, match=r"data\.dense"):
        data.Loader(data.Split([np.zeros((2, 4))], np.zeros(1, np.int32)), batch_size=1)


def _sequences(lengths) -> data.Split:
    """Sequences `[N, 9]` whose inputs hold their number, and labels per timestep."""
    numbers = np.arange(len(lengths), dtype=np.int32)
    labels = numbers[:, None] * np.ones((1, 9), np.int32)
    return data.Split(labels.astype(np.float32), labels, lengths=np.asarray(lengths))


lengths_of = st.lists(st.integers(1, 9), min_size=1, max_size=50)


@settings
@hypothesis.given(lengths=lengths_of, batch_size=st.integers(1, 9), seed=seeds, drop=st.booleans())
def test_buckets_hold_every_example_once_in_equally_many_batches(lengths, batch_size, seed, drop):
    hypothesis.assume(not drop or batch_size <= len(lengths))
    split, options = _sequences(lengths), {"batch_size": batch_size, "seed": seed}
    loader = data.Loader(split, **options, drop_last=drop, buckets=(3, 6, 9))
    assert loader.steps_per_epoch == data.Loader(split, **options, drop_last=drop).steps_per_epoch
    shapes = []
    for epoch in range(2):
        batches = _epoch(loader, epoch)
        for batch in batches:
            timesteps = batch.inputs.shape[1]
            assert batch.labels.shape == batch.inputs.shape
            assert timesteps == min(b for b in (3, 6, 9) if b >= batch.lengths.max())
            numbers = batch.labels[:, 0]
            np.testing.assert_array_equal(batch.lengths, np.asarray(lengths)[numbers])
        shapes.append(sorted(batch.inputs.shape[1] for batch in batches))
        seen = np.concatenate([b.labels[b.weights == 1, 0] for b in batches])
        assert len(seen) == len(set(seen))
        assert len(seen) == (loader.steps_per_epoch * batch_size if drop else len(lengths))
    # A run compiles one program per shape, before its first step.
    assert shapes[0] == shapes[1] and set(shapes[0]) == set(loader.shapes())
    for timesteps, step in loader.shapes().items():
        assert loader.batch(step).inputs.shape[1] == timesteps


def test_batches_of_buckets_do_not_depend_on_what_was_drawn_before():
    split = _sequences(np.arange(40) % 9 + 1)
    options = {"batch_size": 4, "seed": 3, "buckets": (3, 9)}
    straight = list(data.Loader(split, **options).batches(stop=30))
    loader = data.Loader(split, **options)
    for step in (29, 4, 17, 4):
        jax.tree.map(np.testing.assert_array_equal, loader.batch(step), straight[step])
    rows = loader.batch(4, rows=np.array([1, 3]))
    np.testing.assert_array_equal(rows.inputs, straight[4].inputs[[1, 3]])
    order = [int(batch.inputs.shape[1]) for batch in straight]
    assert sorted(order[:10]) == sorted(order[10:20]) and order[:10] != order[10:20]


def test_evaluation_by_length_visits_every_example_from_short_to_long():
    lengths = np.array([5, 9, 1, 3, 9, 2, 4])
    options = {"batch_size": 3, "shuffle": False, "drop_last": False, "by_length": True}
    whole = data.Loader(_sequences(lengths), **options)
    cut = data.Loader(_sequences(lengths), **options, buckets=(3, 9))
    one, two = _epoch(whole, 0), _epoch(cut, 0)
    assert [batch.inputs.shape[1] for batch in two] == [3, 9, 9]
    numbers = np.concatenate([b.labels[b.weights == 1, 0] for b in one])
    assert numbers.tolist() == np.argsort(lengths, kind="stable").tolist()
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.lengths, b.lengths)
        np.testing.assert_array_equal(a.inputs[:, : b.inputs.shape[1]], b.inputs)


def test_bucket_lengths_hold_equally_many():
    lengths = np.arange(1, 13)
    assert data.bucket_lengths(lengths, 3) == (4, 8, 12)
    assert data.bucket_lengths(lengths, 2, longest=20) == (6, 20)
    assert data.bucket_lengths([5, 5, 5], 3) == (5,)
    with pytest.raises(ValueError, match="above the longest"):
        data.bucket_lengths(lengths, 2, longest=3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"buckets": (3, 6)}, "fits none of the buckets"),
        ({"buckets": (9, 3)}, "ascending"),
        ({"buckets": (0, 9)}, "at least 1"),
        ({"by_length": True}, "shuffle=False"),
    ],
)
def test_wrong_buckets_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        data.Loader(_sequences([9, 1, 2]), batch_size=1, **options)


def test_buckets_of_a_split_without_lengths_are_refused():
    with pytest.raises(ValueError, match="has none"):
        data.Loader(_split(4), batch_size=2, buckets=(3,))
