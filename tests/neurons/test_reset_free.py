"""LIF neurons without a reset, by a prefix sum: equal to the loop, to rounding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, neurons, surrogate
from snnjax.neurons.li import LIParams
from snnjax.neurons.lif import LIFState
from snnjax.typing import bind
from tests.compare import assert_close, assert_equal
from tests.oracle import neurons as oracle

pytestmark = pytest.mark.fast
T, B, N = 33, 2, 3
BOUNDS = {"float64": 1e-12, "float32": 1e-6}


def case(dtype, *, timesteps=T, margin=True):
    """Parameters, a state off rest and currents; with a margin no membrane is near a threshold."""
    rng = np.random.default_rng(0)
    params = neurons.LIFParams(
        jnp.asarray([0.3, 0.6, 0.9], dtype), jnp.asarray([0.4, 0.5, 0.6], dtype)
    )
    state = LIFState(jnp.asarray(rng.uniform(0, 0.3, (B, N)), dtype))
    xs = jnp.asarray(rng.normal(0.2, 0.6, (timesteps, B, N)), dtype)
    if margin:
        h = np.asarray(neurons.reset_free.linear_recurrence(params.decay, state.v, xs))
        assert np.min(np.abs(h - np.asarray(params.threshold))) > 1e-4
    return params, state, xs


def sequential(params, state, xs, *, scan=memory.store, **options):
    return scan(bind(neurons.lif, reset=neurons.reset.none, **options), params, state, xs)


@functools.partial(jax.jit, static_argnames=("run",))
def graded(run, params, state, xs):
    def loss(params, state, xs):
        after, spikes = run(params, state, xs)
        weights = jnp.cos(jnp.arange(spikes.size, dtype=xs.dtype)).reshape(spikes.shape)
        return jnp.sum(spikes * weights) + jnp.sum(after.v**2), (after, spikes)

    gradient = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
    (_, out), gradients = gradient(params, state, xs)
    return out, gradients


@pytest.mark.parametrize("scale_input", [False, True])
@pytest.mark.parametrize("dtype", BOUNDS)
def test_equals_the_sequential_neuron_and_its_derivative(x64, dtype, scale_input):
    made = case(jnp.dtype(dtype))
    options = {"scale_input": scale_input}
    (after, spikes), gradients = graded(
        bind(neurons.reset_free.reset_free_lif_scan, **options), *made
    )
    (expected, fired), expected_gradients = graded(bind(sequential, **options), *made)
    np.testing.assert_array_equal(spikes, fired)
    assert 0 < spikes.sum() < spikes.size
    assert_close(after, expected, BOUNDS[dtype])
    # Sums over 33 timesteps and, of decay and threshold, all neurons.
    assert_close(gradients, expected_gradients, 10 * BOUNDS[dtype])


def test_the_oracle(x64):
    params, state, xs = case(jnp.float64)
    _, spikes = neurons.reset_free.reset_free_lif_scan(params, state, xs)
    fired, membranes, _ = oracle.lif(
        np.asarray(xs), np.asarray(params.decay), np.asarray(params.threshold),
        v0=np.asarray(state.v), rule="none",
    )  # fmt: skip
    np.testing.assert_array_equal(spikes, fired)
    assert_close(neurons.reset_free.linear_recurrence(params.decay, state.v, xs), membranes, 1e-13)


@pytest.mark.parametrize("dtype", BOUNDS)
def test_membranes_are_those_of_a_threshold_never_reached_and_of_a_leaky_integrator(x64, dtype):
    params, state, xs = case(jnp.dtype(dtype))
    h = neurons.reset_free.linear_recurrence(params.decay, state.v, xs)
    far = params._replace(threshold=jnp.full(N, 1e6, xs.dtype))
    last, spikes = neurons.lif_scan(far, state, xs)
    assert spikes.sum() == 0
    assert_close(h[-1], last.v, BOUNDS[dtype])
    _, integrated = memory.store(neurons.li, LIParams(params.decay), state, xs)
    assert_close(h, integrated, BOUNDS[dtype])


@pytest.mark.parametrize("timesteps", [1, 2, 3, 8, 100])
@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_any_length_and_decay(x64, timesteps, decay):
    _, state, xs = case(jnp.float64, timesteps=timesteps, margin=False)
    h = neurons.reset_free.linear_recurrence(jnp.asarray(decay), state.v, xs)
    _, expected = memory.store(neurons.li, LIParams(jnp.asarray(decay)), state, xs)
    assert_close(h, expected, 1e-12)


def test_pieces_of_a_stream_and_none(x64):
    params, state, xs = case(jnp.float64)
    run = jax.jit(neurons.reset_free.reset_free_lif_scan)
    after, spikes = run(params, state, xs)
    for cut in (0, 1, 20):
        middle, first = run(params, state, xs[:cut])
        end, second = run(params, middle, xs[cut:])
        np.testing.assert_array_equal(jnp.concatenate([first, second]), spikes)
        assert_close(end, after, 1e-13)
    assert_equal(neurons.reset_free.reset_free_lif_scan(params, state, xs[:0]), (state, xs[:0]))


def test_it_looks_only_back():
    params, state, xs = case(jnp.float32, timesteps=7)
    run = lambda xs: jnp.sum(neurons.reset_free.reset_free_lif_scan(params, state, xs)[1], (1, 2))  # noqa: E731
    influence = np.asarray(jnp.max(jnp.abs(jax.jit(jax.jacrev(run))(xs)), (2, 3)))
    assert np.all(np.triu(influence, 1) == 0)
    assert np.all(influence[np.tril_indices(7)] > 0)


@pytest.mark.slow
def test_other_transformations():
    """Mapped over sequences; another surrogate; forward mode is refused."""
    params, state, xs = case(jnp.float32)
    spike = surrogate.sigmoid()
    run = lambda xs: neurons.reset_free.reset_free_lif_scan(params, state, xs, spike=spike)[1]  # noqa: E731
    grad = jax.grad(lambda xs: jnp.sum(run(xs) ** 2))
    both = jnp.stack([xs, xs[::-1]])
    assert_close(jax.vmap(grad)(both), jnp.stack([grad(xs) for xs in both]), 1e-6)
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(run, (xs,), (xs,))


def test_the_derivative_keeps_only_membranes():
    """And parameters and the first membrane; a derivative by autodiff keeps several times more."""
    made = case(jnp.float32)

    def kept(run):
        residuals = jax.eval_shape(lambda *args: jax.vjp(run, *args)[1], *made)
        return sum(leaf.size for leaf in jax.tree.leaves(residuals))

    membranes = T * B * N
    assert kept(neurons.reset_free.reset_free_lif_scan) <= membranes + B * N + 2 * N
    assert (
        kept(lambda p, s, xs: neurons.reset_free.linear_recurrence(p.decay, s.v, xs))
        > 2 * membranes
    )
