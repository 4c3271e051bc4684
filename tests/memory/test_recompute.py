"""Recomputing in levels, by the root of the length, and but for what is kept by name."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.ad_checkpoint import checkpoint_name

from snnjax import memory, neurons
from snnjax.neurons.lif import lif_inverse, lif_state
from tests.compare import assert_close, assert_equal

B, N = 2, 3
LEVELS = {
    "sqrt": memory.recompute(every="sqrt"),
    "two levels": memory.recompute(every=6, inner=memory.recompute(every=2)),
    "three levels": memory.recompute(
        every=9, inner=memory.recompute(every=4, inner=memory.recompute(every=1))
    ),
    "reversed inside": memory.recompute(every=5, inner=memory.reverse(lif_inverse(decay=0.8))),
}


@functools.partial(jax.jit, static_argnums=0)
def gradient(scan, params, state, xs):
    def loss(params, state, xs):
        state, ys = scan(neurons.lif, params, state, xs)
        return jnp.sum(ys * jnp.cos(xs)) + jnp.sum(jnp.sin(state.v)), (state, ys)

    return jax.grad(loss, (0, 1, 2), has_aux=True)(params, state, xs)


@pytest.mark.parametrize("timesteps", [1, 13, 18])
@pytest.mark.parametrize("name", LEVELS)
def test_levels_change_nothing(x64, name, timesteps):
    xs = jax.random.normal(jax.random.key(0), (timesteps, B, N), jnp.float64) + 0.4
    params = neurons.LIFParams(jnp.asarray(0.8), jnp.asarray(1.0))
    state = lif_state((B, N), dtype=jnp.float64)
    got, seen = gradient(LEVELS[name], params, state, xs)
    want, expected = gradient(memory.store, params, state, xs)
    assert_equal(seen, expected)
    assert_close(got, want, 1e-12)


def step(params, state, x):
    currents = checkpoint_name(jnp.sin(x @ params), "currents")
    state = jnp.tanh(0.5 * state + currents)
    return state, jnp.sum(state)


def test_named_residuals_are_kept():
    xs, params = jnp.ones((12, B, N)), jnp.ones((N, N)) / 3

    def loss(scan, params):
        return jnp.sum(scan(step, params, jnp.zeros((B, N)), xs)[1])

    def shapes(scan):
        actual = memory.accounting.residuals(functools.partial(loss, scan), params, largest=100)
        return [r.shape for r in actual]

    kept = memory.recompute(every=4, keep=("currents",))
    assert (3, 4, B, N) in shapes(kept)
    assert (3, 4, B, N) not in shapes(memory.recompute(every=4))
    gradients = [jax.grad(functools.partial(loss, s))(params) for s in (kept, memory.store)]
    assert_close(*gradients, 1e-6)


def test_equal_arguments_give_equal_scans():
    make = lambda: memory.recompute(every=8, inner=memory.recompute(every=2), keep=("spikes",))  # noqa: E731
    assert make() == make() and hash(make()) == hash(make())


@pytest.mark.parametrize("every", ["root", 2.0, None])
def test_every_is_a_number_or_sqrt(every):
    with pytest.raises(ValueError, match='every="sqrt"'):
        memory.recompute(every=every)
