"""The reversible column, on levels that are a line of arithmetic and a spike each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, surrogate
from snnjax.memory.columns import (
    Column,
    ColumnParams,
    MultiLevel,
    clip_magnitude,
    column_bound,
    round_to_power_of_two,
)
from snnjax.typing import bind
from tests.compare import assert_close, assert_equal

LEVELS, B, C = 3, 4, 6
spike = surrogate.straight_through()


def level(shared, own, lower, upper):
    """Smooth in parts and spiking in others; its by-product is a number that leaves once."""
    y = jnp.sin(own["w"] * lower) + shared["s"] * spike(lower - 0.5)
    if upper is not None:
        y = y + own["u"] * spike(upper - 0.5) + 0.1 * jnp.cos(shared["s"] * upper)
    return y, own["n"] + jax.lax.stop_gradient(y.mean(0))


def top(state):
    return state.mean(0)


def multilevel(bits=None, places=1):
    scale = (
        bind(clip_magnitude, floor=1e-3)
        if bits is None
        else bind(round_to_power_of_two, places=places)
    )
    return MultiLevel(level, top, scale, bits)


def problem(columns, dtype=jnp.float32, alpha=0.5, own_inputs=False, bits=None):
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(rng.normal(0, 0.7, shape), dtype)

    shared = tuple({"s": draw(C)} for _ in range(LEVELS))
    own = tuple({n: draw(columns, C) for n in "wun"} for _ in range(LEVELS))
    alphas = tuple(jnp.full((columns, C), alpha, dtype) for _ in range(LEVELS))
    x = draw(columns, B, C) if own_inputs else draw(B, C)
    params = ColumnParams(None if own_inputs else x, shared)
    state = tuple(memory.grid.on_grid(draw(B, C), bits=bits) for _ in range(LEVELS))
    return params, state, Column(x if own_inputs else None, own, alphas)


@functools.partial(jax.jit, static_argnums=(0, 1))
def gradient(scan, step, params, state, xs):
    def loss(params, state, xs):
        after, aux = scan(step.step, params, state, xs)
        total = sum(jnp.sum(jnp.sin((n + 1) * c)) for n, c in enumerate(after))
        return total + jnp.sum(jnp.cos(aux.read)), (after, aux)

    return jax.grad(loss, (0, 1, 2), has_aux=True)(params, state, xs)


def both(scan, step, *args):
    return gradient(scan, step, *args), gradient(memory.store, step, *args)


@pytest.mark.fast
@pytest.mark.parametrize("alpha", [0.5, -0.5, 1.0])
def test_a_column_is_undone(alpha):
    """One step back in float32: below 1e-5."""
    step, (params, state, xs) = multilevel(), problem(1, alpha=alpha)
    column = jax.tree.map(lambda leaf: leaf[0], xs)
    after, aux = step.step(params, state, column)
    assert_close(step(params, after, column, aux), state, 1e-5)


@pytest.mark.fast
def test_an_alpha_below_the_floor_is_the_same_both_ways(x64):
    """An alpha of 0 is 1e-3 forward and backward: the state comes back."""
    step, (params, state, xs) = multilevel(), problem(1, jnp.float64, alpha=0.0)
    column = jax.tree.map(lambda leaf: leaf[0], xs)
    after, aux = step.step(params, state, column)
    assert_close(step(params, after, column, aux), state, 1e-11)


@pytest.mark.parametrize(
    ("refresh", "own_inputs"),
    [
        # The two options do not meet: once with each.
        (3, False),
        (None, True),
        pytest.param(None, False, marks=pytest.mark.slow),
        pytest.param(3, True, marks=pytest.mark.slow),
    ],
)
def test_the_gradient_is_that_of_store(x64, refresh, own_inputs):
    args = problem(4, jnp.float64, own_inputs=own_inputs)
    step = multilevel()
    (got, seen), (want, expected) = both(memory.reverse(step, refresh=refresh), step, *args)
    assert_equal(seen, expected)
    assert_close(got, want, 1e-12)


@pytest.mark.fast
def test_the_gradient_in_float32_over_four_columns():
    step = multilevel()
    (got, _), (want, _) = both(memory.reverse(step), step, *problem(4))
    assert_close(got, want, 1e-6)


@pytest.mark.parametrize(("columns", "bits", "alpha"), [
    (16, 5, 0.5), pytest.param(16, 12, 1.0, marks=pytest.mark.slow),  # no bits are shifted out
])  # fmt: skip
def test_on_the_grid_states_come_back_without_error(columns, bits, alpha):
    """Alpha a power of two: rebuilt states are the same bits after 16 columns.

    Gradients then differ by what XLA rounds otherwise when it fuses two programs.
    """
    step = multilevel(bits, places=round(-np.log2(alpha)))
    args = problem(columns, alpha=alpha, bits=bits)
    assert memory.reverse(step).error(step.step, *args) == 0
    (got, seen), (want, expected) = both(memory.reverse(step), step, *args)
    assert_equal(seen, expected)
    assert_close(got, want, 1e-5)


def straight(shared, own, lower, upper):
    """Products with powers of two and spikes: nothing is ever rounded."""
    y = own["w"] * lower + shared["s"] * spike(lower - 0.5)
    return (y if upper is None else y + own["u"] * spike(upper - 0.5)), own["n"]


@pytest.mark.fast
def test_on_the_grid_the_gradient_is_bit_equal():
    """Where no sum is rounded, so that its order does not matter: all gradients, bit for bit."""
    step = MultiLevel(straight, top, bind(round_to_power_of_two, places=1), 5)
    powers = lambda leaf: jnp.where(leaf < 0, -1.0, 0.5)  # noqa: E731
    params, state, xs = problem(4, bits=5)
    x = memory.grid.on_grid(params.x, bits=5)
    params = ColumnParams(x, jax.tree.map(powers, params.levels))
    xs = xs._replace(levels=jax.tree.map(powers, xs.levels))

    def loss(params, state, xs, scan):
        after, aux = scan(step.step, params, state, xs)
        return sum(c.sum() for c in after) + aux.read.sum()

    graded = jax.jit(jax.grad(loss, (0, 1, 2)), static_argnums=3)
    got, want = (graded(params, state, xs, s) for s in (memory.reverse(step), memory.store))
    assert_equal(got, want)
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(got[0]))


def test_floating_states_lose_their_digits_over_sixteen_columns():
    """Why more than four columns in a row are refused, and a refresh asked for."""
    step, args = multilevel(), problem(16)
    with pytest.raises(ValueError, match="refresh=4"):
        memory.reverse(step)(step.step, *args)
    errors = [memory.reverse(step, refresh=k).error(step.step, *args) for k in (1, 4)]
    assert errors[0] < errors[1] < 1e-4
    lax = MultiLevelWithoutLimit(step)
    assert memory.reverse(lax).error(step.step, *args) > 1e-2


class MultiLevelWithoutLimit:
    """The same inverse, without saying how many steps it can undo."""

    def __init__(self, step):
        self.step = step

    def __call__(self, *args):
        return self.step(*args)


def test_shared_parameters_get_the_sum_of_the_gradients_of_columns(x64):
    """Sharing against a copy per column."""
    params, state, xs = problem(4, jnp.float64)
    step = multilevel()
    shared = gradient(memory.reverse(step), step, params, state, xs)[0][0].levels

    def loss(copies):
        states, total = state, 0.0
        for t in range(4):
            own = jax.tree.map(lambda leaf, t=t: leaf[t], (copies, xs))
            states, aux = step.step(ColumnParams(params.x, own[0]), states, own[1])
            total = total + jnp.sum(jnp.cos(aux.read))
        return total + sum(jnp.sum(jnp.sin((n + 1) * c)) for n, c in enumerate(states))

    copies = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (4, *leaf.shape)), params.levels)
    each = jax.jit(jax.grad(loss))(copies)
    assert_close(shared, jax.tree.map(lambda leaf: leaf.sum(0), each), 1e-12)


@pytest.mark.fast
def test_bounded_alphas_keep_their_sign_and_their_gradient():
    alpha = jnp.asarray([0.5, -0.5, 1e-4, -1e-4, 0.0])
    expected = jnp.asarray([0.5, -0.5, 1e-3, -1e-3, 1e-3])
    np.testing.assert_array_equal(clip_magnitude(alpha, floor=1e-3), expected)
    slope = jax.grad(lambda a: jnp.sum(clip_magnitude(a, floor=1e-3)))(alpha)
    np.testing.assert_array_equal(slope, jnp.ones(5))


@pytest.mark.fast
def test_powers_of_two_are_the_nearest_and_exact():
    alpha = jnp.asarray([3.0, 1.0, 0.8, 0.7, -0.3, 0.1, 0.0])
    expected = [1.0, 1.0, 1.0, 0.5, -0.25, 0.25, 0.25]
    np.testing.assert_array_equal(round_to_power_of_two(alpha, places=2), expected)
    np.testing.assert_array_equal(round_to_power_of_two(alpha, places=0), [1, 1, 1, 1, -1, 1, 1])
    slope = jax.grad(lambda a: jnp.sum(round_to_power_of_two(a, places=2)))(alpha)
    np.testing.assert_array_equal(slope, jnp.ones(7))


@pytest.mark.fast
def test_the_bits_of_the_columns():
    assert column_bound(bits=12, places=1, columns=4) == 256
    assert column_bound(bits=12, places=0, columns=400) == 4096
    assert column_bound(bits=None, places=1, columns=4) == float("inf")
