"""Outputs and gradients at once, where some outputs have no cotangent."""

import jax
import jax.numpy as jnp
import pytest
from jax.custom_derivatives import SymbolicZero

from snnjax.ops.trees import value_and_pullback
from tests.compare import assert_equal

pytestmark = pytest.mark.fast


def function(params, x):
    return {"y": params["w"] * x, "aux": (x**2, params["steps"])}


PARAMS, X = {"w": jnp.float32(3), "steps": jnp.int32(7)}, jnp.arange(3.0)


def test_none_is_zero():
    def actual(aux):
        cotangents = {"y": jnp.ones(3), "aux": (aux, None)}
        return value_and_pullback(function, PARAMS, X, cotangents=cotangents)

    assert_equal(actual(None), actual(jnp.zeros(3)))
    outputs, (g_params, g_x) = actual(None)
    assert_equal(outputs, function(PARAMS, X))
    assert_equal(g_params, {"w": jnp.float32(3), "steps": None})
    assert_equal(g_x, jnp.full(3, 3.0))


def test_a_rule_is_told_that_it_is():
    expected = []

    @jax.custom_vjp
    def both(x):
        return x, 2 * x

    def backward(_, cotangents):
        expected.append([isinstance(g, SymbolicZero) for g in cotangents])
        return (cotangents[0],)

    both.defvjp(lambda x: (both(x.value), None), backward, symbolic_zeros=True)
    value_and_pullback(both, X, cotangents=(X, None))
    value_and_pullback(both, X, cotangents=(X, X))
    assert expected == [[False, True], [False, False]]
