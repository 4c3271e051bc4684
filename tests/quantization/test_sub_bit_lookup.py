"""Convolution of spikes by look-up: whole numbers, equal to the convolution in float32."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax.quantization import sub_bit, sub_bit_lookup

ALL = np.asarray(jax.jit(sub_bit.all_patterns)())
store = jax.jit(sub_bit_lookup.store_kernels)


def spikes(*shape):
    return (np.random.default_rng(2).random(shape) < 0.4).astype(np.float32)


def stored(tau):
    draw = np.random.default_rng(tau)
    kernel = draw.standard_normal((3, 3, 3, 5), np.float32)
    return store(kernel, ALL[draw.permutation(512)[: 2**tau]])


@functools.partial(jax.jit, static_argnames=("strides", "padding"))
def counted(spikes, kept, *, strides=(1, 1), padding=((1, 1), (1, 1))):
    """By looking up, and by convolving in float32."""
    codes = sub_bit_lookup.patch_codes(spikes, strides=strides, padding=padding)
    layout = ("NHWC", "HWIO", "NHWC")
    convolved = jax.lax.conv_general_dilated(
        spikes, kept.kernel(), strides, padding, dimension_numbers=layout
    )
    return sub_bit_lookup.lookup_counts(codes, kept), convolved


@pytest.mark.parametrize("tau", [1, 5, 9])
def test_the_table_holds_every_product(tau):
    patterns = ALL[np.random.default_rng(tau).permutation(512)[: 2**tau]]
    table = jax.jit(sub_bit_lookup.product_table)(patterns)
    assert table.dtype == jnp.int8 and table.shape == (512, 2**tau)
    np.testing.assert_array_equal(table, (ALL + 1) / 2 @ patterns.T)
    if tau == 5:
        assert table.nbytes == 16_384
    if tau == 9:
        assert (table.min(), table.max()) == (-9, 9)


def test_the_code_of_a_patch_counts_its_places_row_by_row():
    image = np.zeros((1, 3, 3, 2), np.float32)
    image[0, 0, 1, 0] = image[0, 2, 2, 0] = image[0, 1, 0, 1] = 1
    codes = sub_bit_lookup.patch_codes(image, padding=((0, 0), (0, 0)))
    np.testing.assert_array_equal(codes, [[[[2 + 256, 8]]]])


@pytest.mark.parametrize(
    ("tau", "options"),
    [
        (1, {}),
        (5, {}),
        (5, {"strides": (2, 1), "padding": ((0, 1), (1, 2))}),
        (9, {"strides": (2, 2), "padding": ((0, 0), (0, 0))}),
    ],
)
def test_looking_up_is_convolving(tau, options):
    counts, convolved = counted(spikes(2, 7, 6, 3), stored(tau), **options)
    assert counts.dtype == jnp.int32 and counts.any()
    np.testing.assert_array_equal(counts, convolved)


def test_other_channels_are_refused():
    codes = jnp.zeros((1, 4, 4, 2), jnp.int32)
    with pytest.raises(ValueError, match="2 channels cannot pass kernels of 3"):
        sub_bit_lookup.lookup_counts(codes, stored(2))


def test_the_threshold_in_whole_numbers_decides_as_the_float_product_does():
    draw = np.random.default_rng(0)
    scale = np.exp(draw.standard_normal(4000, np.float32) - 2)
    counts = draw.integers(1, 300, 4000)
    exact = counts.astype(np.float32) * scale  # thresholds that a count reaches to the last bit
    integer_threshold = jax.jit(sub_bit_lookup.integer_threshold)
    for threshold in (exact, np.nextafter(exact, np.float32(np.inf)), np.zeros_like(exact)):
        least = np.asarray(integer_threshold(threshold, scale))
        assert least.dtype == np.int32
        assert (least.astype(np.float32) * scale >= threshold).all()
        assert ((least - 1).astype(np.float32) * scale < threshold).all()
    np.testing.assert_array_equal(integer_threshold(exact, scale), counts)


def test_an_integrating_neuron_without_multiplications():
    """Sums of counts against integer thresholds; scales of few bits make the float neuron exact."""
    kept = stored(4)
    scale = np.round(np.asarray(kept.scale) * 64) / np.float32(64)
    counts = np.asarray(counted(spikes(12, 6, 6, 3), kept)[0])
    least = np.asarray(sub_bit_lookup.integer_threshold(jnp.full(5, 1.5), scale))
    whole, real = np.zeros(counts.shape[1:], np.int32), np.zeros(counts.shape[1:], np.float32)
    fired = []
    for count in counts:
        whole, real = whole + count, real + scale * count.astype(np.float32)
        np.testing.assert_array_equal(whole >= least, real >= 1.5)
        fired.append(whole >= least)
        whole, real = np.where(fired[-1], 0, whole), np.where(fired[-1], np.float32(0), real)
    assert 0.05 < np.mean(fired) < 0.95


@pytest.mark.parametrize(("tau", "giga"), [(9, 1.6763), (6, 0.8839), (5, 0.5014), (4, 0.2972)])
def test_operations_of_a_resnet18(tau, giga):
    layers = [(64, 64, 56**2)] * 4
    for width, size in ((128, 28), (256, 14), (512, 7)):
        layers += [(width // 2, width, size**2), *[(width, width, size**2)] * 3]
    actual = sub_bit_lookup.bit_operations(layers, bits_per_kernel=tau)
    assert round(actual / 1e9, 4) == giga
    with pytest.raises(ValueError, match="1 to 9 bits"):
        sub_bit_lookup.bit_operations(layers, bits_per_kernel=12)
