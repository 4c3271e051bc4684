"""Parallel spiking neurons against loops, each other and their window; who looks at what."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, neurons, surrogate
from snnjax.neurons.lif import lif_state
from snnjax.neurons.psn import (
    PSNParams,
    SlidingPSNParams,
    sliding_psn,
    sliding_psn_scan,
    sliding_psn_state,
    sliding_weights,
)
from tests.compare import assert_close, assert_equal

T, B, N = 7, 2, 3
SPIKE = surrogate.arctan()


def draw(shape, *, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(0.2, 0.8, shape), dtype)


def window(dtype=jnp.float32):
    """Parameters and currents of a PSN."""
    return PSNParams(draw((T, T), seed=1, dtype=dtype), draw(T, seed=2, dtype=dtype)), draw(
        (T, B, N), dtype=dtype
    )


def sliding(order, dtype=jnp.float32):
    """Parameters, a state off rest and currents of a sliding PSN."""
    weights = sliding_weights(order).astype(dtype) + draw(order, seed=3, dtype=dtype) / 4
    state = sliding_psn_state((B, N), order=order, dtype=dtype)
    state = state._replace(inputs=draw(state.inputs.shape, seed=4, dtype=dtype))
    threshold = jnp.asarray([0.3, 0.5, 0.7], dtype)
    return SlidingPSNParams(weights, threshold), state, draw((T, B, N), dtype=dtype)


def loop(weights, threshold, xs):
    """Membranes and spikes by sums over scalars."""
    h = np.zeros(xs.shape)
    for t, b, n in np.ndindex(*xs.shape):
        for s in range(len(xs)):
            h[t, b, n] += float(weights[t, s]) * float(xs[s, b, n])
    return h, (h >= np.asarray(threshold).reshape(-1, 1, 1)).astype(float)


def banded(weights, timesteps):
    """The sliding weights as a matrix, column 0 being the first current of the state."""
    matrix = np.zeros((timesteps, timesteps + len(weights) - 1))
    for t in range(timesteps):
        matrix[t, t : t + len(weights)] = weights
    return matrix


def test_a_psn_in_loops(x64):
    params, xs = window(jnp.float64)
    h, spikes = loop(*params, xs)
    assert_close(neurons.psn.psn_membranes(params, xs), h, 1e-13)
    np.testing.assert_array_equal(neurons.psn.psn(params, xs), spikes)
    assert 0 < spikes.sum() < spikes.size


def test_its_derivatives_in_matrices(x64):
    """`G_H = G_S s'(H - B)`, `G_X = W^T G_H`, `G_W = G_H X^T`, `G_B = -sum G_H`."""
    params, xs = window(jnp.float64)
    g = draw(xs.shape, seed=5, dtype=jnp.float64)
    _, pull = jax.vjp(neurons.psn.psn, params, xs)
    found, g_xs = pull(g)
    h, _ = loop(*params, xs)
    g_h = np.asarray(g * SPIKE.derivative(h - params.threshold.reshape(-1, 1, 1))).reshape(T, -1)
    assert_close(g_xs.reshape(T, -1), np.asarray(params.weights).T @ g_h, 1e-12)
    assert_close(found.weights, g_h @ np.asarray(xs).reshape(T, -1).T, 1e-12)
    assert_close(found.threshold, -g_h.sum(1), 1e-12)


def test_masks():
    weights = draw((T, T))
    masked = functools.partial(neurons.psn.masked_weights, weights)
    np.testing.assert_array_equal(masked(order=T), jnp.tril(weights))
    np.testing.assert_array_equal(masked(order=1), jnp.diag(jnp.diag(weights)))
    np.testing.assert_array_equal(masked(order=3), jnp.tril(weights) - jnp.tril(weights, -3))
    np.testing.assert_array_equal(masked(order=3, masking=0.0), weights)
    half = masked(order=3, masking=0.5)
    np.testing.assert_array_equal(half, (masked(order=3) + weights) / 2)


def test_a_masked_psn_of_order_t_is_the_lower_triangle_and_learns_nothing_above():
    params, xs = window()
    tril = params._replace(weights=jnp.tril(params.weights))
    masked = params._replace(weights=neurons.psn.masked_weights(params.weights, order=T))
    assert_equal(neurons.psn.psn(masked, xs), neurons.psn.psn(tril, xs))

    def loss(weights):
        masked = neurons.psn.masked_weights(weights, order=3)
        return jnp.sum(
            neurons.psn.psn(params._replace(weights=masked), xs) * draw(xs.shape, seed=5)
        )

    gradient = np.asarray(jax.grad(loss)(params.weights))
    band = np.tril(np.ones((T, T))) - np.tril(np.ones((T, T)), -3)
    assert np.all(gradient[band == 0] == 0) and np.all(gradient[band == 1] != 0)


@pytest.mark.parametrize("order", [1, 2, 4, T + 2])
def test_a_sliding_psn_is_a_banded_matrix(x64, order):
    params, state, xs = sliding(order, jnp.float64)
    after, spikes = sliding_psn_scan(params, state, xs)
    currents = np.concatenate([state.inputs, xs])
    h = np.einsum("ts,sbn->tbn", banded(np.asarray(params.weights), T), currents)
    np.testing.assert_array_equal(spikes, h >= np.asarray(params.threshold))
    assert 0 < spikes.sum() < spikes.size
    assert_close(after.v, h[-1], 1e-13)
    np.testing.assert_array_equal(after.inputs, currents[T:])


def test_a_sliding_psn_in_loops_from_rest(x64):
    """`H[t] = sum_i w[i] X[t-k+1+i]` with zeros before t = 0, and the masked PSN it is."""
    order = 3
    params, _, xs = sliding(order, jnp.float64)
    state = sliding_psn_state((B, N), order=order, dtype=xs.dtype)
    _, spikes = sliding_psn_scan(params, state, xs)
    matrix = banded(np.asarray(params.weights), T)[:, order - 1 :]
    h = np.zeros(xs.shape)
    for t, b, n in np.ndindex(*xs.shape):
        for i in range(order):
            s = t - order + 1 + i
            h[t, b, n] += float(params.weights[i]) * float(xs[s, b, n]) if s >= 0 else 0.0
    np.testing.assert_array_equal(spikes, h >= np.asarray(params.threshold))
    masked = neurons.psn.masked_weights(jnp.asarray(matrix), order=order)
    np.testing.assert_array_equal(masked, matrix)
    assert_close(neurons.psn.psn_membranes(PSNParams(masked, jnp.zeros(T)), xs), h, 1e-13)


def test_it_starts_as_a_lif_neuron_that_forgets(x64):
    """With as many weights as timesteps nothing is forgotten."""
    xs = draw((T, B, N), dtype=jnp.float64)
    params = SlidingPSNParams(sliding_weights(T), jnp.asarray(1.0))
    _, spikes = sliding_psn_scan(params, sliding_psn_state((B, N), order=T, dtype=xs.dtype), xs)
    lif = neurons.LIFParams(jnp.asarray(0.5), jnp.asarray(1.0))
    rest = lif_state((B, N), dtype=xs.dtype)
    _, expected = neurons.lif_scan(lif, rest, xs, reset=neurons.reset.none)
    np.testing.assert_array_equal(spikes, expected)
    assert spikes.sum() > 0


# Each scan is a compilation of its own.
FEW = (memory.store, memory.recompute(3))
ALL = (*FEW, memory.recompute(1), memory.recompute("sqrt"))


def graded(scan, params, state, xs):
    """Outputs and gradients of a weighted sum, jitted."""

    def loss(params, state, xs):
        after, spikes = scan(params, state, xs)
        weights = jnp.cos(jnp.arange(spikes.size, dtype=xs.dtype)).reshape(spikes.shape)
        last = jnp.sum(after.v**2) + jnp.sum(after.inputs**2)
        return jnp.sum(spikes * weights) + last, (after, spikes)

    (_, out), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(
        params, state, xs
    )
    return out, gradients


@pytest.mark.parametrize(
    ("order", "dtype", "bound", "scans"),
    [
        pytest.param(4, "float64", 1e-12, FEW, id="4-float64"),
        pytest.param(1, "float32", 1e-6, FEW[:1], id="1-float32"),
        pytest.param(4, "float64", 1e-12, ALL, id="4-float64-every scan", marks=pytest.mark.slow),
        pytest.param(4, "float32", 1e-6, ALL, id="4-float32-every scan", marks=pytest.mark.slow),
    ],
)
def test_its_steps_under_every_scan_are_its_window(x64, order, dtype, bound, scans):
    """Law 1: outputs equal to the bit, gradients to rounding."""
    case = sliding(order, jnp.dtype(dtype))
    outputs, gradients = graded(sliding_psn_scan, *case)
    for scan in scans:
        stepped = functools.partial(scan, sliding_psn)
        found, found_gradients = graded(stepped, *case)
        assert_equal(found, outputs)
        assert_close(found_gradients, gradients, bound)


def test_forward_mode_is_for_its_steps():
    params, state, xs = sliding(3)
    along = lambda run: jax.jvp(lambda xs: run(params, state, xs)[0].v, (xs,), (xs,))  # noqa: E731
    _, found = along(functools.partial(memory.store, sliding_psn))
    assert float(jnp.abs(found).max()) > 0
    with pytest.raises(TypeError, match="forward-mode"):
        along(sliding_psn_scan)


def test_a_stream_in_pieces_is_the_window():
    params, state, xs = sliding(4)
    run = jax.jit(sliding_psn_scan)
    whole = run(params, state, xs)
    for cut in (0, 1, 5):
        middle, first = run(params, state, xs[:cut])
        after, second = run(params, middle, xs[cut:])
        assert_equal((after, jnp.concatenate([first, second])), whole)


def influence(run, xs):
    """`|d output[t] / d input[s]|`, the largest over neurons, `[T, T]`."""
    jacobian = jax.jacrev(lambda xs: jnp.sum(run(xs), (1, 2)))(xs)
    return np.asarray(jnp.max(jnp.abs(jacobian), (2, 3)))


def test_who_looks_where():
    """Law 7: exactly zero beyond the band; the plain PSN looks everywhere."""
    params, xs = window()
    assert np.all(influence(functools.partial(neurons.psn.psn, params), xs) > 0)
    band = np.tril(np.ones((T, T))) - np.tril(np.ones((T, T)), -3)
    weights = neurons.psn.masked_weights(params.weights, order=3)
    masked = influence(functools.partial(neurons.psn.psn, params._replace(weights=weights)), xs)
    np.testing.assert_array_equal(masked > 0, band > 0)
    params, state, xs = sliding(3)
    slid = influence(lambda xs: sliding_psn_scan(params, state, xs)[1], xs)
    np.testing.assert_array_equal(slid > 0, band > 0)


def test_misfits_are_refused():
    params, xs = window()
    with pytest.raises(ValueError, match="do not fit a window of 6 timesteps.*sliding_psn_scan"):
        neurons.psn.psn(params, xs[:6])
    params, _, xs = sliding(3)
    state = sliding_psn_state((B, N), order=4)
    with pytest.raises(ValueError, match=r"of order 3 has the last 2.*sliding_psn_state"):
        sliding_psn_scan(params, state, xs)
