"""Synaptic operations: agreement with the published definition, implemented literally."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import metrics
from snnjax.metrics.operations import dense_operations
from snnjax.nn.taps import convolution_operations
from snnjax.ops.convolution import convolution

GEOMETRIES = {
    "same": ((9, 7, 4), (3, 3, 4, 6), {}),
    "strided, grouped": ((9, 7, 4), (3, 5, 2, 6), {"groups": 2, "strides": 2}),
    "depthwise": (
        *((9, 7, 4), (3, 3, 1, 8)),
        {"groups": 4, "strides": (2, 3), "padding": ((2, 1), (0, 3))},
    ),
    "series": ((11, 4), (4, 4, 6), {"padding": "VALID", "strides": 3}),
    "pointwise": ((8, 8, 4), (1, 1, 4, 4), {"strides": 2}),
}


def sparse(seed, shape):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.integers(0, 2, shape) * rng.normal(size=shape), jnp.float32)


def binary(array):
    return (array != 0).astype(jnp.float32)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_counts_are_those_of_the_layer_run_on_ones(name):
    """Reference: binarise inputs and weights, run the layer without bias, sum the outputs."""
    shape, window, options = GEOMETRIES[name]
    inputs, kernel = sparse(0, (3, 2, *shape)), sparse(1, window)
    folded = inputs.reshape(-1, *shape)
    found = convolution_operations(inputs, kernel, **options)
    for counts, x, w in (
        (found.effective, binary(folded), binary(kernel)),
        (found.dense, jnp.ones_like(folded), jnp.ones_like(kernel)),
    ):
        outputs = convolution(x, w, **options)
        expected = outputs.reshape(3, 2, -1).sum(-1)
        np.testing.assert_array_equal(counts, expected)
    np.testing.assert_array_equal(found.padded, outputs[0, ..., 0].size * kernel.size)
    np.testing.assert_array_equal(found.active, binary(inputs).reshape(3, 2, -1).sum(-1))
    assert set(np.ravel(found.inputs)) == {inputs[0, 0].size}


def test_the_documented_example_of_neurobench():
    """W x with one row per output there, so its transpose here: effective 4, dense 9."""
    weights = jnp.array([[1.3, 0, -3.2], [0, 1.2, -5.1], [-1.1, 2.7, 0]]).T
    found = metrics.operations.synaptic_operations(
        jnp.array([0, 1.3, -1.0]).reshape(1, 1, 3), weights
    )
    assert (int(found.effective[0, 0]), int(found.dense[0, 0])) == (4, 9)
    assert not found.ternary[0, 0]


def test_zero_padding_is_excluded_even_from_dense():
    found = convolution_operations(jnp.ones((1, 1, 5, 5, 2)), jnp.ones((3, 3, 2, 3)))
    # Per axis 3 windows read 3 pixels and the two at the border 2: 13 of 15.
    assert found.dense[0, 0] == found.effective[0, 0] == 13**2 * 6 < found.padded[0, 0]
    assert found.padded[0, 0] == 15**2 * 6


def test_all_to_all_counts_every_place():
    tokens, weights = sparse(2, (2, 3, 5, 4)), sparse(3, (4, 6))
    found = metrics.operations.synaptic_operations(tokens, weights)
    expected = jnp.einsum("tbnc,cd->tb", binary(tokens), binary(weights))
    np.testing.assert_array_equal(found.effective, expected)
    np.testing.assert_array_equal(found.dense, 5 * 4 * 6)
    np.testing.assert_array_equal(found.padded, found.dense)


def test_kinds_of_inputs_per_timestep_and_example():
    inputs = jnp.array([[[0, 1, 0], [0, -1, 1]], [[0, 0, 0], [1, 1, 2.0]]])
    found = metrics.operations.synaptic_operations(inputs, jnp.ones((3, 2)))
    np.testing.assert_array_equal(found.binary, [[True, False], [True, False]])
    # Zeros of a float input count as spikes: a trap of the definition.
    np.testing.assert_array_equal(found.ternary, [[True, True], [True, False]])
    nan = metrics.operations.synaptic_operations(inputs.at[0, 0, 0].set(jnp.nan), jnp.ones((3, 2)))
    assert not nan.binary[0, 0] and not nan.ternary[0, 0]


def test_checksums_tell_values_and_places_apart():
    """The checksum detects moved spikes, signs and permutations; 0 and -0 are equal."""
    size = 2048
    rows = [np.zeros(size), np.ones(size), -np.ones(size), np.arange(size), np.arange(size)[::-1]]
    rows += [np.eye(1, size, place)[0] for place in (0, 1, 256, 512, 1024, 2047)]
    inputs = jnp.asarray(np.stack(rows), jnp.float32)[:, None]
    sums = np.ravel(metrics.operations.synaptic_operations(inputs, jnp.ones((size, 1))).checksum)
    assert len(set(sums.tolist())) == len(rows)
    again = metrics.operations.synaptic_operations(
        inputs * -1.0 * -1.0, jnp.ones((size, 1))
    ).checksum
    np.testing.assert_array_equal(np.ravel(again), sums)
    zeros = jnp.array([0.0, -0.0]).reshape(2, 1, 1)
    minus = np.ravel(metrics.operations.synaptic_operations(zeros, jnp.ones((1, 1))).checksum)
    assert minus[0] == minus[1]


def test_counts_beyond_float32_are_exact():
    """2^24 + 1 active inputs of one weight each: the next float32 is 2^24 + 2."""
    size = 2**24 + 1
    shape = jax.ShapeDtypeStruct((1, 1, size, 1), jnp.float32)
    count = lambda x: metrics.operations.synaptic_operations(x, jnp.ones((1, 1))).effective  # noqa: E731
    assert jax.eval_shape(count, shape).dtype == jnp.uint32
    assert int(jax.jit(lambda: count(jnp.ones((1, 1, size, 1))))()[0, 0]) == size


def test_more_than_can_be_counted_names_the_cure():
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((1, 1, 2**12, 2**10), (2**10, 2**10))]
    with pytest.raises(ValueError, match="smaller frames"):
        jax.eval_shape(metrics.operations.synaptic_operations, *shapes)


def test_dense_operations_by_hand():
    """A window of 3 with stride 2 over 5 places, padded by 1: 2 + 3 + 2 reads."""
    assert dense_operations((3, 1, 1), size=(5,), strides=(2,), padding=((1, 1),)) == 7
    reads = [n for o, t in itertools.product(range(3), range(3)) if 0 <= (n := 2 * o + t - 1) < 5]
    assert len(reads) == 7
