"""The checker passes what is right and names what is planted wrong."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, neurons
from snnjax.neurons.lif import lif_inverse, lif_state

T, SHAPE = 6, (2, 4)


def lif_arguments():
    xs = jnp.asarray(np.random.default_rng(0).normal(0.4, 0.6, (T, *SHAPE)), jnp.float32)
    params = neurons.LIFParams(jnp.asarray(0.5), jnp.asarray(1.0))
    return neurons.lif, params, lif_state(SHAPE), xs


def noisy(params, state, x):
    """A step that draws, as dropout does, and gives out a statistic."""
    current, key = x
    kept = jnp.where(jax.random.bernoulli(key, 0.5, current.shape), current * params, 0.0)
    state = 0.5 * state + kept
    return state, (jax.nn.soft_sign(state), jnp.mean(jnp.square(current)))


def noisy_arguments():
    keys = jax.random.split(jax.random.key(1), T)
    return noisy, jnp.asarray(1.5), jnp.zeros(SHAPE), (lif_arguments()[3], keys)


def replaying(spoil):
    """A scan that keeps its inputs and runs again on what `spoil` makes of them."""

    @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
    def run(step, params, state, currents, keys):
        return memory.store(step, params, state, (currents, keys))

    def forward(step, *arguments):
        return run(step, *arguments), arguments

    def backward(step, kept, cotangents):
        params, state, currents, keys = kept

        def again(params, state, currents):
            return memory.store(step, params, state, (currents, spoil(keys)))

        return (*jax.vjp(again, params, state, currents)[1](cotangents), None)

    run.defvjp(forward, backward)
    return lambda step, params, state, xs: run(step, params, state, *xs)


def twice(step, params, state, xs):
    """A scan that counts every by-product twice, as a norm updated in the replay would."""
    state, (y, statistic) = memory.store(step, params, state, xs)
    return state, (y, 2 * statistic)


@pytest.mark.fast
def test_a_right_strategy_passes_on_every_count():
    step, *arguments = lif_arguments()
    scans = {
        "store": memory.store,
        "recompute": memory.recompute(2),
        "reverse": memory.reverse(lif_inverse(decay=0.5), refresh=4),
    }
    actual = memory.check(scans, step, *arguments)
    assert [f.name for f in actual] == list(scans)
    for finding in actual:
        assert finding.ok and finding.outputs_equal, finding.faults
        assert finding.relative <= 1e-5 and finding.cosine > 1 - 1e-9
        assert finding.measured.temp_bytes > 0 and finding.seconds > 0
    assert set(actual[0].gradients) == {"0.decay", "0.threshold", "1.v", "2"}
    assert actual[0].reconstruction is None and 0 <= actual[2].reconstruction < 1e-5


@pytest.mark.fast
def test_a_wrong_inverse_is_named():
    step, *arguments = lif_arguments()
    wrong = memory.reverse(lif_inverse(decay=0.5, reset=neurons.reset.none))
    (actual,) = memory.check({"wrong": wrong}, step, *arguments)
    assert not actual.ok and "wrong inverse" in actual.faults[0]
    assert actual.outputs_equal and actual.relative > 1e-3


@pytest.mark.fast
def test_a_statistic_that_leaves_twice_is_named():
    (actual,) = memory.check({"twice": twice}, *noisy_arguments())
    assert actual.faults == ("outputs or by-products differ from store's: 1",)


@pytest.mark.fast
def test_a_dropped_key_is_named():
    scans = {"right": replaying(lambda keys: keys), "dropped": replaying(lambda keys: keys[::-1])}
    right, dropped = memory.check(scans, *noisy_arguments())
    assert right.ok, right.faults
    assert "dropped key" in dropped.faults[0]


@pytest.mark.fast
def test_any_other_wrong_gradient_is_named_by_its_array():
    @jax.custom_jvp
    def biased(x):
        return x

    biased.defjvp(lambda x, t: (x[0], 1.1 * t[0]))

    def scan(step, params, state, xs):
        return memory.store(step, jax.tree.map(biased, params), state, xs)

    step, *arguments = lif_arguments()
    (actual,) = memory.check({"biased": scan}, step, *arguments)
    assert "wrong gradient of 0." in actual.faults[0]
    assert actual.relative == pytest.approx(0.1, rel=1e-3)


@pytest.mark.fast
def test_arrays_are_equal_bit_for_bit_or_within_a_share_of_the_largest_entry():
    a = {"x": np.float32([1.0, np.inf]), "y": np.float32([8.0, 1.0]), "z": np.float32([np.nan])}
    b = {"x": np.float32([1.0, np.inf]), "y": np.float32([8.0, 1.25]), "z": np.float32([np.nan])}
    assert memory.checking.unequal_leaves(a, b) == ["y", "z"]
    assert memory.checking.unequal_leaves(a, b, tolerance=1 / 32) == ["z"]
    assert memory.checking.unequal_leaves(a, b, tolerance=1 / 33) == ["y", "z"]
