"""The reset rules: their values, what is differentiated, and that they compare."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import neurons, surrogate

pytestmark = pytest.mark.fast
H = jnp.asarray([0.3, 1.4, 2.5])
S = jnp.asarray([0.0, 1.0, 1.0])
RULES = {
    "subtract": (neurons.reset.subtract, [0.3, 0.4, 1.5]),
    "zero": (neurons.reset.zero, [0.3, 0.0, 0.0]),
    "to": (neurons.reset.to(-0.5), [0.3, -0.5, -0.5]),
    "none": (neurons.reset.none, [0.3, 1.4, 2.5]),
}


@pytest.mark.parametrize("name", RULES)
def test_values(name):
    rule, expected = RULES[name]
    for variant in (rule, neurons.reset.detached(rule), neurons.reset.delayed(rule)):
        np.testing.assert_allclose(variant(H, S, jnp.float32(1.0)), expected, rtol=1e-6)


@pytest.mark.parametrize("name", RULES)
def test_detaching_changes_the_gradient_through_spikes_only(name):
    rule, _ = RULES[name]
    spike, threshold = surrogate.arctan(), jnp.float32(1.0)

    def after(rule, h, s):
        return jnp.sum(rule(h, s, threshold))

    full = jax.grad(lambda h: after(rule, h, spike(h - threshold)))(H)
    detached = jax.grad(lambda h: after(neurons.reset.detached(rule), h, spike(h - threshold)))(H)
    direct = jax.grad(lambda h: after(rule, h, S))(H)
    np.testing.assert_array_equal(detached, direct)
    through = {"subtract": -1.0, "zero": -H, "to": -0.5 - H, "none": 0.0}[name]
    expected = direct + through * spike.derivative(H - threshold)
    np.testing.assert_allclose(full, expected, rtol=1e-6, atol=1e-7)


def test_a_reset_to_zero_is_the_hard_reset():
    assert neurons.reset.to(0.0) == neurons.reset.zero
    np.testing.assert_array_equal(
        neurons.reset.to(0)(H, S, jnp.float32(1.0)), neurons.reset.zero(H, S, jnp.float32(1.0))
    )


def test_subtraction_differentiates_the_threshold():
    gradient = jax.grad(lambda threshold: jnp.sum(neurons.reset.subtract(H, S, threshold)))
    assert gradient(jnp.float32(1.0)) == -2.0


def test_equality_and_hash():
    assert neurons.reset.to(1) == neurons.reset.to(1.0) != neurons.reset.to(2.0)
    assert neurons.reset.detached(
        neurons.reset.detached(neurons.reset.zero)
    ) == neurons.reset.detached(neurons.reset.zero)
    wrapped = neurons.reset.delayed(neurons.reset.detached(neurons.reset.subtract))
    assert wrapped == neurons.reset.detached(neurons.reset.delayed(neurons.reset.subtract))
    variants = {
        v
        for r, _ in RULES.values()
        for v in (r, neurons.reset.detached(r), neurons.reset.delayed(r))
    }
    assert len(variants) == 3 * len(RULES)
