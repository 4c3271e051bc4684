"""Sparsities and membrane updates: agreement with their published definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import metrics

pytestmark = pytest.mark.fast


def test_connection_sparsity_is_rounded_to_four_decimals():
    weights = [jnp.array([[1.0, 0, -3]]), jnp.array([0.0, -0.0, 1, 2])]
    assert metrics.connection_sparsity(weights) == round(3 / 7, 4) == 0.4286
    assert metrics.connection_sparsity([jnp.ones(3)]) == 0.0
    with pytest.raises(ValueError, match="at least one"):
        metrics.connection_sparsity([])


def test_activation_sparsity_weighs_layers_by_their_outputs():
    few, many = jnp.ones((2, 1, 1)), jnp.zeros((2, 1, 9))
    assert metrics.activation_sparsity([few, many]) == 0.9
    assert metrics.activation_sparsity([many - 3]) == 0.0  # anything but 0 is active
    assert metrics.activation_sparsity([]) == 0.0


def test_it_is_one_minus_nasfr():
    spikes = [jax.random.bernoulli(jax.random.key(n), 0.2, (3, 4, n)) for n in (5, 50)]
    rates = {str(n): float(s.mean()) for n, s in enumerate(spikes)}
    neurons = {"0": 5, "1": 50}
    nasfr = float(metrics.nasfr(rates, neurons))
    np.testing.assert_allclose(metrics.activation_sparsity(spikes), 1 - nasfr, rtol=1e-6)


def test_the_first_step_updates_all_membranes():
    membrane = jnp.array([[[0.0, 0.5]], [[0.0, 0.5]], [[0.0, 0.25]]])  # [T=3, B=1, N=2]
    np.testing.assert_array_equal(metrics.operations.membrane_updates(membrane), [3])
    np.testing.assert_array_equal(metrics.operations.membrane_updates(membrane[:1]), [2])
    both = jnp.concatenate([membrane, jnp.arange(6.0).reshape(3, 1, 2)], axis=1)
    np.testing.assert_array_equal(metrics.operations.membrane_updates(both), [3, 6])


@pytest.mark.parametrize(
    ("model", "subtract", "zero"),
    [("leaky", 4, 4), ("synaptic", 6, 8), ("lapicque", 11, 11), ("alpha", 18, 24)],
)
def test_neuron_operations_per_update(model, subtract, zero):
    assert metrics.operations.neuron_operations(10, model=model) == 10 * subtract
    assert metrics.operations.neuron_operations(10, model=model, reset="zero") == 10 * zero


def test_neurons_without_a_definition_are_refused():
    with pytest.raises(ValueError, match="leave them out"):
        metrics.operations.neuron_operations(1, model="izhikevich")
    with pytest.raises(ValueError, match="leave them out"):
        metrics.operations.neuron_operations(1, reset="soft")
