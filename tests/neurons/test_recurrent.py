"""Feedback around any neuron: against loops, against no feedback, and as a comparable step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, neurons
from snnjax.neurons import LIFParams
from snnjax.neurons.lif import lif_state
from snnjax.neurons.recurrent import Recurrent, RecurrentParams, RecurrentState
from snnjax.typing import bind
from tests.compare import AS_USERS_DO, assert_close, assert_equal
from tests.neurons.cases import case
from tests.oracle import neurons as oracle

pytestmark = pytest.mark.fast
T, B, N = 7, 2, 3


def diagonal(weights, outputs):
    return weights * outputs


def start(batch=B, n=N):
    silent = jnp.zeros((batch, n))
    return RecurrentState(lif_state((batch, n), dtype=silent.dtype), silent)


def test_equals_the_loops_and_the_order_of_the_weights_is_from_to(x64):
    rng = np.random.default_rng(0)
    xs, weights = rng.normal(0.4, 0.7, (T, B, N)), rng.normal(0, 0.8, (N, N))
    params = RecurrentParams(LIFParams(0.8, 0.7), jnp.asarray(weights))
    step = Recurrent(neurons.lif)
    state, spikes = memory.store(step, params, start(), jnp.asarray(xs))
    np.testing.assert_array_equal(spikes, oracle.recurrent_lif(xs, weights, 0.8, 0.7))
    assert_equal(state.outputs, spikes[-1])
    assert np.any(spikes != oracle.recurrent_lif(xs, weights.T, 0.8, 0.7))


@pytest.mark.parametrize("name", ["lif", "alif", "cuba_lif", "plif"])
def test_without_weight_it_is_the_neuron_itself(x64, name):
    made = case(name)
    params = RecurrentParams(made.params, jnp.zeros((N, N)))
    state = RecurrentState(made.state, jnp.ones((B, N)))
    store = jax.jit(memory.store, static_argnums=0, compiler_options=AS_USERS_DO)
    after, outputs = store(Recurrent(made.step), params, state, made.xs)
    expected = store(made.step, made.params, made.state, made.xs)
    assert_equal((after.neuron, outputs), expected)


def test_feedback_arrives_one_step_later():
    weights = jnp.zeros((2, 2)).at[0, 1].set(5.0)
    params = RecurrentParams(LIFParams(0.5, 1.0), weights)
    xs = jnp.zeros((3, 1, 2)).at[0, 0, 0].set(1.0)
    _, spikes = memory.store(Recurrent(neurons.lif), params, start(1, 2), xs)
    np.testing.assert_array_equal(spikes[:, 0], [[1, 0], [0, 1], [0, 1]])


def test_a_connection_of_ones_own(x64):
    rng = np.random.default_rng(1)
    xs, weights = jnp.asarray(rng.normal(0.4, 0.7, (T, B, N))), jnp.asarray([0.5, -1.0, 2.0])
    own = Recurrent(neurons.lif, connection=diagonal)
    runs = [
        memory.store(step, RecurrentParams(LIFParams(0.8, 0.7), w), start(), xs)
        for step, w in ((own, weights), (Recurrent(neurons.lif), jnp.diag(weights)))
    ]
    assert_close(runs[0], runs[1], 1e-12)


def test_the_gradient_reaches_the_feedback_weights(x64):
    made = case("recurrent_lif")

    def total(params):
        return jnp.sum(memory.store(made.step, params, made.state, made.xs)[1] * jnp.cos(made.xs))

    assert jnp.all(jnp.abs(jax.grad(total)(made.params).weights) > 1e-6)


def test_equal_arguments_give_equal_steps():
    assert Recurrent(neurons.lif) == Recurrent(neurons.lif)
    bound = bind(neurons.lif, reset=neurons.reset.zero)
    assert Recurrent(bound) == Recurrent(bind(neurons.lif, reset=neurons.reset.zero))
    different = (
        Recurrent(neurons.lif),
        Recurrent(neurons.alif),
        Recurrent(bound),
        Recurrent(neurons.lif, connection=diagonal),
    )
    assert len(set(different)) == len(different)
