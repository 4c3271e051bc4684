"""Complete networks: changes under learning, switches, repeated showings, stored weights."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import encoding, plasticity
from snnjax.quantization import QFormat

INPUTS, NEURONS = 20, 6
SMALL = {"inputs": INPUTS, "timesteps": 40, "slots": 24, "total": 6.0}
BYTES = QFormat(0, 8)
NETWORKS = {
    "layer": plasticity.presets.current_based(NEURONS, **SMALL),
    "lateral": plasticity.presets.current_based(NEURONS, lateral=True, **SMALL),
    "post-triggered": plasticity.presets.fspinn(NEURONS, window=None, **SMALL),
    "fspinn": plasticity.presets.fspinn(NEURONS, **SMALL),
    "fspinn, bytes": plasticity.presets.fspinn(NEURONS, form=BYTES, **SMALL),
    "diehl_cook": plasticity.presets.diehl_cook(NEURONS, **{**SMALL, "silence": 10}),
    "diehl_cook, bytes": plasticity.presets.diehl_cook(
        NEURONS, form=BYTES, **{**SMALL, "silence": 10}
    ),
}
# Without learning the rule is not traced, so these four cover all distinct programs.
QUIET = ("layer", "lateral", "fspinn, bytes", "diehl_cook")
RATES = jnp.asarray(np.random.default_rng(0).random(INPUTS, np.float32) * 0.6)


@functools.partial(jax.jit, static_argnums=0, static_argnames="learning")
def presented(network, state, rates, key, *, learning):
    return plasticity.present(network, state, rates, key, learning=learning)


def start(network):
    return plasticity.initialize(network, jax.random.key(0))


@pytest.mark.parametrize("name", QUIET)
def test_without_learning_nothing_learned_changes(name):
    network = NETWORKS[name]
    before = start(network)
    after, actual = presented(network, before, RATES, jax.random.key(1), learning=False)
    assert np.array_equal(after.weights, before.weights)
    assert np.array_equal(after.theta, before.theta)
    assert float(actual.updates) == 0 and float(actual.counts.sum()) > 0


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=() if name in ("layer", "fspinn, bytes", "diehl_cook") else pytest.mark.slow
        )
        for name in NETWORKS
    ],
)
def test_learning_keeps_bounds_grid_and_sums(name):
    network = NETWORKS[name]
    state = before = start(network)
    for n in range(3):
        state, actual = presented(network, state, RATES, jax.random.key(n), learning=True)
    weights = np.asarray(state.weights)
    assert weights.dtype == (np.uint8 if "bytes" in name else np.float32)
    assert not np.array_equal(weights, before.weights) and float(actual.updates) > 0
    if network.form is None:
        fired = np.asarray(state.theta) > 0
        assert fired.any() and weights.min() >= 0 and weights.max() <= 1
        np.testing.assert_allclose(weights.sum(0)[fired], 6.0, rtol=1e-3)
    # The base of the conductance-based network decays below the offset's start.
    least = network.threshold.decay(jnp.zeros(()), 3 * network.duration)
    assert np.all(np.asarray(state.theta) >= 1.001 * least)


def test_the_same_key_gives_the_same_bits_and_another_one_does_not():
    network = NETWORKS["fspinn, bytes"]
    one, two, other = (
        presented(network, start(network), RATES, jax.random.key(k), learning=True)[0].weights
        for k in (0, 0, 7)
    )
    assert np.array_equal(one, two) and not np.array_equal(one, other)


def test_stored_matrices_give_the_same_spikes():
    plain = NETWORKS["lateral"]
    stored = dataclasses.replace(
        plain, inhibition=dataclasses.replace(plain.inhibition, stored=True)
    )
    results = [
        presented(network, start(network), RATES, jax.random.key(1), learning=True)
        for network in (plain, stored)
    ]
    assert np.array_equal(results[0][1].counts, results[1][1].counts)
    assert np.array_equal(results[0][0].weights, results[1][0].weights)


def test_inhibition_makes_neurons_compete():
    """Stronger inhibition leaves fewer spikes at the same input."""
    spikes = []
    for strength in (0.0, 5.0, 120.0):
        inhibition = plasticity.inhibition.LateralInhibition(strength)
        network = dataclasses.replace(NETWORKS["lateral"], inhibition=inhibition)
        _, actual = presented(network, start(network), RATES, jax.random.key(1), learning=False)
        spikes.append(float(actual.counts.sum()))
    assert spikes[0] > spikes[1] > spikes[2] > 0


def test_an_example_with_too_few_spikes_is_shown_again():
    network = dataclasses.replace(
        NETWORKS["lateral"], min_spikes=4, brightening=1.0, max_showings=6
    )
    dim, none = RATES * 0.08, RATES * 0
    _, actual = presented(network, start(network), dim, jax.random.key(1), learning=True)
    assert 1 < int(actual.showings) <= 6
    _, actual = presented(network, start(network), none, jax.random.key(1), learning=True)
    assert int(actual.showings) == 6 and float(actual.input_spikes) == 0
    _, actual = presented(network, start(network), RATES * 3, jax.random.key(1), learning=True)
    assert int(actual.showings) == 1


def test_updates_are_counted():
    """Post-triggered: one column per spike; with depression also one row per input spike."""
    for name, rows in (("post-triggered", 0), ("lateral", 1)):
        network = NETWORKS[name]
        _, actual = presented(network, start(network), RATES, jax.random.key(1), learning=True)
        expected = INPUTS * float(actual.counts.sum()) + rows * NEURONS * float(actual.input_spikes)
        assert float(actual.updates) == expected


def test_input_spikes_are_the_drawn_ones():
    network = NETWORKS["lateral"]
    _, actual = presented(network, start(network), RATES, jax.random.key(3), learning=False)
    spikes_key = jax.random.split(jax.random.fold_in(jax.random.key(3), 0), 3)[0]
    lists = encoding.spike_lists.poisson_lists(spikes_key, RATES, timesteps=40, slots=24)
    assert float(actual.input_spikes) == (np.asarray(lists) < INPUTS).sum()


def test_resting_networks_remember_and_others_do_not():
    network = NETWORKS["diehl_cook"]
    after, _ = presented(network, start(network), RATES, jax.random.key(1), learning=False)
    assert not np.array_equal(after.activity.cell.v, start(network).activity.cell.v)
    assert start(NETWORKS["lateral"]).activity == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"neurons": 0}, "neurons must be"),
        ({"min_spikes": -1}, "is a count"),
        ({"slots": 0}, "slots"),
    ],
)
def test_bad_networks_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(NETWORKS["lateral"], **change)


def test_a_window_needs_the_post_triggered_rule():
    with pytest.raises(ValueError, match="window=None"):
        plasticity.presets.fspinn(NEURONS, post_triggered=False)


def test_all_switches_off_is_the_baseline():
    off = plasticity.presets.fspinn(
        NEURONS, lateral=False, post_triggered=False, window=None, spikes_per_factor=None, **SMALL
    )
    assert off == NETWORKS["layer"]
