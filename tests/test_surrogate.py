"""Spike functions: Heaviside forward, stated slope backward, at every order."""

import functools
import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import surrogate
from tests.compare import assert_close

PROPERTY = hypothesis.settings(max_examples=8, deadline=None, derandomize=True)

# name: (made with an option, the formula of the docstring in NumPy, the area under it)
TABLE = {
    "arctan": (
        surrogate.arctan(alpha=3.0),
        lambda u: 1.5 / (1 + (math.pi / 2 * 3.0 * u) ** 2),
        1.0,
    ),
    "sigmoid": (
        surrogate.sigmoid(alpha=5.0),
        lambda u: 5.0 * np.exp(-5.0 * np.abs(u)) / (1 + np.exp(-5.0 * np.abs(u))) ** 2,
        1.0,
    ),
    "fast_sigmoid": (
        surrogate.fast_sigmoid(alpha=4.0),
        lambda u: 1 / (1 + 4.0 * np.abs(u)) ** 2,
        2 / 4.0,
    ),
    "triangle": (
        surrogate.triangle(alpha=2.0),
        lambda u: np.maximum(0.0, 2.0 - 4.0 * np.abs(u)),
        1.0,
    ),
    "rectangular": (
        surrogate.rectangular(width=0.8),
        lambda u: np.where(np.abs(u) <= 0.4, 1.25, 0.0),
        1.0,
    ),
    "gaussian": (
        surrogate.gaussian(sigma=0.3),
        lambda u: np.exp(-(u**2) / (2 * 0.09)) / (0.3 * math.sqrt(2 * math.pi)),
        1.0,
    ),
    "exponential": (
        surrogate.exponential(height=2.0, width=0.25),
        lambda u: 2.0 * np.exp(-np.abs(u) / 0.25),
        1.0,
    ),
    "straight_through": (
        surrogate.straight_through(low=-0.25, high=0.75),
        lambda u: np.where((u >= -0.25) & (u <= 0.75), 1.0, 0.0),
        1.0,
    ),
}
SMOOTH = ("arctan", "sigmoid", "gaussian")
EVERY = pytest.mark.parametrize("name", TABLE)


def test_the_table_is_complete():
    others = {"Surrogate", "strict"}
    assert set(TABLE) == set(surrogate.__all__) - others


@EVERY
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_forward_is_the_heaviside_step_and_at_threshold_it_fires(name, dtype):
    u = jnp.asarray([-jnp.inf, -2.0, -1e-30, -0.0, 0.0, 1e-30, 2.0, jnp.inf], dtype)
    spike = TABLE[name][0]
    for fired, expected in (
        (spike(u), [0, 0, 0, 1, 1, 1, 1, 1]),
        (surrogate.strict(spike)(u), [0, 0, 0, 0, 0, 1, 1, 1]),
    ):
        assert fired.dtype == dtype
        np.testing.assert_array_equal(fired.astype(jnp.float32), expected)


def batch(low, high):
    return st.lists(st.floats(low, high, allow_subnormal=False), min_size=8, max_size=8)


@functools.partial(jax.jit, static_argnums=0)
def derivatives(fire, u, scale):
    """Value and derivative forward, the derivative backward, and the slope times the scale."""
    backward = jax.vjp(fire, u)[1](scale)
    return *jax.jvp(fire, (u,), (scale,)), *backward, fire.derivative(u) * scale


@EVERY
@PROPERTY
@hypothesis.given(u=batch(-3, 3), scale=batch(-2, 2))
def test_the_derivative_is_the_formula_in_both_modes(name, u, scale):
    spike, formula, _ = TABLE[name]
    u, scale = np.asarray(u), np.asarray(scale)
    with jax.enable_x64(True):
        for fire in (spike, surrogate.strict(spike)):
            out, forward, reverse, product = derivatives(fire, jnp.asarray(u), jnp.asarray(scale))
            np.testing.assert_array_equal(out, u > 0 if fire.strict else u >= 0)
            np.testing.assert_array_equal(forward, reverse)
            np.testing.assert_allclose(forward, scale * formula(u), rtol=1e-12, atol=1e-300)
            np.testing.assert_array_equal(product, forward)


def test_the_sigmoid_is_as_exact_above_the_threshold_as_below():
    u = jnp.asarray([1.0, 5.0, 20.0])
    slope = surrogate.sigmoid().derivative
    np.testing.assert_array_equal(slope(u), slope(-u))
    assert jnp.all(slope(u) > 0)


@EVERY
def test_the_area_under_the_slope(x64, name):
    spike, _, area = TABLE[name]
    # u = sinh(z): a fine grid near the threshold that reaches far into heavy tails.
    z = np.linspace(-18, 18, 400_001)
    slope = np.asarray(spike.derivative(jnp.asarray(np.sinh(z))))
    np.testing.assert_allclose(np.trapezoid(slope * np.cosh(z), z), area, rtol=2e-4)


