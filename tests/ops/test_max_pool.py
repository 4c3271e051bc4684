"""Overlapping patches: flax's gradients, ties included, from one byte per patch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax.ops.max_pool import Patches, patch_max, patch_max_and_winner

CASES = [  # window, strides, padding
    (3, 2, ((1, 1), (1, 1))),
    (3, 2, ((0, 0), (0, 0))),
    (3, 2, ((0, 1), (1, 0))),
    (3, 1, ((1, 1), (1, 1))),
    (5, 2, ((2, 2), (2, 2))),
    (4, 3, ((0, 0), (1, 1))),
    (2, 3, ((1, 1), (0, 1))),
]


@pytest.mark.parametrize(("window", "strides", "padding"), CASES)
@pytest.mark.parametrize("spikes", [False, True])
def test_values_and_gradients_are_flax_s(window, strides, padding, spikes):
    shape = (2, 7, 8, 3)
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape).astype(np.float32)
    x = (x > 0.5).astype(np.float32) if spikes else x
    patches = Patches(shape[1:3], window, strides, padding)
    flax = lambda x: nnx.max_pool(x, (window, window), (strides, strides), padding)  # noqa: E731
    weights = np.round(8 * rng.normal(size=jax.eval_shape(flax, x).shape)) / 8

    @jax.jit
    def values_and_gradients(x):
        theirs, undo_theirs = jax.vjp(flax, x)
        ours, undo_ours = jax.vjp(lambda x: patch_max(x, patches), x)
        g = jnp.asarray(weights, jnp.float32)
        return (theirs, *undo_theirs(g)), (ours, *undo_ours(g))

    (expected, expected_gradient), (outputs, gradient) = values_and_gradients(x)
    np.testing.assert_array_equal(outputs, expected)
    np.testing.assert_array_equal(gradient, expected_gradient)  # dyadic: sums are exact


@pytest.mark.fast
def test_one_byte_per_patch_is_kept():
    patches = Patches((8, 8), 3, 2, ((1, 1), (1, 1)))
    x = jax.ShapeDtypeStruct((5, 8, 8, 4), jnp.float32)
    kept = jax.tree.leaves(
        jax.eval_shape(lambda x: jax.vjp(lambda x: patch_max(x, patches), x)[1], x)
    )
    assert [(leaf.shape, leaf.dtype) for leaf in kept] == [((5, 4, 4, 4), jnp.uint8)]


@pytest.mark.fast
@pytest.mark.parametrize(("window", "dtype"), [(15, jnp.uint8), (16, jnp.int32)])
def test_large_patches_have_larger_numbers(window, dtype):
    """One number more than positions is needed: for the positions that nothing reaches."""
    x, patches = jnp.zeros((1, 17, 17, 1)), Patches((17, 17), window, 1, ((0, 0), (0, 0)))
    assert jax.eval_shape(lambda x: patch_max_and_winner(x, patches), x)[1].dtype == dtype
    assert patches.no_tap <= jnp.iinfo(dtype).max


@pytest.mark.fast
def test_the_gradient_is_differentiable_again():
    """It is linear in the cotangent: its transpose picks the winners."""
    x = jax.random.normal(jax.random.key(2), (1, 5, 5, 2))
    patches = Patches((5, 5), 3, 2, ((1, 1), (1, 1)))
    _, pull = jax.vjp(lambda x: patch_max(x, patches), x)
    outputs, picked = jax.vjp(lambda g: pull(g)[0], jnp.ones((1, 3, 3, 2)))
    assert outputs.shape == x.shape
    np.testing.assert_array_equal(picked(x)[0], patch_max(x, patches))
