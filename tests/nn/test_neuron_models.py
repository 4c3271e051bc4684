"""Turned-off neurons: one threshold in training and evaluation, straight through on [0, 1]."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import nn

pytestmark = pytest.mark.fast
X = jnp.asarray([[-0.5, 0.0, 0.25, 0.4999999, 0.5, 0.75, 1.0, 1.5]])[None]


def spikes(x, training=False, **options):
    return nn.Disabled(**options)(x, nn.State(), nn.Call(training=training))[0]


@pytest.mark.parametrize("training", [False, True])
def test_it_fires_from_one_half_on_whatever_the_mode(training):
    np.testing.assert_array_equal(spikes(X, training)[0, 0], [0, 0, 0, 0, 1, 1, 1, 1])


def test_it_is_the_rounded_clip_of_the_released_training_code():
    x = jax.random.normal(jax.random.key(0), (2, 3, 50))
    np.testing.assert_array_equal(spikes(x), jnp.floor(jnp.clip(x, 0, 1) + 0.5))


def test_gradients_pass_between_zero_and_one():
    slope = jax.grad(lambda x: spikes(x).sum())(X)
    np.testing.assert_array_equal(slope[0, 0], [0, 1, 1, 1, 1, 1, 1, 0])


def test_another_threshold():
    np.testing.assert_array_equal(spikes(X, threshold=1.0)[0, 0], [0] * 6 + [1, 1])


def test_taps_of_the_layer():
    outputs, aux = nn.Disabled()(
        X, nn.State(), nn.Call(training=False, taps=("spikes", "membrane"))
    )
    np.testing.assert_array_equal(aux.taps[""]["spikes"], outputs)
    np.testing.assert_array_equal(aux.taps[""]["membrane"], X)
    assert nn.Disabled()(X, nn.State(), nn.Call(training=False))[1].taps == {}
