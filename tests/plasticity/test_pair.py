"""Pair STDP against a NumPy loop; spike lists against trains; bounds of the weights."""

import functools

import jax
import numpy as np
import pytest

from snnjax import memory, plasticity

PARAMS = plasticity.pair.PairParams(eta_pre=3e-3, eta_post=2e-2, decay_pre=0.8, decay_post=0.7)
LARGE = plasticity.pair.PairParams(eta_pre=0.9, eta_post=0.9, decay_pre=0.9, decay_post=0.9)
DEPENDENCES = [
    plasticity.weight_dependence.Additive(),
    plasticity.weight_dependence.Multiplicative(),
    plasticity.weight_dependence.Power(0.5),
]


def train(seed, *shape, rate=0.3):
    return (np.random.default_rng(seed).random(shape) < rate).astype(np.float32)


def weights_of(seed=0, shape=(5, 4)):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def loop(weights, pre_spikes, post_spikes, *, summed=False):
    """Reference: pair STDP one synapse at a time."""
    weights, (steps, inputs), neurons = weights.copy(), pre_spikes.shape, post_spikes.shape[1]
    pre, post = np.zeros(inputs), np.zeros(neurons)
    for t in range(steps):
        s, z = pre_spikes[t], post_spikes[t]
        pre = PARAMS.decay_pre * pre + s if summed else np.where(s, 1, PARAMS.decay_pre * pre)
        post = PARAMS.decay_post * post + z if summed else np.where(z, 1, PARAMS.decay_post * post)
        for i in range(inputs):
            for j in range(neurons):
                weights[i, j] = np.clip(weights[i, j] - PARAMS.eta_pre * s[i] * post[j], 0, 1)
                weights[i, j] = np.clip(weights[i, j] + PARAMS.eta_post * pre[i] * z[j], 0, 1)
    return weights


@functools.partial(jax.jit, static_argnames=("trace", "dependence"))
def scanned(weights, pre_spikes, post_spikes, *, params=PARAMS, **options):
    def step(params, state, x):
        return plasticity.pair.pair_stdp(params, state, x, **options)

    state = plasticity.pair.pair_state(weights, batch=pre_spikes.shape[1:-1])
    return memory.store(step, params, state, (pre_spikes, post_spikes))


@pytest.mark.parametrize("summed", [False, True])
def test_equals_the_loop(summed):
    pre, post = train(1, 30, 5), train(2, 30, 4)
    trace = plasticity.traces.all_to_all if summed else plasticity.traces.nearest_neighbour
    state, _ = scanned(weights_of(), pre, post, trace=trace)
    np.testing.assert_allclose(state.weights, loop(weights_of(), pre, post, summed=summed), 1e-5)


def test_coincident_spikes_change_by_both_rates():
    ones = np.ones((1, 1), np.float32)
    state, _ = scanned(np.array([[0.5]], np.float32), ones, ones)
    assert float(state.weights[0, 0]) == pytest.approx(0.5 + PARAMS.eta_post - PARAMS.eta_pre)


@pytest.mark.parametrize("params", [PARAMS, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("dependence", DEPENDENCES, ids=lambda d: type(d).__name__)
def test_lists_of_spikes_equal_trains_and_weights_stay_in_their_bounds(dependence, params):
    pre, post = train(3, 40, 5), train(4, 40, 4)
    state, _ = scanned(weights_of(), pre, post, dependence=dependence, params=params)
    rule = plasticity.pair.PairSTDP(params, dependence)
    weights = listed(rule, weights_of(), pre, post)
    # Near a bound a large step leaves a small difference of large numbers: cancellation.
    atol = 1e-6 if params is LARGE else 0
    np.testing.assert_allclose(weights, state.weights, rtol=1e-6, atol=atol)
    assert weights.min() >= 0 and weights.max() <= 1
    if params is LARGE and isinstance(dependence, plasticity.weight_dependence.Additive):
        assert weights.min() == 0 or weights.max() == 1  # bounds were met


def listed(rule, weights, pre_spikes, post_spikes):
    """Weights after a rule has run on the spike lists of these trains."""
    inputs = pre_spikes.shape[1]
    order = np.argsort(-pre_spikes, axis=1, kind="stable")
    lists = np.where(np.take_along_axis(pre_spikes, order, 1) > 0, order, inputs)
    return np.asarray(_listed(rule, weights, lists, post_spikes))


@functools.partial(jax.jit, static_argnums=0)
def _listed(rule, weights, lists, post_spikes):
    def step(carry, x):
        traces, weights, touched = rule(*carry, *x, form=None, key=None)
        return (traces, weights), touched

    start = (rule.initial_traces(*weights.shape), weights)
    return jax.lax.scan(step, start, (lists, post_spikes))[0][1]


def test_without_depression_presynaptic_spikes_change_nothing():
    rule = plasticity.pair.PairSTDP(PARAMS, depress=False)
    silent = np.zeros((40, 4), np.float32)
    assert np.array_equal(listed(rule, weights_of(), train(5, 40, 5), silent), weights_of())


def test_a_batch_adds_its_changes():
    pre, post = train(8, 1, 3, 5), train(9, 1, 3, 4)
    together, _ = scanned(weights_of() * 0.5, pre, post)
    alone = [scanned(weights_of() * 0.5, pre[:, [b]], post[:, [b]])[0].weights for b in range(3)]
    change = sum(np.asarray(w) - weights_of() * 0.5 for w in alone)
    np.testing.assert_allclose(together.weights, weights_of() * 0.5 + change, rtol=1e-5)


def test_power_refuses_a_negative_exponent():
    with pytest.raises(ValueError, match="mu is an exponent"):
        plasticity.weight_dependence.Power(-1.0)
