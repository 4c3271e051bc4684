"""`coupled_lif_scan` against `memory.store(coupled_lif)`: equal bits and gradients, fewer bytes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, neurons, surrogate
from snnjax.neurons import coupled_lif, lif, lif_scan
from snnjax.neurons._coupled_scan import coupled_lif_scan
from snnjax.neurons.coupled import CoupledLIFParams, CoupledLIFState, coupled_lif_state
from snnjax.neurons.lif import lif_state
from snnjax.typing import bind
from tests.compare import assert_close, assert_equal, largest_error

T, B, C = 8, 3, 6
COUPLINGS = [(alpha, beta) for alpha in (0.5, 1.0) for beta in (0.5, 1.0)]
SHAPES = {"scalar": (), "[C/2]": (C // 2,), "[1, C/2]": (1, C // 2)}
# Every coupling, every refresh and every shape of parameters, but not all by all.
ROWS = [(alpha, beta, refresh, "scalar") for alpha, beta in COUPLINGS for refresh in (3, None)]
ROWS += [(0.5, 0.5, refresh, "scalar") for refresh in (1, 4, 100)]
ROWS += [(0.5, 1.0, 4, shape) for shape in ("[C/2]", "[1, C/2]")]


def arguments(alpha, beta, *, dtype=jnp.float32, shape=(), size=(T, B, C)):
    rng = np.random.default_rng(3)
    params = CoupledLIFParams(*(jnp.full(shape, p, dtype) for p in (0.5, 0.7, alpha, beta)))
    half = (*size[1:-1], size[-1] // 2)
    state = CoupledLIFState(*jnp.asarray(rng.normal(0, 0.5, (2, *half)), dtype))
    return params, state, jnp.asarray(rng.normal(0.3, 1.0, size), dtype)


@functools.partial(jax.jit, static_argnums=0)
def gradient(run, params, state, xs):
    weights = jnp.cos(jnp.arange(xs.size, dtype=xs.dtype)).reshape(xs.shape)

    def loss(params, state, xs):
        after, ys = run(params, state, xs)
        last = sum(jnp.sum(jnp.sin(v)) for v in after)
        return jnp.sum(ys * weights) + last, (after, ys)

    return jax.grad(loss, (0, 1, 2), has_aux=True)(params, state, xs)


stored = functools.partial(memory.store, coupled_lif)


@pytest.mark.parametrize(("alpha", "beta", "refresh", "shape"), ROWS)
def test_outputs_bit_for_bit_and_gradients_in_float64(x64, alpha, beta, refresh, shape):
    made = arguments(alpha, beta, dtype=jnp.float64, shape=SHAPES[shape])
    got, seen = gradient(bind(coupled_lif_scan, refresh=refresh), *made)
    want, expected = gradient(stored, *made)
    assert_equal(seen, expected)
    assert_close(got, want, 1e-12)
    # A gradient that vanishes would pass unseen.
    assert all(jnp.max(jnp.abs(leaf)) > 1e-3 for leaf in jax.tree.leaves(want))


def test_another_spike_function_is_differentiated_as_such(x64):
    made = arguments(0.5, 0.5, dtype=jnp.float64)
    spike = surrogate.strict(surrogate.triangle())
    got, _ = gradient(bind(coupled_lif_scan, spike=spike), *made)
    want, _ = gradient(functools.partial(memory.store, bind(coupled_lif, spike=spike)), *made)
    assert_close(got, want, 1e-12)
    assert largest_error(got, gradient(stored, *made)[0]) > 1e-2


@pytest.mark.parametrize("refresh", [4, None])
@pytest.mark.parametrize(("alpha", "growth"), [(0.5, 4.0), (1.0, 1.62)])
def test_in_float32_no_neuron_is_lost(alpha, growth, refresh):
    """Of some 10^5 neurons some lie within a rounding error of the threshold.

    Their spikes are kept, so that their gradients are off by no more than the error grows to,
    `4 2^-23 growth^k` of the largest after k steps. Spikes rebuilt from the membranes would be
    wrong here and there, and the gradient with them by a good part of the largest.
    """
    made = arguments(alpha, 0.5, size=(T, 512, 512))
    got, seen = gradient(bind(coupled_lif_scan, refresh=refresh), *made)
    want, expected = gradient(stored, *made)
    assert_equal(seen, expected)
    bound = 4 * 2.0**-23 * growth ** (refresh or T)
    assert_close(got[1:], want[1:], bound)


def kept_bytes(run, *params):
    """Bytes per neuron and step of what the derivative keeps; `params` are differentiated too."""
    xs = jax.ShapeDtypeStruct((256, 4, 64), jnp.float32)
    pull = jax.eval_shape(lambda *args: jax.vjp(run, *args)[1], xs, *params)
    leaves = [leaf for leaf in jax.tree.leaves(pull) if leaf.size >= 128]  # half a state
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) / xs.size


@pytest.mark.fast
@pytest.mark.parametrize("refresh", [4, 8, 256])
def test_bytes_kept_are_outputs_bits_and_refreshed_states(refresh):
    # No error grows with these, so that any number of steps can be undone.
    params = CoupledLIFParams(*map(jnp.float32, (0.0, 0.7, 1.0, 0.5)))
    rest = coupled_lif_state((4, 64))
    outputs = 4  # which the next layer keeps anyway

    def sequence(xs, params=params):
        return coupled_lif_scan(params, rest, xs, refresh=refresh)

    assert kept_bytes(sequence) - outputs == 1 / 8 + 4 / refresh
    assert kept_bytes(sequence, params) == kept_bytes(sequence)
    assert kept_bytes(lambda xs: stored(params, rest, xs)) == 8
    assert kept_bytes(lambda xs, params: stored(params, rest, xs), params) == 20


@pytest.mark.fast
def test_bytes_kept_by_a_plain_lif():
    """For comparison: its membranes, and no outputs."""
    params, rest = neurons.LIFParams(0.5, 0.7), lif_state((4, 64))
    first = 4 / 256  # the membrane before the first step
    assert kept_bytes(lambda xs: lif_scan(params, rest, xs)) == 4 + first
    assert kept_bytes(lambda xs: memory.store(lif, params, rest, xs)) == 4


@pytest.mark.fast
def test_no_steps_at_all_leave_the_state():
    params, state, _ = arguments(0.5, 0.5)
    xs = jnp.zeros((0, B, C))
    after, ys = coupled_lif_scan(params, state, xs)
    assert_equal(after, state)
    assert ys.shape == (0, B, C)
    grads = jax.grad(lambda s: jnp.sum(coupled_lif_scan(params, s, xs)[0].v1))(state)
    assert_equal(grads, CoupledLIFState(jnp.ones((B, C // 2)), jnp.zeros((B, C // 2))))


@pytest.mark.fast
def test_parameters_may_be_plain_numbers():
    params, state, xs = arguments(0.5, 0.5)
    numbers = CoupledLIFParams(0.5, 0.7, 0.5, 0.5)
    assert_equal(coupled_lif_scan(numbers, state, xs), coupled_lif_scan(params, state, xs))


@pytest.mark.fast
@pytest.mark.parametrize("refresh", [0, -1, True])
def test_a_refresh_is_a_number_of_steps(refresh):
    with pytest.raises(ValueError, match="positive"):
        coupled_lif_scan(*arguments(0.5, 0.5), refresh=refresh)


def test_too_many_steps_are_refused_where_decay_and_alpha_are_known(x64):
    _, state, xs = arguments(0.5, 0.5, size=(12, B, C))
    numbers = CoupledLIFParams(0.5, 0.7, 0.5, 0.5)
    for refresh in (9, None):
        with pytest.raises(ValueError, match="refresh=8"):
            coupled_lif_scan(numbers, state, xs, refresh=refresh)
    coupled_lif_scan(numbers, state, xs, refresh=8)
    coupled_lif_scan(numbers, state, xs[:8], refresh=9)
    double = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (state, xs))
    coupled_lif_scan(numbers, *double, refresh=9)


@pytest.mark.fast
def test_channels_and_membranes_that_do_not_fit_are_refused():
    params, state, xs = arguments(0.5, 0.5)
    with pytest.raises(ValueError, match="even number"):
        coupled_lif_scan(params, state, xs[..., 1:])
    with pytest.raises(AssertionError, match="in halves"):
        coupled_lif_scan(params, state, xs[..., 2:])


@pytest.mark.fast
def test_forward_mode_is_refused():
    params, state, xs = arguments(0.5, 0.5)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda xs: coupled_lif_scan(params, state, xs)[1], (xs,), (xs,))
