"""The current-based LIF against plain loops, and the LIF it becomes without a synapse."""

import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, neurons
from snnjax.neurons import LIFParams
from snnjax.neurons.cuba_lif import CubaLIFParams, CubaLIFState, cuba_lif_state
from snnjax.neurons.lif import lif_state
from snnjax.typing import bind
from tests.compare import assert_close, assert_equal
from tests.oracle import neurons as oracle

pytestmark = pytest.mark.fast
T, B, N = 7, 2, 3
RULES = {"subtract": neurons.reset.subtract, "zero": neurons.reset.zero, "none": neurons.reset.none}


def inputs():
    return jnp.asarray(np.random.default_rng(0).normal(0.3, 0.7, (T, B, N)))


@pytest.mark.parametrize("rule", RULES)
def test_equals_the_loops(x64, rule):
    xs, rest = inputs(), cuba_lif_state((B, N), dtype=jnp.float64)
    step = bind(neurons.cuba_lif, reset=RULES[rule])
    state, spikes = memory.store(step, CubaLIFParams(0.8, 0.5, 0.7), rest, xs)
    expected, v, i = oracle.cuba_lif(np.asarray(xs), 0.8, 0.5, 0.7, rule=rule)
    np.testing.assert_array_equal(spikes, expected)
    assert_close(state, CubaLIFState(v[-1], i[-1]), 1e-13)
    assert np.sum(spikes) > 0


@pytest.mark.parametrize(
    "reset", [neurons.reset.zero, neurons.reset.delayed(neurons.reset.subtract)]
)
@pytest.mark.parametrize("scale_input", [False, True])
def test_without_a_synaptic_decay_it_is_the_lif(x64, reset, scale_input):
    xs, options = inputs(), {"reset": reset, "scale_input": scale_input}
    rest = cuba_lif_state((B, N), dtype=jnp.float64)
    step = bind(neurons.cuba_lif, **options)
    state, spikes = memory.store(step, CubaLIFParams(0.8, 0.0, 0.7), rest, xs)
    rest = lif_state((B, N), dtype=jnp.float64)
    expected = memory.store(bind(neurons.lif, **options), LIFParams(0.8, 0.7), rest, xs)
    assert_equal((state.v, spikes), (expected[0].v, expected[1]))


def test_a_charge_arrives_spread_over_time(x64):
    """One pulse of current charges a leakless membrane with its geometric series."""
    pulse = jnp.zeros((200, 1, 1)).at[0].set(0.3)
    rest = cuba_lif_state((1, 1), dtype=jnp.float64)
    state, spikes = memory.store(neurons.cuba_lif, CubaLIFParams(1.0, 0.9, 100.0), rest, pulse)
    assert_close(state.v, jnp.full((1, 1), 0.3 / (1 - 0.9)), 1e-8)
    assert jnp.sum(spikes) == 0


def test_the_resting_state():
    state = cuba_lif_state((2, 3), dtype=jnp.bfloat16)
    assert_equal(state, CubaLIFState(*(jnp.zeros((2, 3), jnp.bfloat16),) * 2))
