"""The ALIF against plain loops, and what adaptation does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, neurons
from snnjax.neurons import LIFParams
from snnjax.neurons.alif import ALIFParams, ALIFState, alif_state
from snnjax.neurons.lif import lif_state
from snnjax.typing import bind
from tests.compare import AS_USERS_DO, assert_close, assert_equal
from tests.oracle import neurons as oracle

pytestmark = pytest.mark.fast
T, B, N = 7, 2, 3
RULES = {"subtract": neurons.reset.subtract, "zero": neurons.reset.zero}


def run(xs, params, rule="subtract", scale_input=False):
    step = bind(neurons.alif, reset=RULES[rule], scale_input=scale_input)
    return memory.store(step, params, alif_state(xs.shape[1:], dtype=xs.dtype), xs)


@pytest.mark.parametrize("rule", RULES)
def test_equals_the_loops(x64, rule):
    xs = jnp.asarray(np.random.default_rng(0).normal(0.6, 0.8, (T, B, N)))
    state, spikes = run(xs, ALIFParams(0.9, 0.5, 0.8, 0.3), rule)
    expected, v, a = oracle.alif(np.asarray(xs), 0.9, 0.5, 0.8, 0.3, rule=rule)
    np.testing.assert_array_equal(spikes, expected)
    assert_close(state, ALIFState(v[-1], a[-1]), 1e-13)
    assert np.sum(spikes) > 5


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("scale_input", [False, True])
def test_without_strength_it_is_the_lif_gradient_included(x64, rule, scale_input):
    xs = jnp.asarray(np.random.default_rng(1).normal(0.6, 0.8, (T, B, N)))

    def adaptive(xs):
        state, spikes = run(xs, ALIFParams(0.9, 0.5, 0.8, 0.0), rule, scale_input)
        return jnp.sum(spikes * xs) + jnp.sum(state.v), (state.v, spikes)

    def plain(xs):
        step = bind(neurons.lif, reset=RULES[rule], scale_input=scale_input)
        rest = lif_state((B, N), dtype=xs.dtype)
        state, spikes = memory.store(step, LIFParams(0.9, 0.5), rest, xs)
        return jnp.sum(spikes * xs) + jnp.sum(state.v), (state.v, spikes)

    (gradient, outputs), (expected, expected_outputs) = (
        jax.jit(jax.grad(one, has_aux=True), compiler_options=AS_USERS_DO)(xs)
        for one in (adaptive, plain)
    )
    assert_equal(outputs, expected_outputs)
    assert_close(gradient, expected, 1e-13)


def test_adaptation_slows_a_steady_neuron_down_and_recovers():
    drive = jnp.full((40, 1, 1), 0.4)
    steady = LIFParams(0.9, 1.0)
    _, plain = memory.store(neurons.lif, steady, lif_state((1, 1)), drive)
    _, adapted = run(drive, ALIFParams(0.9, 1.0, 0.95, 0.5))
    assert jnp.sum(adapted) < jnp.sum(plain)
    gaps = np.diff(np.flatnonzero(np.asarray(adapted)[:, 0, 0]))
    assert gaps[-1] > gaps[0]
    state, _ = run(
        jnp.concatenate([drive, jnp.zeros((400, 1, 1))]), ALIFParams(0.9, 1.0, 0.95, 0.5)
    )
    assert_close(state.a, jnp.zeros((1, 1)), 1e-6)


def test_the_adaptation_is_bounded_by_its_geometric_series():
    state, spikes = run(jnp.full((60, 1, 2), 5.0), ALIFParams(0.9, 1.0, 0.8, 0.01))
    assert jnp.all(spikes == 1)
    assert_close(state.a, jnp.full((1, 2), 1 / (1 - 0.8)), 1e-5)


def test_a_delayed_reset_is_refused_and_the_cure_named():
    step = bind(neurons.alif, reset=neurons.reset.delayed(neurons.reset.subtract))
    with pytest.raises(ValueError, match=r"subtract, zero, to\(value\) or none"):
        step(ALIFParams(0.9, 1.0, 0.9, 0.1), alif_state((1, 2)), jnp.ones((1, 2)))


def test_the_resting_state():
    state = alif_state((2, 3), dtype=jnp.bfloat16)
    assert_equal(state, ALIFState(*(jnp.zeros((2, 3), jnp.bfloat16),) * 2))
