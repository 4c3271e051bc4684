"""Outputs and gradients at once, where some outputs have no cotangent."""

import jax
import jax.numpy as jnp
import pytest
from jax.custom_derivatives import SymbolicZero

from snnjax.memory.trees import pulled_back
from tests.compare import assert_equal

pytestmark = pytest.mark.fast


def function(params, x):
    return {"y": params["w"] * x, "aux": (x**2, params["steps"])}


PARAMS, X = {"w": jnp.float32(3), "steps": jnp.int32(7)}, jnp.arange(3.0)


def test_none_is_zero():
    def found(aux):
        cotangents = {"y": jnp.ones(3), "aux": (aux, None)}
        return pulled_back(function, PARAMS, X, cotangents=cotangents)

    assert_equal(found(None), found(jnp.zeros(3)))
    outputs, (g_params, g_x) = found(None)
    assert_equal(outputs, function(PARAMS, X))
    assert_equal(g_params, {"w": jnp.float32(3), "steps": None})
    assert_equal(g_x, jnp.full(3, 3.0))


def test_a_rule_is_told_that_it_is():
    told = []

    @jax.custom_vjp
    def both(x):
        return x, 2 * x

    def backward(_, cotangents):
        told.append([isinstance(g, SymbolicZero) for g in cotangents])
        return (cotangents[0],)

    both.defvjp(lambda x: (both(x.value), None), backward, symbolic_zeros=True)
    pulled_back(both, X, cotangents=(X, None))
    pulled_back(both, X, cotangents=(X, X))
    assert told == [[False, True], [False, False]]
