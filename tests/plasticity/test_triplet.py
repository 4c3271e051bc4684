"""Triplet STDP: the golden pairings of Diehl and Cook, and spike lists against trains."""

import functools
import math

import jax
import numpy as np
import pytest

from snnjax import memory, plasticity
from tests.plasticity.test_pair import listed, train, weights_of


def params(dt):
    decays = (math.exp(-dt / 20), math.exp(-dt / 20), math.exp(-dt / 40))
    return plasticity.triplet.TripletParams(1e-4, 1e-2, *decays)


@functools.partial(jax.jit, static_argnums=3)
def scanned(weights, pre, post, dt):
    state = plasticity.triplet.triplet_state(weights)
    return memory.store(plasticity.triplet.triplet_stdp, params(dt), state, (pre, post))


def changes(spikes_pre, spikes_post, *, dt=0.5, last=40.0):
    """Changes of one weight at each timestep, for spikes at the given times in ms."""
    clock = np.arange(round(last / dt)) * dt
    pre, post = (
        np.isin(clock, times).astype(np.float32)[:, None] for times in (spikes_pre, spikes_post)
    )
    _, weights = scanned(np.full((1, 1), 0.5, np.float32), pre, post, dt)
    return np.diff(np.asarray(weights)[:, 0, 0].astype(np.float64), prepend=0.5), clock


def test_golden_pairings():
    actual, clock = changes([0, 35], [10, 30])
    at = {time: actual[clock == time][0] for time in (0.0, 10.0, 30.0, 35.0)}
    assert at[0.0] == 0
    assert at[10.0] == 0  # the first postsynaptic spike after silence
    assert at[30.0] == pytest.approx(0.0013533528, rel=1e-4)
    assert at[35.0] == pytest.approx(-7.788008e-5, rel=2e-3)  # float32 at 0.5 resolves 6e-8
    assert np.count_nonzero(actual) == 2


def test_lists_of_spikes_equal_trains():
    pre, post = train(1, 40, 5), train(2, 40, 4)
    after, _ = scanned(weights_of(), pre, post, 0.5)
    actual = listed(plasticity.triplet.TripletSTDP(params(0.5)), weights_of(), pre, post)
    np.testing.assert_allclose(actual, after.weights, rtol=1e-6)


def test_without_depression_presynaptic_spikes_change_nothing():
    rule = plasticity.triplet.TripletSTDP(params(0.5), depress=False)
    silent = np.zeros((20, 4), np.float32)
    assert np.array_equal(listed(rule, weights_of(), train(3, 20, 5), silent), weights_of())
