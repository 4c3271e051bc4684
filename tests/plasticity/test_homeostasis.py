"""Thresholds rise and decay, weights keep their sum, in float32 as in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import plasticity


def test_the_decay_survives_float32():
    """Per timestep, float32 rounds 20 mV times (1 - 5e-8) to 20 mV or loses twice as much."""
    rule, presentations = plasticity.homeostasis.AdaptiveThreshold(), 40
    expected = 20.0 * np.exp(-presentations * 350 / 1e7)
    theta = jnp.full(1, 20.0)
    for _ in range(presentations):
        theta = rule.decay(theta, 350.0)
    assert float(theta[0]) == pytest.approx(expected, rel=2e-6)

    def naive(theta, _):
        return theta * jnp.float32(np.exp(-0.5 / 1e7)), None

    by_steps, _ = jax.lax.scan(naive, jnp.full(1, 20.0), None, length=700 * presentations)
    lost, meant = 20.0 - float(by_steps[0]), 20.0 - expected
    assert lost > 1.5 * meant


def test_spikes_raise_the_threshold():
    rule = plasticity.homeostasis.AdaptiveThreshold(increment=0.05)
    theta = rule.increase(jnp.array([0.0, 1.0]), jnp.array([True, False]))
    np.testing.assert_allclose(theta, [0.05, 1.0])
    # Within a presentation it can only fall by its decay.
    assert np.all(np.asarray(rule.decay(theta, 350.0)) >= np.asarray(theta) * (1 - 3.5e-5))


def test_the_base_of_the_original_decays_with_its_offset():
    """The released code: one adaptive threshold, 20 mV at the start, all of which decays."""
    presentations, duration = 60_000, 500.0
    whole = 20.0 + 0.05 * 7
    rule = plasticity.presets.diehl_cook(4).threshold
    theta = jax.lax.fori_loop(
        0, presentations, lambda _, t: rule.decay(t, duration), jnp.full(1, whole - 20.0)
    )
    expected = whole * np.exp(-presentations * duration / 1e7) - 20.0
    assert float(theta[0]) == pytest.approx(expected, abs=0.01)
    # In the network of BindsNET a silent neuron keeps its threshold.
    for network in (plasticity.presets.current_based(4), plasticity.presets.fspinn(4)):
        assert float(network.threshold.decay(jnp.zeros(1), duration)[0]) == 0.0


def test_columns_sum_to_the_total():
    weights = jnp.asarray(np.random.default_rng(0).random((784, 3), np.float32)).at[:, 1].set(0)
    scaled = plasticity.homeostasis.normalize_columns(weights, 78.4)
    np.testing.assert_allclose(scaled.sum(0), [78.4, 0.0, 78.4], rtol=1e-5)
    one = plasticity.homeostasis.normalize_column(weights[:, 0], 78.4)
    np.testing.assert_allclose(one, scaled[:, 0], rtol=1e-6)
    assert np.array_equal(plasticity.homeostasis.normalize_column(jnp.zeros(4), 1.0), np.zeros(4))
