"""Sub-bit kernels: the nearest pattern in float64 NumPy, ties, scales and gradients to the bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax.quantization import sub_bit
from tests.compare import assert_close

KEY = jax.random.key(0)
# Eagerly, each of some twenty operations would be compiled by itself.
nearest = jax.jit(sub_bit.nearest_pattern)
through = jax.jit(sub_bit.straight_through_kernels)
code_of = jax.jit(sub_bit.encode_patterns)
ALL = np.asarray(jax.jit(sub_bit.all_patterns)())


def drawn(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal((*shape, 9), np.float32)


def book(tau, seed=0):
    """Different patterns, in the same order for every number of bits."""
    return ALL[np.random.default_rng(seed).permutation(512)[: 2**tau]]


def test_patterns_are_their_codes():
    assert ALL.shape == (512, 9) and ALL.dtype == np.float32
    assert set(np.unique(ALL)) == {-1.0, 1.0}
    np.testing.assert_array_equal(code_of(ALL), np.arange(512))
    np.testing.assert_array_equal(ALL[0], -1)
    np.testing.assert_array_equal(ALL[4], [-1, -1, 1, -1, -1, -1, -1, -1, -1])


def test_a_codebook_holds_different_patterns():
    draw = jax.jit(
        lambda key: [sub_bit.random_patterns(key, bits_per_kernel=n) for n in range(1, 10)]
    )
    for tau, (one, other) in enumerate(zip(draw(KEY), draw(jax.random.key(1)), strict=True), 1):
        assert one.shape == (2**tau, 9)
        assert len(np.unique(one, axis=0)) == 2**tau
        if tau < 9:
            assert (one != other).any()
        else:
            np.testing.assert_array_equal(one, ALL)


@pytest.mark.parametrize("bits", [0, 10, 5.5, True])
def test_other_numbers_of_bits_are_refused(bits):
    with pytest.raises(ValueError, match="1 to 9 bits"):
        sub_bit.random_patterns(KEY, bits_per_kernel=bits)


def test_kernels_one_by_one_are_the_kernel():
    kernel = jax.random.normal(KEY, (3, 3, 4, 5))
    rows = sub_bit.split_kernels(kernel)
    np.testing.assert_array_equal(rows[2, 3], kernel[:, :, 3, 2].reshape(9))
    np.testing.assert_array_equal(sub_bit.join_kernels(rows), kernel)
    for shape in ((1, 1, 4, 5), (9, 4, 5)):
        with pytest.raises(ValueError, match="3x3 kernels"):
            sub_bit.split_kernels(jnp.zeros(shape))


@pytest.mark.parametrize("tau", [1, 5, 9])
def test_the_nearest_pattern_is_the_nearest(tau):
    kernels, patterns = drawn(40, 7), book(tau)
    w, p = kernels.astype(np.float64), patterns.astype(np.float64)
    distances = np.square(w[..., None, :] - p).sum(-1)
    numbers = nearest(kernels, patterns)
    assert numbers.shape == (40, 7) and numbers.dtype == jnp.int32
    np.testing.assert_array_equal(numbers, distances.argmin(-1))


def test_all_patterns_give_the_signs_whatever_the_floats():
    """Entries too small to change a sum still decide; zero is negative."""
    sizes = 10.0 ** np.random.default_rng(0).integers(-30, 3, (300, 9))
    tiny = (drawn(300) * sizes).astype(np.float32)
    kernels = np.concatenate([tiny, drawn(300), np.zeros((1, 9), np.float32)])
    numbers = nearest(kernels, ALL)
    np.testing.assert_array_equal(ALL[numbers], np.where(kernels > 0, 1, -1))
    assert numbers[-1] == 0


def test_of_equally_near_patterns_the_one_with_more_equal_signs_then_the_first():
    kernel = np.eye(1, 9, dtype=np.float32)[0]
    negative = np.where(kernel > 0, 1, -1).astype(np.float32)  # the signs of w
    mixed = np.where(np.arange(9) == 1, -1, 1).astype(np.float32)
    patterns = np.stack([mixed, negative, negative])
    np.testing.assert_array_equal(patterns @ kernel, 1)
    assert nearest(kernel[None], patterns) == 1
    assert nearest(kernel[None], np.stack([mixed, mixed, -negative])) == 0


def test_large_layers_are_compared_in_blocks_with_the_same_result():
    kernels, patterns = drawn(9000), book(3)
    parts = [nearest(part, patterns) for part in np.split(kernels, 3)]
    np.testing.assert_array_equal(nearest(kernels, patterns), np.concatenate(parts))


def test_the_memory_of_scores_does_not_grow_with_the_layer():
    def temporary(count):
        shapes = (jax.ShapeDtypeStruct((n, 9), jnp.float32) for n in (count, 512))
        return nearest.lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    # Scores of all kernels at once would be 2^15 * 2048 bytes more.
    assert temporary(2**16) - temporary(2**15) <= 2**15 * 9 * 4


def test_the_scale_is_the_mean_and_has_no_gradient():
    graded = jax.jit(jax.value_and_grad(lambda w: jnp.sum(sub_bit.output_scale(w) ** 2)))
    for shape in ((5, 7), (3, 1), (2, 64)):
        kernels = drawn(*shape)
        scale = np.abs(kernels.astype(np.float64)).mean((1, 2))
        assert_close(jax.jit(sub_bit.output_scale)(kernels), scale, 1e-6)
        value, gradient = graded(kernels)
        assert_close(value, np.sum(scale**2), 1e-6)
        np.testing.assert_array_equal(gradient, 0)


def test_the_scale_has_the_same_bits_in_every_program():
    kernel = jax.random.normal(KEY, (3, 3, 33, 17))
    alone = jax.jit(lambda kernel: sub_bit.output_scale(sub_bit.split_kernels(kernel)))(kernel)

    @jax.jit
    def fused(kernel):
        scale = sub_bit.output_scale(sub_bit.split_kernels(kernel * 4) / 4)
        return jnp.exp(scale), scale, jnp.sum(kernel / scale)

    np.testing.assert_array_equal(alone, fused(kernel)[1])


def test_the_gradient_passes_exactly_where_the_latent_kernel_is_within_one():
    above = np.nextafter(np.float32(1), np.float32(2))
    kernel = np.array([1.0, -1.0, above, -above, 0.0, 0.5, -3.0, 1e-20, 0.999], np.float32)
    weights, patterns = jnp.arange(1.0, 10.0), book(4)
    total = lambda w: jnp.sum(weights * through(w, patterns, patterns))  # noqa: E731
    np.testing.assert_array_equal(jax.grad(total)(kernel), [1, 2, 0, 0, 5, 6, 0, 8, 9])


def test_a_latent_pattern_takes_the_gradients_of_the_kernels_that_chose_it():
    kernels, patterns, cotangent = 2 * drawn(30), book(3), drawn(30, seed=2)
    outputs, pull = jax.vjp(through, kernels, patterns, 0.3 * patterns)
    to_kernels, to_patterns, to_latent = pull(cotangent)
    numbers = nearest(kernels, patterns)
    np.testing.assert_array_equal(outputs, patterns[numbers])
    assert set(np.unique(outputs)) == {-1.0, 1.0}  # exactly, unlike `c + (b - c)`
    expected = np.zeros((8, 9))
    np.add.at(expected, np.asarray(numbers), cotangent.astype(np.float64))
    assert_close(to_latent, expected, 1e-6)
    np.testing.assert_array_equal(to_patterns, 0)
    np.testing.assert_array_equal(to_kernels, np.where(np.abs(kernels) <= 1, cotangent, 0))


def test_the_reference_of_the_specification():
    """A matrix product, and `c + stop_gradient(b - c)`, which rounds; with its scale."""
    w, patterns, weights = drawn(6, 5), jnp.asarray(book(5)), drawn(6, 5, seed=3)

    def reference(w):
        actual = patterns[jnp.argmax(w @ patterns.T, -1)]
        scale, clipped = jnp.abs(w).mean((1, 2), keepdims=True), jnp.clip(w, -1, 1)
        return jax.lax.stop_gradient(scale) * (clipped + jax.lax.stop_gradient(actual - clipped))

    def ours(w):
        scale = sub_bit.output_scale(w)[:, None, None]
        return scale * sub_bit.straight_through_kernels(w, patterns, patterns)

    values = [
        jax.jit(jax.value_and_grad(lambda w, f=f: jnp.sum(f(w) * weights)))(w)
        for f in (ours, reference)
    ]
    assert_close(*values, 1e-5)


def test_forward_mode_agrees_with_reverse_mode():
    kernels, patterns = drawn(6), book(2)
    function = lambda w, q: through(w, patterns, q)  # noqa: E731
    at, moved = (kernels, patterns), (drawn(6, seed=4), drawn(4, seed=5))
    value, tangent = jax.jvp(function, at, moved)
    np.testing.assert_array_equal(value, patterns[nearest(kernels, patterns)])
    cotangent = drawn(6, seed=6)
    pulled = jax.vjp(function, *at)[1](cotangent)
    expected = sum(np.vdot(a, b) for a, b in zip(pulled, moved, strict=True))
    assert_close(np.vdot(tangent, cotangent), expected, 1e-5)


def test_random_codebooks_agree_with_the_signs_of_gaussian_kernels():
    """Measured on the released code, one draw each; here the mean over 16 codebooks.

    One codebook of few patterns lies up to some hundredths beside the mean.
    """
    kernels, measured = drawn(1000), {}
    unit = kernels / np.linalg.norm(kernels, axis=-1, keepdims=True)
    many = jax.jit(jax.vmap(sub_bit.nearest_pattern, (None, 0)))
    for tau in (4, 5, 6, 7, 8, 9):
        books = np.stack([book(tau, seed) for seed in range(16 if tau < 9 else 1)])
        chosen = np.stack([b[n] for b, n in zip(books, many(kernels, books), strict=True)])
        agreement = np.mean((chosen > 0) == (kernels > 0))
        measured[tau] = (agreement, np.mean(np.sum(chosen * unit, -1)) / 3)
    agreements, cosines = zip(*measured.values(), strict=True)
    np.testing.assert_allclose(agreements, [0.742, 0.799, 0.843, 0.890, 0.938, 1.0], atol=0.015)
    np.testing.assert_allclose(cosines, [0.556, 0.655, 0.709, 0.760, 0.796, 0.821], atol=0.015)
    assert agreements[-1] == 1