@EVERY
def test_slopes_keep_the_dtype_and_stay_finite(name):
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        u = jnp.asarray([-3e4, -1.0, 0.0, 0.5, 3e4], dtype)
        slope = jax.jit(jax.grad(lambda u: jnp.sum(TABLE[name][0](u))))(u)
        assert slope.dtype == dtype
        assert jnp.all(jnp.isfinite(slope.astype(jnp.float32)))
        assert jnp.all(slope >= 0)


@pytest.mark.parametrize("name", SMOOTH)
def test_second_derivatives_are_those_of_the_slope(x64, name):
    spike, formula, _ = TABLE[name]
    u, step = jnp.asarray([-0.7, -0.2, 0.1, 0.9]), 1e-5
    differences = (formula(np.asarray(u) + step) - formula(np.asarray(u) - step)) / (2 * step)

    def slope(u):
        return jax.jvp(spike, (u,), (jnp.ones_like(u),))[1]

    forward = jax.jit(lambda u: jax.jvp(slope, (u,), (jnp.ones_like(u),))[1])(u)
    assert_close(forward, differences, 1e-8)
    reverse = jax.jit(jax.vmap(jax.grad(jax.grad(spike))))(u)
    assert_close(reverse, forward, 1e-14)
    third = jax.jit(jax.vmap(jax.grad(jax.grad(jax.grad(spike)))))(u)
    assert jnp.all(jnp.isfinite(third)) and jnp.any(third != 0)


def test_transformations_compose():
    spike, u = surrogate.arctan(), jnp.linspace(-1, 1, 6).reshape(2, 3)
    gradient = jax.grad(lambda u: jnp.sum(spike(u) ** 2))
    expected = 2 * spike(u) * spike.derivative(u)
    for transformed in (gradient, jax.jit(gradient), jax.vmap(gradient)):
        assert_close(transformed(u), expected, 1e-6)


def test_equal_arguments_give_equal_hashable_objects_that_do_not_retrace():
    assert surrogate.arctan(alpha=2) == surrogate.arctan(alpha=2.0) == surrogate.arctan()
    assert hash(surrogate.arctan(alpha=2)) == hash(surrogate.arctan())
    assert surrogate.arctan() != surrogate.arctan(alpha=3.0)
    assert surrogate.arctan() != surrogate.strict(surrogate.arctan())
    assert surrogate.arctan(alpha=1.0) != surrogate.fast_sigmoid(alpha=1.0)
    assert len({make() for make in DEFAULTS}) == len(DEFAULTS)

    traces = []

    def traced(spike, u):
        traces.append(spike)
        return spike(u)

    jitted = jax.jit(traced, static_argnums=0)
    for _ in range(3):
        jitted(surrogate.gaussian(sigma=0.5), jnp.ones(2))
    assert len(traces) == 1


DEFAULTS = (
    surrogate.arctan,
    surrogate.sigmoid,
    surrogate.fast_sigmoid,
    surrogate.triangle,
    surrogate.rectangular,
    surrogate.gaussian,
    surrogate.exponential,
    surrogate.straight_through,
)


@pytest.mark.parametrize("make", DEFAULTS[:-1])
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_parameters_that_are_not_positive_are_refused(make, value):
    names = {"rectangular": "width", "gaussian": "sigma", "exponential": "width"}
    option = names.get(make.__name__, "alpha")
    with pytest.raises(ValueError, match=f"{option} must be a positive number"):
        make(**{option: value})


@pytest.mark.parametrize("low", [0.5, 1.0, math.nan])
def test_a_clip_needs_an_interval(low):
    with pytest.raises(ValueError, match="low < high"):
        surrogate.straight_through(low=low, high=0.5)


def test_straight_through_with_its_defaults_is_a_rounding_with_gradient_one():
    v = jnp.asarray([-0.2, 0.0, 0.3, 0.6, 1.0, 1.2])
    value, slope = jax.vmap(jax.value_and_grad(lambda v: surrogate.straight_through()(v - 0.5)))(v)
    np.testing.assert_array_equal(value, jnp.round(jnp.clip(v, 0, 1)))
    np.testing.assert_array_equal(slope, [0, 1, 1, 1, 1, 0])


def cosine(u, width):
    return jnp.where(jnp.abs(u) < width, jnp.cos(jnp.pi * u / width / 2) ** 2 / width, 0.0)


def test_a_surrogate_of_ones_own_as_in_the_docstring():
    spike = surrogate.Surrogate(cosine, (0.5,))
    assert spike == surrogate.Surrogate(cosine, (0.5,))
    u = jnp.asarray([-0.6, -0.1, 0.0, 0.3])
    np.testing.assert_array_equal(spike(u), [0, 0, 1, 1])
    np.testing.assert_array_equal(jax.vmap(jax.grad(spike))(u), cosine(u, 0.5))
