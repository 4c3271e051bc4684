"""Weighted average over a padded batch."""

import jax.numpy as jnp
import pytest

from snnjax.metrics.accuracy import example_weights, weighted_mean

pytestmark = pytest.mark.fast


def test_padding_may_hold_anything_and_an_empty_batch_is_zero():
    values = jnp.array([1.0, 3.0, jnp.nan])
    assert weighted_mean(values, jnp.array([1, 3, 0])) == 2.5
    assert weighted_mean(values, jnp.zeros(3)) == 0.0
    assert weighted_mean(values[:2], None) == 2.0


def test_weights_are_one_per_example():
    assert example_weights(None, (2,)).dtype == jnp.float32
    with pytest.raises(ValueError, match="one number per example"):
        example_weights(jnp.ones(3), (2,))
