"""Derivatives by definition."""

import jax
import jax.numpy as jnp
import pytest

from snnjax.ops.derivative import refuse_derivative, with_derivative


@pytest.mark.fast
def test_a_constant_operand_gives_no_tangent():
    """The value's own derivative is ignored, also where the other array has none."""
    value, tangent = jax.jvp(
        lambda v: with_derivative(2 * v, jnp.ones(3)), (jnp.ones(3),), (jnp.ones(3),)
    )
    assert (value == 2).all() and (tangent == 0).all()
    gradient = jax.grad(lambda v: with_derivative(2 * v, v**3, slope=jnp.cos).sum())(jnp.ones(3))
    assert jnp.allclose(gradient, 3 * jnp.cos(1.0))


@pytest.mark.fast
def test_an_order_is_refused_with_its_reason():
    square = lambda x: refuse_derivative(x**2, reason="use another scan", order=2)  # noqa: E731
    assert jax.grad(square)(3.0) == 6
    with pytest.raises(TypeError, match="use another scan"):
        jax.grad(jax.grad(square))(3.0)
