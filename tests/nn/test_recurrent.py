"""Feedback: the equation written out, under every scan, and what it reduces to without weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import memory, nn
from tests.compare import assert_close
from tests.nn.layers import FLAT, B, call, dyadic, leaves, rngs, run, sequence

N = FLAT[-1]


def recurrent(scan=None, neuron=nn.LIF, **options):
    return dyadic(nn.Recurrent(neuron(scan=scan, **options), N, rngs=rngs(), gain=2.0))


@pytest.mark.fast
def test_the_last_spikes_come_back_through_the_weights():
    layer, inputs = recurrent(), dyadic(sequence(FLAT))
    outputs, aux = call(layer, inputs)
    v = spikes = jnp.zeros(FLAT)
    expected = []
    for current in inputs:
        h = 0.5 * v + current + spikes @ layer.weights[...]
        spikes = (h >= 1).astype(jnp.float32)
        v = h - spikes
        expected.append(spikes)
    np.testing.assert_array_equal(outputs, jnp.stack(expected))
    np.testing.assert_array_equal(aux.state.neuron.v, v)
    np.testing.assert_array_equal(aux.state.outputs, spikes)


def test_without_weights_it_is_the_neuron():
    layer, inputs = recurrent(), sequence(FLAT)
    silent = jax.tree.map(jnp.zeros_like, layer)
    np.testing.assert_array_equal(call(silent, inputs)[0], call(nn.LIF(), inputs)[0])


@pytest.mark.parametrize("neuron", [nn.LIF, nn.ALIF])
def test_no_scan_changes_outputs_or_gradients(neuron):
    inputs = dyadic(sequence(FLAT, timesteps=7))
    stored = run(recurrent(neuron=neuron, learn=("decay",)), inputs)
    result = run(recurrent(memory.recompute(3), neuron=neuron, learn=("decay",)), inputs)
    np.testing.assert_array_equal(result.outputs, stored.outputs)
    assert_close(leaves(result.gradients), leaves(stored.gradients), 1e-5)
    assert all(np.abs(g).max() > 0 for g in leaves(stored.gradients))


def test_feedback_is_carried_from_call_to_call():
    layer, inputs = recurrent(), dyadic(sequence(FLAT))
    whole, _ = call(layer, inputs)
    first, aux = call(layer, inputs[:1])
    rest, _ = layer(inputs[1:], nn.State().after(aux), nn.Call(training=False))
    np.testing.assert_array_equal(jnp.concatenate([first, rest]), whole)


def test_the_state_is_a_tree_of_membranes_and_outputs():
    state = recurrent().initial_state(FLAT)
    assert [leaf.shape for leaf in jax.tree.leaves(state)] == [FLAT, FLAT]
    assert state.statistics == ()
    weights = nn.Recurrent(nn.LIF(), N, rngs=nnx.Rngs(1), gain=0.5).weights[...]
    assert_close(weights @ weights.T, 0.25 * jnp.eye(N), 1e-5)


def test_the_membrane_of_the_inner_neuron_is_seen():
    layer, inputs = recurrent(), dyadic(sequence(FLAT))
    outputs, aux = nn.Sequential(layer)(
        inputs,
        nn.Sequential(layer).initial_state(FLAT),
        nn.Call(training=False, taps=("membrane", "spikes")),
    )
    seen = aux.taps["recurrent_lif0"]
    np.testing.assert_array_equal(seen["spikes"], outputs)
    np.testing.assert_array_equal(seen["membrane"][-1], aux.state[0].neuron.v)
    assert seen["membrane"].shape == (4, B, N)
