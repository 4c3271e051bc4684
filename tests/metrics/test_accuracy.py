"""Laws of the accuracies: agreement with each other and with NumPy; padding has no effect."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snnjax import metrics

B, K = 16, 5
METRICS = [
    metrics.accuracy,
    functools.partial(metrics.top_k_accuracy, k=2),
    metrics.confusion_matrix,
]


def batch(seed, ties=False):
    logits = jax.random.normal(jax.random.key(seed), (B, K))
    if ties:
        logits = jnp.round(logits)
    return logits, jax.random.randint(jax.random.key(seed + 1), (B,), 0, K)


@jax.jit
def everything(logits, labels):
    """Accuracy, confusion, and the accuracies of the best one to all."""
    top = [metrics.top_k_accuracy(logits, labels, k=k) for k in range(1, K + 1)]
    return metrics.accuracy(logits, labels), metrics.confusion_matrix(logits, labels), top


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), ties=st.booleans())
def test_the_metrics_agree_with_each_other_and_with_numpy(seed, ties):
    logits, labels = batch(seed, ties)
    right = np.asarray(logits).argmax(1) == np.asarray(labels)
    accuracy, confusion, top = jax.tree.map(np.asarray, everything(logits, labels))
    np.testing.assert_allclose(accuracy, right.mean(), rtol=1e-6)
    np.testing.assert_array_equal(top[0], accuracy)
    np.testing.assert_allclose(np.trace(confusion) / confusion.sum(), accuracy, rtol=1e-6)
    np.testing.assert_array_equal(confusion.sum(1), np.bincount(np.asarray(labels), minlength=K))
    np.testing.assert_array_equal(
        confusion.sum(0), np.bincount(np.asarray(logits).argmax(1), minlength=K)
    )
    assert top == sorted(top) and top[-1] == 1.0


@pytest.mark.parametrize("metric", METRICS)
def test_padding_does_not_count_and_jit_changes_nothing(metric):
    logits, labels = batch(0)
    weights = (jnp.arange(B) < 10).astype(jnp.float32)
    found = metric(logits, labels, weights=weights)
    np.testing.assert_allclose(found, metric(logits[:10], labels[:10]), rtol=1e-6)
    np.testing.assert_allclose(jax.jit(metric)(logits, labels, weights=weights), found, rtol=1e-6)
    np.testing.assert_allclose(metric(logits, labels.astype("uint8")), metric(logits, labels))
    np.testing.assert_array_equal(metric(logits, labels, weights=jnp.zeros(B)), 0.0)


def test_nan_and_labels_outside_the_classes_are_never_right():
    broken = jnp.full((4, K), jnp.nan)
    labels = jnp.array([0, 1, 2, 3])
    for k in range(1, K + 1):
        assert metrics.top_k_accuracy(broken, labels, k=k) == 0.0
    assert metrics.accuracy(broken, labels) == 0.0
    for outside in (-1, K):
        assert metrics.accuracy(jnp.ones((1, K)), jnp.array([outside])) == 0.0


def test_confusion_rows_are_labels_and_batches_add_up():
    logits, labels = jax.nn.one_hot(jnp.array([1, 1, 0]), 3), jnp.array([0, 1, 2])
    expected = [[0, 1, 0], [0, 1, 0], [1, 0, 0]]
    np.testing.assert_array_equal(metrics.confusion_matrix(logits, labels), expected)
    logits, labels = batch(3)
    parts = [metrics.confusion_matrix(logits[i::2], labels[i::2]) for i in range(2)]
    np.testing.assert_array_equal(parts[0] + parts[1], metrics.confusion_matrix(logits, labels))


logits, labels = np.zeros((4, 3), np.float32), np.zeros(4, np.int32)


@pytest.mark.parametrize(
    ("call", "error", "cure"),
    [
        (lambda: metrics.accuracy(logits[None], labels), ValueError, "readout"),
        (lambda: metrics.accuracy(logits > 0, labels), TypeError, "float32"),
        (lambda: metrics.accuracy(logits, logits), TypeError, "int32"),
        (lambda: metrics.accuracy(logits, logits.astype(int)), ValueError, "argmax"),
        (lambda: metrics.accuracy(logits, labels, weights=labels[:2]), ValueError, "per example"),
        (lambda: metrics.top_k_accuracy(logits, labels), ValueError, "number of classes"),
    ],
)
def test_wrong_arguments_name_the_cure(call, error, cure):
    with pytest.raises(error, match=cure):
        call()


@pytest.mark.parametrize("clips", [1, 2, 3, 4])
def test_a_recording_is_right_where_more_than_half_of_its_clips_are(clips):
    rng = np.random.default_rng(clips)
    labels = jnp.asarray(np.repeat(rng.integers(0, 3, 20), clips))
    logits = jnp.asarray(rng.normal(size=(20 * clips, 3)), jnp.float32)
    weights = jnp.asarray(np.repeat(np.arange(20) < 17, clips), jnp.float32)
    right = (np.asarray(logits).argmax(-1) == np.asarray(labels)).reshape(20, clips)[:17]
    expected = np.mean([sum(one) > clips / 2 for one in right])
    found = metrics.clip_accuracy(logits, labels, clips=clips, weights=weights)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    if clips == 1:
        assert found == metrics.accuracy(logits, labels, weights=weights)


def test_half_of_the_clips_or_a_plurality_are_not_enough():
    def accuracy_of(answers):
        logits = jax.nn.one_hot(jnp.asarray(answers), 4)
        labels = jnp.zeros(len(answers), jnp.int32)
        return float(metrics.clip_accuracy(logits, labels, clips=len(answers)))

    assert accuracy_of([0, 0, 1, 1]) == 0.0
    assert accuracy_of([0, 0, 1, 2, 3]) == 0.0  # the plurality is right
    assert accuracy_of([0, 0, 0, 1, 2]) == 1.0
    with pytest.raises(ValueError, match="whole recordings"):
        metrics.clip_accuracy(jnp.zeros((5, 4)), jnp.zeros(5, jnp.int32), clips=2)


def test_a_recording_of_which_a_clip_is_padding_does_not_count():
    logits, labels = jax.nn.one_hot(jnp.array([0, 0, 1, 1]), 2), jnp.zeros(4, jnp.int32)
    weights = jnp.array([1.0, 1.0, 1.0, 0.0])
    assert metrics.clip_accuracy(logits, labels, clips=2, weights=weights) == 1.0
