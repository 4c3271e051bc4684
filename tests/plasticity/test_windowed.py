"""Windowed STDP: one update per window, for neurons that fired, by an integer factor."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import plasticity
from tests.plasticity.test_pair import listed, train, weights_of

PARAMS = plasticity.windowed.WindowedParams(
    eta_pre=0.01, eta_post=0.02, decay_pre=0.8, decay_post=0.7
)


def loop(weights, pre_spikes, post_spikes, *, window, spikes_per_factor):
    weights, (steps, inputs), neurons = weights.copy(), pre_spikes.shape, post_spikes.shape[1]
    pre, post = np.zeros(inputs), np.zeros(neurons)
    fired, counts = np.zeros(neurons, bool), np.zeros(neurons)
    for t in range(steps):
        pre = np.where(pre_spikes[t], 1, PARAMS.decay_pre * pre)
        post = np.where(post_spikes[t], 1, PARAMS.decay_post * post)
        fired, counts = fired | (post_spikes[t] > 0), counts + post_spikes[t]
        if (t + 1) % window:
            continue
        factor = np.ceil(counts.max() / spikes_per_factor)
        for j in range(neurons):
            column = weights[:, j]
            up = factor * PARAMS.eta_post * pre * (1 - column)
            down = PARAMS.eta_pre * post[j] * column
            weights[:, j] = np.clip(column + (up if fired[j] else -down), 0, 1)
        fired = np.zeros(neurons, bool)
    return weights


RULE = plasticity.windowed.WindowedSTDP(PARAMS, window=7, spikes_per_factor=2.0)


@pytest.mark.parametrize("window", [1, 7])
def test_equals_the_loop(window):
    pre, post = train(1, 30, 5), train(2, 30, 4, rate=0.15)
    rule = dataclasses.replace(RULE, window=window)
    actual = listed(rule, weights_of(), pre, post)
    expected = loop(weights_of(), pre, post, window=window, spikes_per_factor=2.0)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_the_factor_is_whole_at_least_one_and_grows():
    counts = jnp.arange(12.0)
    factors = [
        float(plasticity.windowed.potentiation_factor(counts[: n + 1], 4.0)) for n in range(12)
    ]
    assert factors[0] == 0 and min(factors[1:]) == 1
    assert factors == sorted(factors) and all(f == int(f) for f in factors)
    assert factors[4] == 1 and factors[5] == 2


@pytest.mark.parametrize(("pre", "post"), [(0.5, 0.0), (0.0, 0.0)])
def test_presynaptic_spikes_alone_and_silence_change_nothing(pre, post):
    spikes = train(3, 30, 5, rate=pre), train(4, 30, 4, rate=post)
    assert np.array_equal(listed(RULE, weights_of(), *spikes), weights_of())


def test_a_window_that_is_cut_short_changes_nothing():
    """In 30 steps with windows of 7 the last two steps have no effect; one step earlier they do."""
    pre, post = np.zeros((30, 5), np.float32), np.zeros((30, 4), np.float32)
    pre[28:], post[28:] = 1, 1
    assert np.array_equal(listed(RULE, weights_of(), pre, post), weights_of())
    earlier = np.roll(pre, -1, 0), np.roll(post, -1, 0)
    assert not np.array_equal(listed(RULE, weights_of(), *earlier), weights_of())


@pytest.mark.parametrize(
    ("options", "words"),
    [({"window": 0}, "at least one timestep"), ({"spikes_per_factor": 0.0}, "None is a")],
)
def test_bad_options_name_the_cure(options, words):
    with pytest.raises(ValueError, match=words):
        plasticity.windowed.WindowedSTDP(**options)
