"""Stored sub-bit kernels: bytes to the byte, round trips, the parameters of the paper's table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax.quantization import sub_bit, sub_bit_lookup
from snnjax.quantization.sub_bit_lookup import index_bits


def test_misfits_are_refused():
    with pytest.raises(ValueError, match="2\\^tau patterns, got 6"):
        sub_bit_lookup.store_kernels(jnp.zeros((3, 3, 2, 2)), jnp.ones((6, 9)))
    with pytest.raises(ValueError, match="1 to 9 bits"):
        sub_bit_lookup.store_kernels(jnp.zeros((3, 3, 2, 2)), jnp.ones((1024, 9)))
    with pytest.raises(ValueError, match="3x3 kernels"):
        sub_bit_lookup.store_kernels(jnp.zeros((1, 1, 2, 2)), sub_bit.all_patterns())


ALL = np.asarray(jax.jit(sub_bit.all_patterns)())


@jax.jit
def examined(kernel, patterns):
    """The stored form, what it holds, and what it should hold."""
    kept = sub_bit_lookup.store_kernels(kernel, patterns)
    rows = sub_bit.split_kernels(kernel)
    numbers = sub_bit.nearest_pattern(rows, patterns)
    actual = kept.pattern_indices(), kept.patterns(), kept.kernel(), kept.scale
    kernel = sub_bit.join_kernels(patterns[numbers])
    return kept, actual, (numbers, patterns, kernel, sub_bit.output_scale(rows))


def stored(tau, channels, outputs):
    draw = np.random.default_rng(tau)
    kernel = draw.standard_normal((3, 3, channels, outputs), np.float32)
    return examined(kernel, jnp.asarray(ALL[draw.permutation(512)[: 2**tau]]))


@pytest.mark.parametrize("tau", [1, 2, 3, 5, 7, 9])
def test_bytes_are_the_formula_and_the_kernel_comes_back(tau):
    kept, actual, expected = stored(tau, 3, 5)
    assert kept.nbytes == -(-tau * 15 // 8) + -(-9 * 2**tau // 8) + 4 * 5
    assert kept.nbytes == sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(kept))
    assert (kept.channels, kept.bits_per_kernel) == (3, tau)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(np.unique(sub_bit.split_kernels(actual[2]).reshape(-1, 9), axis=0)) <= 2**tau


def test_a_layer_of_the_specification():
    """From 64 to 128 channels at 0.56 bit: 5,120 + 36 + 512 bytes; float32 takes 294,912."""
    kept, actual, _ = stored(5, 64, 128)
    assert (kept.indices.nbytes, kept.codebook.nbytes, kept.scale.nbytes) == (5120, 36, 512)
    assert actual[2].nbytes == 294_912
    assert index_bits(64 * 128, bits_per_kernel=9) // 8 == 9216


def test_equal_layers_are_stored_in_equal_trees():
    assert jax.tree.structure(stored(5, 3, 5)[0]) == jax.tree.structure(stored(5, 3, 5)[0])
    assert jax.tree.structure(stored(5, 3, 5)[0]) != jax.tree.structure(stored(3, 3, 5)[0])


@pytest.mark.parametrize(
    ("tau", "megabits"), [(9, 10.985472), (6, 7.323648), (5, 6.103040), (4, 4.882432)]
)
def test_parameters_of_a_resnet18(tau, megabits):
    pairs = [(64, 64)] * 4
    for width in (128, 256, 512):
        pairs += [(width // 2, width), *[(width, width)] * 3]
    kernels = sum(channels * outputs for channels, outputs in pairs)
    assert kernels == 1_220_608
    assert index_bits(kernels, bits_per_kernel=tau) == round(megabits * 1e6)
    with pytest.raises(ValueError, match="1 to 9 bits"):
        index_bits(kernels, bits_per_kernel=0)
