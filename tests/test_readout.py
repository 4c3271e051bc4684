"""Laws of the readouts: agreement, order of timesteps, gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import readout

PLAIN = [readout.rate, readout.total, readout.max_membrane, readout.last]
ORDERLESS = [readout.rate, readout.total, readout.max_membrane]


@pytest.fixture
def outputs():
    return jax.random.normal(jax.random.key(0), (6, 3, 4))


@pytest.mark.parametrize("read", PLAIN)
def test_time_leaves_and_nothing_else(read, outputs):
    assert read(outputs).shape == (3, 4)
    assert read(outputs[..., None, :]).shape == (3, 1, 4)
    half = outputs.astype(jnp.bfloat16)
    assert read(half).dtype == half.dtype
    np.testing.assert_allclose(jax.jit(read)(outputs), read(outputs), rtol=1e-6)


@pytest.mark.parametrize("read", PLAIN)
def test_one_timestep_reads_as_itself(read, outputs):
    np.testing.assert_array_equal(read(outputs[:1]), outputs[0])


@pytest.mark.parametrize("read", ORDERLESS)
def test_the_order_of_time_does_not_matter(read, outputs):
    np.testing.assert_allclose(read(outputs[::-1]), read(outputs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("read", PLAIN)
def test_examples_and_classes_do_not_mix(read, outputs):
    np.testing.assert_array_equal(read(outputs[:, ::-1]), read(outputs)[::-1])
    np.testing.assert_array_equal(read(outputs[..., ::-1]), read(outputs)[:, ::-1])


@pytest.mark.parametrize("read", [readout.rate, readout.max_membrane, readout.last])
def test_a_constant_reads_as_the_constant(read, outputs):
    constant = jnp.broadcast_to(outputs[0], outputs.shape)
    np.testing.assert_allclose(read(constant), outputs[0], rtol=1e-6)
    np.testing.assert_allclose(read(outputs + 2.0), read(outputs) + 2.0, rtol=1e-5, atol=1e-5)


def test_weighted_rate_holds_rate_last_and_burn_in_as_special_cases(outputs):
    weighted = readout.weighted_rate
    np.testing.assert_allclose(
        weighted(outputs, jnp.full(6, 3.0)), readout.rate(outputs), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(weighted(outputs, jnp.eye(6)[5]), readout.last(outputs))
    burn_in = jnp.array([0.0, 0, 0, 1, 1, 1])
    np.testing.assert_allclose(
        weighted(outputs, burn_in), readout.rate(outputs[3:]), rtol=1e-5, atol=1e-6
    )
    loss = jax.jit(jax.grad(lambda w: weighted(outputs, jax.nn.softmax(w)).sum()))
    assert loss(jnp.zeros(6)).shape == (6,)


def test_decayed_rate_weighs_as_a_leaky_membrane_does(outputs):
    """Against the recursion of the membrane; padding takes no part."""
    read = functools.partial(readout.decayed_rate, decay=0.7)

    def membrane(trains):
        v = weight = 0.0
        for spikes in np.asarray(trains, np.float64):
            v, weight = 0.7 * v + spikes, 0.7 * weight + 1
        return v / weight

    np.testing.assert_allclose(read(outputs), membrane(outputs), rtol=1e-5, atol=1e-6)
    padded = read(outputs.at[4:, 1].set(jnp.nan), lengths=jnp.array([6, 4, 6]))
    np.testing.assert_allclose(padded[1], membrane(outputs[:4])[1], rtol=1e-5, atol=1e-6)
    plain = readout.decayed_rate(outputs, decay=1.0)
    np.testing.assert_allclose(plain, readout.rate(outputs), rtol=1e-5, atol=1e-6)


def test_total_is_rate_times_the_window(outputs):
    np.testing.assert_allclose(
        readout.total(outputs), 6 * readout.rate(outputs), rtol=1e-5, atol=1e-6
    )


def test_gradients_reach_the_timesteps_that_were_read(outputs):
    def reached(read):
        return np.asarray(jax.grad(lambda o: read(o).sum())(outputs))

    np.testing.assert_allclose(reached(readout.rate), 1 / 6, rtol=1e-6)
    np.testing.assert_array_equal(reached(readout.last)[:-1], 0.0)
    largest = np.asarray(outputs) == np.asarray(outputs).max(0)
    np.testing.assert_array_equal(reached(readout.max_membrane), largest.astype(np.float32))


x = np.ones((4, 2, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "cure"),
    [
        (lambda: readout.rate(x[0]), ValueError, r"outputs\[None\]"),
        (lambda: readout.last(x[:0]), ValueError, "T >= 1"),
        (lambda: readout.total(x > 0), TypeError, "float32"),
        (lambda: readout.weighted_rate(x, np.ones(3, np.float32)), ValueError, "per timestep"),
        (lambda: readout.weighted_rate(x, np.ones(4, int)), TypeError, "floating"),
        (lambda: readout.weighted_rate(x, np.zeros(4, np.float32)), ValueError, "all 0"),
        (lambda: readout.decayed_rate(x, decay=1.5), ValueError, "1 for neurons without a leak"),
        (lambda: readout.weighted_rate(x, -np.ones(4, np.float32)), ValueError, "negative"),
    ],
)
def test_wrong_arguments_name_the_cure(call, error, cure):
    with pytest.raises(error, match=cure):
        call()
