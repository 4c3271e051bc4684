"""Pooling: flax's values and gradients, ties included, without its slow gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import nn
from snnjax.nn.pooling import max_pool


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize(
    ("window", "strides", "size"), [(2, 2, 6), (2, 2, 7), (3, 2, 7), (3, 1, 5)]
)
def test_max_pool_is_flax_s(window, strides, size, padding):
    shape = (2, size, size + 1, 3)
    rng = np.random.default_rng(0)
    spikes = jnp.asarray(rng.random(shape) < 0.4, jnp.float32)
    flax = lambda x: nnx.max_pool(x, (window, window), (strides, strides), padding)  # noqa: E731
    ours = lambda x: max_pool(x, window=window, strides=strides, padding=padding)  # noqa: E731
    weights = rng.normal(size=jax.eval_shape(flax, spikes).shape).astype(np.float32)

    @jax.jit
    def values_and_gradients(x):
        (theirs, undo_theirs), (mine, undo_mine) = jax.vjp(flax, x), jax.vjp(ours, x)
        return (theirs, *undo_theirs(weights)), (mine, *undo_mine(weights))

    (expected, expected_gradient), (values, gradient) = values_and_gradients(spikes)
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-6, atol=1e-6)


def test_avg_pool_is_the_mean_of_patches():
    x = jax.random.normal(jax.random.key(3), (2, 3, 5, 4, 6))
    outputs, _ = nn.AvgPool()(x, nn.State(), nn.Call(training=True))
    expected = x[:, :, :4].reshape(2, 3, 2, 2, 2, 2, 6).mean((3, 5))
    np.testing.assert_allclose(outputs, expected, rtol=1e-6, atol=1e-6)


def test_a_number_pads_every_side_with_what_counts_least():
    """3x3 patches, step 2, one row and column around, as PyTorch's padding=1."""
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 3))
    wide = lambda value: jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=value)  # noqa: E731
    pools = {"window": 3, "strides": 2}
    np.testing.assert_array_equal(max_pool(x, **pools, padding=1), max_pool(wide(-9.0), **pools))
    means, padded = (
        nn.AvgPool(**pools, padding=p)(a[None], nn.State(), nn.Call(training=False))[0]
        for p, a in ((1, x), ("VALID", wide(0.0)))
    )
    assert means.shape == (1, 2, 3, 3, 3)
    np.testing.assert_array_equal(means, padded)


def test_pools_work_on_every_timestep_alike():
    x = jax.random.normal(jax.random.key(2), (3, 2, 4, 4, 5))
    for layer in (nn.MaxPool(), nn.AvgPool(), nn.GlobalAvgPool()):
        outputs, aux = layer(x, layer.initial_state((2, 4, 4, 5)), nn.Call(training=True))
        alone = [layer(x[t : t + 1], nn.State(), nn.Call(training=True))[0] for t in range(3)]
        np.testing.assert_array_equal(outputs, jnp.concatenate(alone))
        assert jax.tree.leaves(aux) == []


@pytest.mark.parametrize("layer", [nn.MaxPool(window=3), nn.AvgPool(window=3)])
@pytest.mark.parametrize("shape", [(2, 1, 9, 4), (2, 1, 2, 5, 4)])
def test_inputs_that_are_no_images_or_too_small_are_refused(layer, shape):
    with pytest.raises(ValueError, match=r"\[N, H, W, C\].*at least 3x3"):
        layer(jnp.zeros(shape), nn.State(), nn.Call(training=False))


@pytest.mark.parametrize("layer", [nn.MaxPool, nn.AvgPool])
def test_padding_has_the_forms_of_a_convolution(layer):
    x = jax.random.normal(jax.random.key(0), (1, 2, 6, 6, 3))
    run = lambda padding: layer(window=3, strides=2, padding=padding)(  # noqa: E731
        x, nn.State(), nn.Call(training=False)
    )[0]
    np.testing.assert_array_equal(run(1), run([(1, 1), [1, 1]]))
    np.testing.assert_array_equal(run("SAME"), run(((0, 1), (0, 1))))
    np.testing.assert_array_equal(run("VALID"), run(0))
    # A pair of integers has two meanings, True none; a patch of padding has no maximum.
    for wrong in ((1, 1), True, "FULL", 1.0, -1, 3, ((1, 1),)):
        with pytest.raises(ValueError, match="padding="):
            layer(window=3, strides=2, padding=wrong)
