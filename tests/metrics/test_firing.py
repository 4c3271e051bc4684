"""Laws of the firing rates: per neuron, timestep and example, independent of other taps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import metrics

B = 16


def test_firing_rates_count_spikes_per_neuron_timestep_and_example():
    train = jax.random.bernoulli(jax.random.key(0), 0.3, (7, B, 4, 4, 2))
    dense = jnp.ones((7, B, 3), jnp.bfloat16)
    taps = {"conv": {"spikes": train.astype(jnp.float32), "v": dense}, "head": dense}
    rates = metrics.firing_rates(taps)
    assert list(rates) == ["conv", "head"]
    np.testing.assert_allclose(rates["conv"], np.asarray(train).mean(), rtol=1e-5)
    np.testing.assert_array_equal(rates["head"], 1.0)
    weights = (jnp.arange(B) < 3).astype(jnp.float32)
    kept = jax.jit(metrics.firing_rates)(taps, weights=weights)["conv"]
    np.testing.assert_allclose(kept, np.asarray(train)[:, :3].mean(), rtol=1e-5)


def test_firing_rates_leave_out_layers_without_spikes():
    spikes = jnp.zeros((2, 3, 4))
    assert list(metrics.firing_rates({"lif": {"spikes": spikes}, "li": {"v": spikes}})) == ["lif"]
    assert metrics.firing_rates({}) == {}


@pytest.mark.parametrize(
    ("taps", "cure"),
    [
        ({"li": {"v": np.zeros((4, 3))}}, "taps=.'spikes'"),
        ({"lif": np.zeros(4)}, r"\[T, B, ...\]"),
    ],
)
def test_wrong_taps_name_the_cure(taps, cure):
    with pytest.raises(ValueError, match=cure):
        metrics.firing_rates(taps)


@pytest.mark.fast
def test_nasfr_is_all_spikes_over_all_neurons_timesteps_and_examples():
    keys = jax.random.split(jax.random.key(0), 2)
    taps = {
        "conv": jax.random.bernoulli(keys[0], 0.1, (3, B, 4, 4, 2)),
        "head": jax.random.bernoulli(keys[1], 0.6, (3, B, 5)),
    }
    rates = metrics.firing_rates(taps)
    found = metrics.nasfr(rates, {"conv": 32, "head": 5})
    spikes = sum(int(train.sum()) for train in taps.values())
    np.testing.assert_allclose(found, spikes / (3 * B * 37), rtol=1e-6)
    assert abs(float(found) - float(sum(rates.values())) / 2) > 0.1
    assert metrics.nasfr({"conv": 0.1, "head": 0.4}, {"head": 100, "conv": 300}) == 0.175


@pytest.mark.parametrize(
    ("rates", "neurons"), [({}, {}), ({"lif": 0.1}, {}), ({"a": 0.1}, {"a": 1, "b": 2})]
)
def test_nasfr_of_other_layers_or_none_is_refused(rates, neurons):
    with pytest.raises(ValueError, match="the same layers in both"):
        metrics.nasfr(rates, neurons)
