"""Both readouts against loops; neurons and classes without spikes."""

import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import plasticity

RANDOM = np.random.default_rng(0)
COUNTS = RANDOM.integers(0, 5, (30, 6)).astype(np.float32)
COUNTS[:, 4] = 0  # a neuron that never fires
LABELS = np.arange(30) % 3


def responses(counts=COUNTS, **options):
    start = plasticity.labels.empty_responses(3, counts.shape[1])
    return plasticity.labels.add_examples(
        start, jnp.asarray(counts), jnp.asarray(LABELS), **options
    )


def test_responses_are_means_and_silent_neurons_are_unassigned():
    expected = np.stack([COUNTS[k == LABELS].mean(0) for k in range(3)])
    actual = responses()
    np.testing.assert_allclose(actual.mean, expected, rtol=1e-6)
    assigned = np.asarray(plasticity.labels.assign(actual))
    assert assigned[4] == -1
    assert np.array_equal(np.delete(assigned, 4), np.delete(expected.argmax(0), 4))


def test_batches_add_up_weights_leave_out_and_old_ones_fade():
    half = plasticity.labels.empty_responses(3, 6)
    for part in (slice(0, 10), slice(10, 30)):
        half = plasticity.labels.add_examples(
            half, jnp.asarray(COUNTS[part]), jnp.asarray(LABELS[part])
        )
    np.testing.assert_allclose(half.spikes, responses().spikes)
    weight = jnp.asarray((np.arange(30) < 10).astype(np.float32))
    some = responses(weight=weight)
    assert float(some.examples.sum()) == 10
    faded = plasticity.labels.add_examples(
        some, jnp.zeros((1, 6)), jnp.zeros(1, jnp.int32), retention=0.5
    )
    np.testing.assert_allclose(faded.spikes, 0.5 * some.spikes)


def test_scores_against_loops():
    actual = responses()
    mean, assigned = np.asarray(actual.mean), np.asarray(plasticity.labels.assign(actual))
    share = mean / np.maximum(mean.sum(0), 1e-30)
    for b in range(5):
        mine = [COUNTS[b][assigned == k] for k in range(3)]
        expected = [m.mean() if m.size else 0.0 for m in mine]
        np.testing.assert_allclose(
            plasticity.labels.all_activity(COUNTS, actual)[b], expected, rtol=1e-5
        )
        expected = [(COUNTS[b] * share[k]).sum() for k in range(3)]
        np.testing.assert_allclose(
            plasticity.labels.proportion(COUNTS, actual)[b], expected, rtol=1e-5
        )


@pytest.mark.parametrize("score", [plasticity.labels.all_activity, plasticity.labels.proportion])
def test_order_of_neurons_does_not_matter(score):
    order = RANDOM.permutation(6)
    np.testing.assert_allclose(
        score(COUNTS[:, order], responses(COUNTS[:, order])), score(COUNTS, responses()), rtol=1e-5
    )


def test_before_the_first_example_all_scores_are_zero():
    nothing = plasticity.labels.empty_responses(3, 6)
    assert not np.asarray(plasticity.labels.all_activity(COUNTS, nothing)).any()
    assert not np.asarray(plasticity.labels.proportion(COUNTS, nothing)).any()
