"""Weights and membrane on one scale: the equations, their gradient, and integers that agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory
from snnjax.quantization.shared_scale_lif import (
    SharedScaleParams,
    SharedScaleState,
    initial_beta,
    integer_form,
    integer_lif,
    levels,
    shared_codes,
    shared_scale_lif,
)
from snnjax.typing import bind

T, B, INPUTS, OUTPUTS = 12, 4, 40, 16
WEIGHTS = jax.random.normal(jax.random.key(0), (INPUTS, OUTPUTS)) * 0.3
SPIKES = (jax.random.uniform(jax.random.key(1), (T, B, INPUTS)) < 0.4).astype(jnp.float32)


def params_of(bits, decay=0.5, threshold=0.5, share=1.0):
    return SharedScaleParams(share * initial_beta(WEIGHTS, bits=bits), decay, threshold)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_codes_against_the_formula(bits):
    n = 2 ** (bits - 1) - 1
    assert levels(bits) == n
    values, beta = np.linspace(-3, 3, 4001), 0.7
    expected = np.round(n * np.clip(np.tanh(values) / beta, -1, 1))
    codes = np.asarray(shared_codes(jnp.asarray(values, jnp.float32), jnp.asarray(beta), bits=bits))
    # In float32 a tie may fall to the other side.
    assert (codes != expected).mean() < 0.01 and np.abs(codes - expected).max() <= 1
    assert set(np.unique(codes)) == set(range(-n, n + 1))


def test_where_beta_starts():
    weights = jnp.array([1.0, -3.0, 2.0])
    assert initial_beta(weights, bits=2) == 4.0
    np.testing.assert_allclose(initial_beta(weights, bits=4), 4 / np.sqrt(7), rtol=1e-6)


def test_gradients_are_those_of_a_learned_step():
    """Of the value `beta / n k(w)`: 1 - tanh^2 in range and 0 outside; to beta the rounding error
    in range, and 1 where the value is beta."""
    bits, beta = 4, jnp.asarray(0.5)

    def value(w, beta):
        return beta / levels(bits) * shared_codes(w, beta, bits=bits)

    weights = jnp.array([0.1, -0.31, 2.0, -2.0])
    slopes = jax.vmap(jax.grad(value), (0, None))(weights, beta)
    squashed = np.tanh(np.asarray(weights, np.float64))
    np.testing.assert_allclose(slopes[:2], 1 - squashed[:2] ** 2, rtol=1e-5)
    np.testing.assert_array_equal(slopes[2:], 0)
    to_beta = jax.vmap(jax.grad(value, 1), (0, None))(weights, beta)
    z = 7 * squashed / 0.5
    expected = np.where(np.abs(z) < 7, (np.round(z) - z) / 7, np.sign(z))
    np.testing.assert_allclose(to_beta, expected, rtol=1e-4, atol=1e-6)


def test_a_neuron_against_a_plain_loop():
    """Two bits, so that a membrane is -1, 0 or 1 and its steps can be followed by hand."""
    params = SharedScaleParams(jnp.asarray(0.25), 0.5, 0.5)  # n = 1, theta = 2 steps
    state, seen = SharedScaleState(jnp.zeros(())), []
    for current in (1.0, 1.0, 2.0, 3.0, -4.0, 0.0):
        state, spike = shared_scale_lif(params, state, jnp.asarray(current), bits=2)
        seen.append((float(spike), float(state.v)))
    # h = 1, 1.5, 2.5 (fires, 0.5 left: tanh(0.125) / 0.25 rounds to 0), 3, -3.5, -0.5
    assert seen == [(0, 1), (0, 1), (1, 0), (1, 1), (0, -1), (0, 0)]


def integers(params, bits, codes, spikes):
    """The whole sequence in int32."""
    whole = codes.astype(jnp.int32)
    largest = int(jnp.abs(whole).sum(0).max())
    form = integer_form(params, bits=bits, largest=largest)
    assert {leaf.dtype for leaf in jax.tree.leaves(form)} == {jnp.dtype("int32")}
    currents = jnp.einsum("tbi,io->tbo", spikes.astype(jnp.int32), whole)
    start = jnp.zeros(currents.shape[1:], jnp.int32)
    return jax.lax.scan(lambda v, x: integer_lif(form, v, x), start, currents)


@pytest.mark.parametrize(
    ("bits", "decay", "threshold", "share"),
    [(2, 0.5, 0.5, 1), (4, 0.5, 0.5, 1), (4, 1.0, 0.3, 3), (8, 0.25, 0.2, 4), (3, 0.125, 0.1, 5)],
)
def test_integers_give_the_same_spikes(bits, decay, threshold, share):
    params = params_of(bits, decay, threshold, share)
    codes = shared_codes(WEIGHTS, params.beta, bits=bits)
    state = SharedScaleState(jnp.zeros((B, OUTPUTS)))
    step = bind(shared_scale_lif, bits=bits)
    last, expected = memory.store(step, params, state, SPIKES @ codes)
    after, spikes = integers(params, bits, codes, SPIKES)
    assert 0.02 < expected.mean() < 0.98, "nothing to compare"
    assert len(np.unique(np.asarray(last.v))) > 2 or bits == 2
    np.testing.assert_array_equal(spikes, expected)
    np.testing.assert_array_equal(after, last.v)


def test_the_rounded_up_threshold_alone_would_not_do_with_a_leak():
    """Half a step above theta fires; counted in whole steps, ceil(theta) says it does not."""
    params = SharedScaleParams(jnp.asarray(1.0), 0.5, 1.3)  # bits = 2: n = 1, theta = 1.3
    state, current = SharedScaleState(jnp.asarray(1.0)), jnp.asarray(1.0)
    _, spike = shared_scale_lif(params, state, current, bits=2)
    assert spike == 1 and np.ceil(1.3) > 1.5
    form = integer_form(params, bits=2, largest=3)
    assert form.threshold == 3 and form.shift == 1
    _, whole = integer_lif(form, jnp.asarray(1), jnp.asarray(1))
    assert whole == 1


def test_decays_without_an_integer_form_are_refused():
    with pytest.raises(ValueError, match="no shift of an integer"):
        integer_form(params_of(4, decay=0.9), bits=4, largest=10)
    with pytest.raises(ValueError, match="fewer bits"):
        integer_form(params_of(4), bits=4, largest=2**23)
    with pytest.raises(ValueError, match="2 to 8 bits"):
        levels(1)
