"""Inputs of every tap of a kernel, and dilation of a cotangent for the backward pass."""

import jax.numpy as jnp
import numpy as np
import pytest

from snnjax.ops.convolution import Geometry, dilate, pad, tap_inputs
from snnjax.ops.rounding import accumulation_dtype


@pytest.mark.fast
@pytest.mark.parametrize("stride", [1, 2])
def test_reads_are_the_entries_of_all_windows(stride):
    x = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)
    outputs = (6 + 2 - 3) // stride + 1
    geometry = Geometry((6,), (3,), (outputs,), (stride,), ((1, 1),), 1)
    framed = np.pad(x, ((0, 0), (1, 1), (0, 0)))
    for tap, read in enumerate(tap_inputs(jnp.asarray(x), geometry)):
        places = tap + stride * np.arange(outputs)
        np.testing.assert_array_equal(read, framed[:, places])


@pytest.mark.fast
def test_a_spread_cotangent_holds_every_output_once_a_stride_apart():
    geometry = Geometry((6,), (3,), (3,), (2,), ((1, 1),), 1)
    spaced = np.asarray(dilate(jnp.arange(1.0, 4.0).reshape(1, 3, 1), geometry))[0, :, 0]
    np.testing.assert_array_equal(spaced[spaced != 0], [1, 2, 3])
    assert set(np.diff(np.flatnonzero(spaced))) == {2}


@pytest.mark.fast
def test_a_frame_of_zeros_and_a_crop():
    framed = pad(jnp.ones((1, 2, 1)), [(1, -1, 0)])
    np.testing.assert_array_equal(framed[0, :, 0], [0, 1])


@pytest.mark.fast
def test_sums_are_at_least_float32():
    assert accumulation_dtype(jnp.dtype(jnp.bfloat16)) == jnp.float32
    assert accumulation_dtype(jnp.dtype(jnp.float32)) == jnp.float32
