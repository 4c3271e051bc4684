"""The PLIF: a LIF whose decay is `1 - sigmoid(w)`, learned."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, neurons
from snnjax.neurons import LIFParams
from snnjax.neurons.lif import LIFState, lif_state
from snnjax.neurons.plif import PLIFParams, plif_weight
from snnjax.typing import bind
from tests.compare import assert_close, assert_equal
from tests.oracle import neurons as oracle

pytestmark = pytest.mark.fast
T, B, N = 7, 2, 3


def inputs():
    return jnp.asarray(np.random.default_rng(0).normal(0.8, 1.2, (T, B, N)))


@pytest.mark.parametrize("scale_input", [False, True])
def test_equals_the_loops(x64, scale_input):
    w, xs = jnp.asarray([-1.0, 0.0, 2.0]), inputs()
    rest = lif_state((B, N), dtype=jnp.float64)
    step = bind(neurons.plif, scale_input=scale_input)
    state, spikes = memory.store(step, PLIFParams(w, jnp.float64(0.6)), rest, xs)
    decay = 1 - 1 / (1 + np.exp(-np.asarray(w)))
    expected, after, _ = oracle.lif(np.asarray(xs), decay, 0.6, scale_input=scale_input)
    np.testing.assert_array_equal(spikes, expected)
    assert_close(state.v, after[-1], 1e-12)


def test_the_input_is_scaled_unless_told_otherwise(x64):
    params, rest = PLIFParams(0.3, 0.6), lif_state((B, N), dtype=jnp.float64)
    given = bind(neurons.plif, scale_input=True)
    results = [memory.store(step, params, rest, inputs()) for step in (neurons.plif, given)]
    assert_equal(*results)


@pytest.mark.parametrize("decay", [0.01, 0.5, 0.9, 0.999])
def test_the_weight_starts_the_neuron_at_the_decay(decay):
    assert 1 - 1 / (1 + math.exp(-plif_weight(decay))) == pytest.approx(decay, rel=1e-12)


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_a_learned_decay_starts_inside_the_open_interval(decay):
    with pytest.raises(ValueError, match="inside"):
        plif_weight(decay)


def test_the_whole_sequence_function_equals_the_scanned_step(x64):
    @functools.partial(jax.jit, static_argnums=0)
    def run(scan, params, state, xs):
        def loss(params, state, xs):
            after, spikes = scan(params, state, xs)
            return jnp.sum(jnp.sin(after.v)) + jnp.sum(spikes * jnp.cos(xs)), (after, spikes)

        return jax.grad(loss, (0, 1, 2), has_aux=True)(params, state, xs)

    arguments = PLIFParams(jnp.asarray([-0.5, 0.1, 0.9]), 0.6), LIFState(jnp.full((B, N), 0.2))
    gradients, outputs = run(neurons.plif_model().sequence, *arguments, inputs())
    stored = functools.partial(memory.store, neurons.plif)
    expected, expected_outputs = run(stored, *arguments, inputs())
    assert_equal(outputs, expected_outputs)
    assert_close(gradients, expected, 1e-12)
    assert jnp.all(jnp.abs(expected[0].w) > 1e-3)


def test_the_gradient_of_the_weight_is_that_of_the_decay_by_the_chain_rule(x64):
    xs, w = inputs(), jnp.float64(0.4)

    def total(run, params):
        state, spikes = run(params, lif_state((B, N), dtype=jnp.float64), xs)
        return jnp.sum(state.v) + jnp.sum(spikes * xs)

    sig = 1 / (1 + jnp.exp(-w))
    by_w = jax.jit(jax.grad(lambda w: total(neurons.plif_model().sequence, PLIFParams(w, 0.6))))(w)
    scaled = bind(neurons.lif_scan, scale_input=True)
    by_decay = jax.jit(jax.grad(lambda decay: total(scaled, LIFParams(decay, 0.6))))(1 - sig)
    assert_close(by_w, -by_decay * sig * (1 - sig), 1e-12)
