"""Dropout: one mask for the whole window, drawn from the key it is given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import nn
from tests.nn.layers import call

SHAPE = (4, 2, 50)
ONES = jnp.ones(SHAPE)


def dropped(rate, seed=0, inputs=ONES):
    return np.asarray(call(nn.Dropout(rate), inputs, training=True, key=jax.random.key(seed))[0])


@pytest.mark.fast
def test_the_mask_is_the_same_at_every_timestep_and_differs_between_examples():
    outputs = dropped(0.5)
    assert set(np.unique(outputs)) == {0.0, 2.0}
    np.testing.assert_array_equal(outputs, np.broadcast_to(outputs[:1], SHAPE))
    assert (outputs[0, 0] != outputs[0, 1]).any()


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_expectation_is_the_input(rate):
    outputs = dropped(rate, inputs=jnp.ones((1, 1, 20_000)))
    deviation = np.sqrt(rate / (1 - rate) / outputs.size)
    assert abs(outputs.mean() - 1) < 5 * deviation


def test_one_key_is_one_mask_and_another_key_another():
    np.testing.assert_array_equal(dropped(0.5, 3), dropped(0.5, 3))
    assert (dropped(0.5, 3) != dropped(0.5, 4)).any()


def test_two_dropouts_in_a_row_draw_different_masks():
    layer = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))
    outputs, _ = call(layer, ONES, training=True, key=jax.random.key(0))
    assert 0 < np.mean(np.asarray(outputs) > 0) < 0.45


@pytest.mark.fast
def test_evaluation_and_rate_zero_are_the_identity_and_need_no_key():
    for rate, training in ((0.5, False), (0.0, True)):
        np.testing.assert_array_equal(call(nn.Dropout(rate), ONES, training=training)[0], ONES)


def test_the_type_stays():
    assert dropped(0.3, inputs=ONES.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_errors():
    with pytest.raises(ValueError, match="key="):
        call(nn.Dropout(0.5), ONES, training=True)
    for rate in (1.0, -0.1):
        with pytest.raises(ValueError, match=r"\[0, 1\)"):
            nn.Dropout(rate)
