"""A replayed function: its values, its gradients, and nothing kept but its arguments."""

import functools

import jax
import jax.numpy as jnp
import pytest

from snnjax import memory, surrogate
from tests.compare import assert_close, assert_equal

spike = surrogate.arctan()
KEY = jax.random.key(3)


def link(held, x):
    """Weights, an integer, a key; by-products of two dtypes."""
    weights, power, key = held
    mask = jax.random.bernoulli(key, 0.7, x.shape)
    hidden = jnp.sin(x * mask.astype(x.dtype) @ weights) * power.astype(x.dtype)
    return spike(hidden - 0.1), {"mean": hidden.mean(), "count": mask.sum()}


def arguments(width=4, dtype=jnp.float64):
    keys = jax.random.split(jax.random.key(0))
    x = (jax.random.uniform(keys[1], (6, 4)) < 0.5).astype(dtype)
    return jax.random.normal(keys[0], (4, width), dtype), jnp.int32(2), x


def loss(function, weights, power, x):
    y, aux = function((weights, power, KEY), x)
    return jnp.sum(jnp.cos(y) * jnp.arange(y.size, dtype=y.dtype).reshape(y.shape)) + aux["mean"], (
        y,
        aux,
    )


@pytest.mark.fast
@pytest.mark.parametrize("spikes", [False, True])
@pytest.mark.parametrize("width", [4, 3], ids=["same shape", "other shape"])
@pytest.mark.parametrize("wanted", [(0, 2), (0,), (2,)])
def test_values_and_gradients_are_those_of_the_function(x64, spikes, width, wanted):
    replay = memory.replay(link, spikes=spikes)
    actual, want = (
        jax.jit(jax.grad(functools.partial(loss, f), wanted, has_aux=True))(*arguments(width))
        for f in (replay, link)
    )
    assert_equal(actual[1], want[1])
    assert_close(actual[0], want[0], 1e-12)
    assert all(float(jnp.abs(g).max()) > 1e-3 for g in want[0])


@pytest.mark.fast
def test_batches_of_gradients_and_gradients_of_batches(x64):
    weights, power, x = arguments()
    rows = x[:, None]

    @functools.partial(jax.jit, static_argnums=0)
    def both(f):
        one = lambda w, x: loss(f, w, power, x)[0]  # noqa: E731
        each = jax.vmap(jax.grad(one), (None, 0))(weights, rows)
        return each, jax.grad(lambda w: jax.vmap(functools.partial(one, w))(rows).sum())(weights)

    for spikes in (False, True):
        assert_close(both(memory.replay(link, spikes=spikes)), both(link), 1e-12)


@pytest.mark.fast
@pytest.mark.parametrize("spikes", [False, True])
def test_its_arguments_are_all_that_is_kept(spikes):
    weights, power, x = arguments(dtype=jnp.float32)

    def pull(weights, x):
        replay = memory.replay(link, spikes=spikes)
        return jax.vjp(lambda w, x: replay((w, power, KEY), x)[0], weights, x)[1]

    leaves = jax.tree.leaves(jax.eval_shape(pull, weights, x))
    kept = [(leaf.shape, str(leaf.dtype)) for leaf in leaves]
    real = [leaf for leaf in kept if leaf[1] == "float32"]
    assert real == [(weights.shape, "float32")] + [(x.shape, "float32")] * (not spikes)
    assert kept.count(((x.size // 8,), "uint8")) == spikes


@pytest.mark.fast
def test_equal_arguments_give_equal_functions():
    assert memory.replay(link) == memory.replay(link)
    assert memory.replay(link) != memory.replay(link, spikes=True)


def test_replays_do_not_live_at_the_same_time():
    """A chain in plain code, default scheduler: one working set, whatever the number of links."""

    def wide(weights, x):  # [N] to [100 N] and back
        return jnp.mean(jnp.sin(x[:, None] * weights), 1), ()

    def bytes_of(wrap, count):
        def run(weights, x):
            for w in weights:
                x, _ = wrap(wide)(w, x)
            return x.sum()

        weights = [jnp.ones(100)] * count
        run = jax.jit(jax.grad(run)).lower(weights, jnp.ones(1000)).compile()
        return run.memory_analysis().temp_size_in_bytes

    assert bytes_of(memory.replay, 9) < bytes_of(memory.replay, 3) + 6 * 5000
