"""Who answers to what: both readouts against loops, and what nobody answered to."""

import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import plasticity

RANDOM = np.random.default_rng(0)
COUNTS = RANDOM.integers(0, 5, (30, 6)).astype(np.float32)
COUNTS[:, 4] = 0  # a neuron that never fires
LABELS = np.arange(30) % 3


def responses(counts=COUNTS, **options):
    start = plasticity.no_responses(3, counts.shape[1])
    return plasticity.seen(start, jnp.asarray(counts), jnp.asarray(LABELS), **options)


def test_responses_are_means_and_silent_neurons_are_unassigned():
    told = np.stack([COUNTS[k == LABELS].mean(0) for k in range(3)])
    found = responses()
    np.testing.assert_allclose(found.mean, told, rtol=1e-6)
    assigned = np.asarray(plasticity.assign(found))
    assert assigned[4] == -1
    assert np.array_equal(np.delete(assigned, 4), np.delete(told.argmax(0), 4))


def test_batches_add_up_weights_leave_out_and_old_ones_fade():
    half = plasticity.no_responses(3, 6)
    for part in (slice(0, 10), slice(10, 30)):
        half = plasticity.seen(half, jnp.asarray(COUNTS[part]), jnp.asarray(LABELS[part]))
    np.testing.assert_allclose(half.spikes, responses().spikes)
    weight = jnp.asarray((np.arange(30) < 10).astype(np.float32))
    some = responses(weight=weight)
    assert float(some.examples.sum()) == 10
    faded = plasticity.seen(some, jnp.zeros((1, 6)), jnp.zeros(1, jnp.int32), kept=0.5)
    np.testing.assert_allclose(faded.spikes, 0.5 * some.spikes)


def test_scores_against_loops():
    found = responses()
    mean, assigned = np.asarray(found.mean), np.asarray(plasticity.assign(found))
    share = mean / np.maximum(mean.sum(0), 1e-30)
    for b in range(5):
        mine = [COUNTS[b][assigned == k] for k in range(3)]
        told = [m.mean() if m.size else 0.0 for m in mine]
        np.testing.assert_allclose(plasticity.all_activity(COUNTS, found)[b], told, rtol=1e-5)
        told = [(COUNTS[b] * share[k]).sum() for k in range(3)]
        np.testing.assert_allclose(plasticity.proportion(COUNTS, found)[b], told, rtol=1e-5)


@pytest.mark.parametrize("score", [plasticity.all_activity, plasticity.proportion])
def test_order_of_neurons_does_not_matter(score):
    order = RANDOM.permutation(6)
    np.testing.assert_allclose(
        score(COUNTS[:, order], responses(COUNTS[:, order])), score(COUNTS, responses()), rtol=1e-5
    )


def test_before_the_first_example_all_scores_are_zero():
    nothing = plasticity.no_responses(3, 6)
    assert not np.asarray(plasticity.all_activity(COUNTS, nothing)).any()
    assert not np.asarray(plasticity.proportion(COUNTS, nothing)).any()
