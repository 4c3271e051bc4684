"""Reversal: the gradient of store; exactly so where the inverse is, else within its bound."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, neurons
from snnjax.neurons.integrate_fire import IFParams
from snnjax.neurons.lif import lif_inverse, lif_state
from snnjax.typing import bind
from tests.compare import assert_close, assert_equal, largest_error

T, SHAPE = 11, (2, 5)


def currents(seed=0, timesteps=T, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(0.4, 0.5, (timesteps, *SHAPE)), dtype)


@functools.partial(jax.jit, static_argnums=(0, 1))
def gradient(scan, step, params, state, xs):
    def loss(params, state, xs):
        state, ys = scan(step, params, state, xs)
        weights = jnp.cos(jnp.arange(ys.size, dtype=ys.dtype)).reshape(ys.shape)
        return jnp.sum(ys * weights) + jnp.sum(jnp.sin(state.v)), (state, ys)

    return jax.grad(loss, (0, 1, 2), has_aux=True)(params, state, xs)


def lif_case(decay, dtype=jnp.float32, **options):
    step = bind(neurons.lif, **options)
    params = neurons.LIFParams(jnp.asarray(decay, dtype), jnp.asarray(1.0, dtype))
    state = lif_state(SHAPE, dtype=dtype)
    inverse = lif_inverse(decay=decay, **options)
    return step, params, state, inverse


@pytest.mark.parametrize("refresh", [1, 3, 4, T])
@pytest.mark.parametrize("scale_input", [False, True])
def test_a_leak_reverses_between_refreshes(x64, refresh, scale_input):
    step, params, state, inverse = lif_case(0.8, jnp.float64, scale_input=scale_input)
    xs = currents(dtype=jnp.float64)
    scan = memory.reverse(inverse, refresh=refresh)
    got, seen = gradient(scan, step, params, state, xs)
    want, expected = gradient(memory.store, step, params, state, xs)
    assert_equal(seen, expected)
    assert_close(got, want, 1e-12)


def test_no_leak_reverses_over_any_length():
    step, params = neurons.integrate_fire, IFParams(jnp.asarray(1.0))
    xs, state = currents(timesteps=200), lif_state(SHAPE)
    scan = memory.reverse(neurons.integrate_fire_model().inverse)
    got, seen = gradient(scan, step, params, state, xs)
    want, expected = gradient(memory.store, step, params, state, xs)
    assert_equal(seen, expected)
    assert_close(got, want, 1e-4)


def test_no_leak_on_the_grid_is_exact():
    """Currents on a dyadic grid: every sum is exact, so the difference is exactly zero."""
    step, params = neurons.integrate_fire, IFParams(jnp.asarray(1.0))
    xs = memory.grid.on_grid(currents(timesteps=64))
    state = lif_state(SHAPE)
    scan = memory.reverse(neurons.integrate_fire_model().inverse)
    got, want = (gradient(s, step, params, state, xs)[0] for s in (scan, memory.store))
    assert_equal(got[1:], want[1:])
    assert_close(got[0], want[0], 1e-6)


def test_too_many_steps_are_refused_with_the_cure():
    step, params, state, inverse = lif_case(0.25)
    assert inverse.steps == 8
    with pytest.raises(ValueError, match="refresh=8"):
        memory.reverse(inverse)(step, params, state, currents())
    with pytest.raises(ValueError, match="refresh=8"):
        memory.reverse(inverse, refresh=9)(step, params, state, currents())


@pytest.mark.parametrize("refresh", [0, -1, True])
def test_a_refresh_is_a_number_of_steps(refresh):
    with pytest.raises(ValueError, match="positive"):
        memory.reverse(neurons.integrate_fire_model().inverse, refresh=refresh)


def test_equal_arguments_give_equal_scans():
    one, two = (memory.reverse(lif_inverse(decay=0.5), refresh=4) for _ in range(2))
    assert one == two and hash(one) == hash(two)


def test_integers_and_keys_pass_through():
    """Leaves without a gradient in params, state and xs are held fixed; a replay draws the same."""

    def step(params, state, x):
        noise = jax.random.normal(x["key"], state["v"].shape) * params["times"]
        new = {"v": state["v"] + params["w"] * x["x"] + noise, "n": state["n"] + 1}
        return new, new["v"] ** 2 / x["n"]

    def inverse(params, after, x, y):
        del y
        noise = jax.random.normal(x["key"], after["v"].shape) * params["times"]
        return {"v": after["v"] - params["w"] * x["x"] - noise, "n": after["n"] - 1}

    params = {"w": jnp.asarray(0.5), "times": jnp.asarray(2)}
    state = {"v": jnp.zeros(3), "n": jnp.asarray(0)}
    xs = {
        "x": jnp.arange(12.0).reshape(4, 3),
        "n": jnp.arange(1, 5),
        "key": jax.random.split(jax.random.key(0), 4),
    }

    def loss(w, v, x, scan):
        given = ({**params, "w": w}, {**state, "v": v}, {**xs, "x": x})
        after, ys = scan(step, *given)
        return jnp.sum(ys) + jnp.sum(after["v"])

    jax.config.update("jax_numpy_dtype_promotion", "standard")
    try:
        args = (params["w"], state["v"], xs["x"])
        got, want = (
            jax.grad(loss, (0, 1, 2))(*args, s) for s in (memory.reverse(inverse), memory.store)
        )
    finally:
        jax.config.update("jax_numpy_dtype_promotion", "strict")
    assert largest_error(got, want) < 1e-5


@pytest.mark.fast
def test_the_error_of_a_reversal_is_what_the_backward_pass_meets():
    """Zero without a leak on the grid; with one, larger the longer the way; at once if wrong."""
    xs, state = memory.grid.on_grid(currents()), lif_state(SHAPE)
    exact = memory.reverse(neurons.integrate_fire_model().inverse)
    params = IFParams(jnp.asarray(1.0))
    assert exact.error(neurons.integrate_fire, params, state, xs) == 0
    step, params, state, inverse = lif_case(0.5)
    xs = currents()
    errors = [memory.reverse(inverse, refresh=k).error(step, params, state, xs) for k in (1, 4, T)]
    assert 0 < errors[0] < errors[1] < errors[2] < 1e-3
    wrong = lif_inverse(decay=0.5, reset=neurons.reset.none)
    assert memory.reverse(wrong).error(step, params, state, xs) > 0.5


@pytest.mark.fast
def test_a_scan_without_an_inverse_takes_the_layers_own_or_says_what_is_missing():
    step, params, state, inverse = lif_case(0.5)
    with pytest.raises(ValueError, match="brings an inverse"):
        memory.reversal()(step, params, state, currents())
    assert memory.reversal().by(inverse) == memory.reverse(inverse, refresh=inverse.steps)
    assert memory.reversal(refresh=3).by(inverse) == memory.reverse(inverse, refresh=3)
    own = memory.reverse(lif_inverse(decay=0.9))
    assert own.by(inverse) == own
