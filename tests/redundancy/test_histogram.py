"""Distributions: exact at the threshold, whatever its value; every value is in some bin."""

import jax.numpy as jnp
import numpy as np
import pytest

from snnjax.redundancy._histogram import Bins, Histogram, count

T, B, C = 3, 4, 5


def histogram(values, threshold, weights=None, bins=None):
    bins = bins or Bins()
    threshold = jnp.asarray(threshold, jnp.float32)
    weights = jnp.ones(values.shape[1]) if weights is None else weights
    counts = count(jnp.asarray(values), threshold, threshold.mean(), weights, bins)
    return Histogram(np.asarray(counts), bins, float(threshold.mean()))


@pytest.mark.parametrize("threshold", [1.0, 0.3, 0.7, 1 / 3])
def test_the_share_above_is_exact_for_values_at_the_threshold(threshold):
    """Values one rounding below, at, and one above it."""
    at = np.float32(threshold)
    row = [np.nextafter(at, np.float32(-9)), at, np.nextafter(at, np.float32(9)), -at, 99 * at]
    values = np.tile(np.asarray(row, np.float32), (T, B, 1))
    actual = histogram(values, at)
    assert actual.counts.sum() == values.size
    assert actual.share_above == np.mean(values >= at) == 0.6


def test_each_neuron_is_held_against_its_own_threshold():
    values = np.random.default_rng(0).normal(size=(T, B, C)).astype(np.float32)
    threshold = np.linspace(0.2, 2.0, C, dtype=np.float32)
    assert histogram(values, threshold).share_above == np.mean(values >= threshold)


def test_bins_are_those_of_numpy_and_the_outer_ones_hold_the_rest():
    values = np.random.default_rng(1).normal(size=(T, B, 200)).astype(np.float32)
    bins = Bins(lowest=-2, highest=3, per_threshold=4)
    actual = histogram(values, 0.5, bins=bins)
    assert len(bins) == len(actual.counts) == len(actual.edges) - 1 == 20
    np.testing.assert_allclose(actual.edges, np.linspace(-1.0, 1.5, 21), atol=1e-12)
    inside = np.clip(values, -1.0, np.nextafter(np.float32(1.5), np.float32(0)))
    np.testing.assert_array_equal(actual.counts, np.histogram(inside, actual.edges)[0])


def test_padding_is_not_counted_and_what_is_no_number_counts_as_low():
    values = np.full((T, B, C), 2.0, np.float32)
    values[:, 1] = np.nan
    values[:, 2] = np.inf
    actual = histogram(values, 1.0, weights=jnp.asarray([1.0, 1.0, 1.0, 0.0]))
    assert actual.counts.sum() == 3 * T * C
    assert actual.counts[0] == actual.counts[-1] == T * C and actual.share_above == pytest.approx(
        2 / 3
    )


def test_without_a_threshold_there_is_no_share_above_it():
    actual = Histogram(np.ones(200, int), Bins(), None)
    assert actual.share_above is None
    assert (actual.edges[0], actual.edges[-1]) == (-9, 11)


@pytest.mark.parametrize("options", [{"lowest": 1}, {"highest": 1}, {"per_threshold": 0}])
def test_bins_that_leave_out_the_threshold_are_refused(options):
    with pytest.raises(ValueError, match="the threshold itself"):
        Bins(**options)
