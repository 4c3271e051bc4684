"""The three forms of competition give the same inhibition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import plasticity

SPIKES = jnp.asarray((np.random.default_rng(0).random((12, 6)) < 0.3).astype(np.float32))
FORMS = {
    "sums": plasticity.inhibition.LateralInhibition(17.0),
    "matrix": plasticity.inhibition.LateralInhibition(17.0, stored=True),
    "bytes": plasticity.inhibition.LateralInhibition(17.0, stored=True, bits=8),
    "layer": plasticity.inhibition.InhibitoryLayer(
        plasticity.cells.current_inhibitory(), strength=17.0
    ),
    "stored layer": plasticity.inhibition.InhibitoryLayer(
        plasticity.cells.current_inhibitory(), strength=17.0, stored=True
    ),
    "conductances": plasticity.inhibition.InhibitoryLayer(
        plasticity.cells.conductance_inhibitory(), excitation=10.4, strength=17.0
    ),
}


def run(name, spikes=SPIKES):
    return np.asarray(_run(name, spikes))


@functools.partial(jax.jit, static_argnums=0)
def _run(name, spikes):
    form, neurons = FORMS[name], spikes.shape[1]
    matrices = form.matrices(neurons)

    def step(state, spikes):
        return form(state, spikes, matrices)

    return jax.lax.scan(step, form.initial_state(neurons), spikes)[1]


def test_matrix_and_sums_are_equal_bit_for_bit():
    expected = 17.0 * (np.asarray(SPIKES).sum(1, keepdims=True) - np.asarray(SPIKES))
    for name in ("sums", "matrix", "bytes"):
        assert np.array_equal(run(name), expected), name
    assert np.array_equal(run("layer"), run("stored layer"))


@pytest.mark.parametrize("name", ["layer", "conductances"])
def test_a_layer_is_one_step_late(name):
    once = (
        SPIKES * jnp.asarray(np.arange(12) % 6 == 0, jnp.float32)[:, None]
    )  # not faster than it can follow
    assert np.array_equal(run(name, once)[1:], run("sums", once)[:-1])
    assert not run(name, once)[0].any()


@pytest.mark.parametrize("name", FORMS)
def test_order_of_neurons_does_not_matter(name):
    order = np.array([3, 1, 5, 0, 2, 4])
    assert np.array_equal(run(name, SPIKES[:, order]), run(name)[:, order])


def test_only_whole_bytes_are_stored():
    with pytest.raises(ValueError, match="32 or 8"):
        plasticity.inhibition.LateralInhibition(stored=True, bits=4).matrices(3)
