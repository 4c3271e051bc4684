"""Activations: values, pinned gradients at the bounds, both modes, layers in networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import conversion, models, nn, training

pytestmark = pytest.mark.fast
LEVELS = 4


def slopes(function, x, *others):
    return jax.vmap(jax.grad(function), (0, *(None for _ in others)))(x, *others)


def test_gradients_at_the_bounds_are_one(x64):
    x = jnp.asarray([-0.1, 0.0, 0.3, 1.5, 1.6])
    assert slopes(conversion.threshold_relu, x, 1.5).tolist() == [0, 1, 1, 1, 0]
    qcfs = lambda x, theta: conversion.qcfs(x, theta, LEVELS)  # noqa: E731
    assert slopes(qcfs, x, 1.5).tolist() == [0, 1, 1, 1, 0]
    shifted = lambda x, theta: conversion.shifted_threshold_relu(x, theta, 5)  # noqa: E731
    # Moved by 1.5 / 10: the bounds move along.
    assert slopes(shifted, x + 0.15, 1.5).tolist() == [0, 1, 1, 1, 0]


def test_the_threshold_receives_what_is_clipped_and_the_error_of_rounding(x64):
    x, theta = jnp.linspace(-0.5, 2.5, 61), 1.5
    found = jax.vmap(jax.grad(lambda t, x: conversion.qcfs(x, t, LEVELS)), (None, 0))(theta, x)
    z = np.clip(np.asarray(x) / theta, 0, 1)
    q = np.floor(z * LEVELS + 0.5) / LEVELS
    # Above the threshold q = z = 1 there, and the slope is 1.
    expected = np.where(np.asarray(x) > theta, 1.0, q - z)
    np.testing.assert_allclose(found, expected, atol=1e-15)
    clipped = jax.vmap(jax.grad(lambda t, x: conversion.threshold_relu(x, t)), (None, 0))
    np.testing.assert_array_equal(clipped(theta, x), np.asarray(x) > theta)


def test_wide_gradients_reach_half_a_level_beyond_the_bounds(x64):
    wide = lambda x, t: conversion.qcfs(x, t, LEVELS, gradient="wide")  # noqa: E731
    # Exact bounds -1/8 and 9/8 of the threshold 2; the lower one belongs to the interval.
    x = jnp.asarray([-0.26, -0.25, 0.0, 2.0, 2.24, 2.25])
    assert slopes(wide, x, 2.0).tolist() == [0, 1, 1, 1, 1, 0]
    np.testing.assert_array_equal(wide(x, 2.0), conversion.qcfs(x, 2.0, LEVELS))


@pytest.mark.parametrize("gradient", ["clipped", "wide"])
def test_forward_and_reverse_mode_are_one_derivative(x64, gradient):
    x, dx = (jnp.asarray(np.random.default_rng(i).normal(1, 1, (5, 7))) for i in (0, 1))
    function = lambda x, t: conversion.qcfs(x, t, LEVELS, gradient=gradient)  # noqa: E731
    _, forward = jax.jvp(function, (x, 1.3), (dx, 0.7))
    _, pull = jax.vjp(function, x, 1.3)
    g = jnp.asarray(np.random.default_rng(2).normal(size=(5, 7)))
    back_x, back_t = pull(g)
    np.testing.assert_allclose((forward * g).sum(), (back_x * dx).sum() + 0.7 * back_t, rtol=1e-12)


def test_narrow_inputs_are_rounded_in_float32():
    x = jnp.linspace(-1, 9, 101)
    y = conversion.qcfs(x.astype(jnp.bfloat16), jnp.float32(8.0), 8)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, np.round(np.asarray(y, np.float32)))


def test_an_infinite_input_is_bounded():
    x = jnp.asarray([jnp.inf, -jnp.inf])
    assert conversion.qcfs(x, 2.0, 4).tolist() == [2, 0]
    assert conversion.threshold_relu(x, 2.0).tolist() == [2, 0]


def test_activations_stand_where_a_model_takes_a_neuron():
    neuron = lambda: conversion.QCFS(levels=2, threshold=1.0)  # noqa: E731
    net = models.mlp((4,), hidden=(5, 6), rngs=nnx.Rngs(0), neuron=neuron)
    x = jax.random.normal(jax.random.key(0), (3, 2, 4))
    outputs, aux = net(x, net.initial_state(2), training=False, taps=("spikes", "currents"))
    assert outputs.shape == (3, 2, 10)
    assert list(aux.taps) == ["qcfs2", "qcfs4"] == list(conversion.activation_names(net))
    assert set(np.unique(aux.taps["qcfs2"]["spikes"])) <= {0, 0.5, 1}
    _, params, _ = nn.split(net)
    assert len(jax.tree.leaves(params)) == 8
    # The threshold is trained; by default it does not decay.
    masks = jax.tree.leaves(training.optimizer.decay_mask(params))
    assert sum(masks) == 3


def test_wrong_values_are_refused_where_they_are_written():
    with pytest.raises(ValueError, match=r"QCFS: levels must be at least 1, got 0"):
        conversion.QCFS(levels=0)
    with pytest.raises(ValueError, match=r"QCFS: threshold must be above 0"):
        conversion.QCFS(threshold=0.0)
    with pytest.raises(ValueError, match=r"gradient must be one of clipped, wide"):
        conversion.QCFS(gradient="straight")
    with pytest.raises(ValueError, match=r"ThresholdReLU: timesteps must be at least 1"):
        conversion.ThresholdReLU(timesteps=0)
    with pytest.raises(NotImplementedError, match="has no method `function`"):
        conversion.activations.Activation().function(jnp.ones(1))
