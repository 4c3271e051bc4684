"""Packing: byte-exact, the same codes again, whatever their width."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax.quantization import QFormat
from snnjax.quantization.fixed_point import stochastic
from snnjax.quantization.words import Packed, pack, unpack

WIDTHS = [1, 4, 5, 8, 9, 16]


def some(bits, signed, count):
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
    dtype = f"{'' if signed else 'u'}int{8 if bits <= 8 else 16}"
    return np.random.default_rng(bits).integers(low, high, count).astype(dtype)


@functools.partial(jax.jit, static_argnums=(1, 2))
def both(codes, bits, signed):
    data = pack(codes, bits)
    return data, unpack(data, bits, shape=codes.shape, signed=signed)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", WIDTHS)
def test_the_same_codes_come_back_from_as_few_bytes_as_there_can_be(bits, signed):
    for shape in ((3, 7), (8,), (1,), (), (0,)) if bits == 4 else ((3, 7),):
        codes = some(bits, signed, shape)
        data, again = both(jnp.asarray(codes), bits, signed)
        assert data.dtype == jnp.uint8
        assert data.nbytes == -(-bits * codes.size // 8)
        assert again.dtype == codes.dtype and again.shape == shape
        np.testing.assert_array_equal(again, codes)


@pytest.mark.parametrize("bits", WIDTHS)
def test_the_layout_is_the_documented_one(bits):
    """Against a stream of bits made by whole numbers of any length."""
    codes = some(bits, False, 11)
    stream = sum(int(code) << (bits * k) for k, code in enumerate(codes))
    expected = stream.to_bytes(-(-bits * len(codes) // 8), "little")
    assert bytes(np.asarray(both(jnp.asarray(codes), bits, False)[0])) == expected


def test_two_codes_in_a_byte():
    np.testing.assert_array_equal(pack(jnp.array([1, 15, -1], jnp.int8), 4), [0xF1, 0x0F])
    np.testing.assert_array_equal(
        unpack(jnp.array([0xF1, 0x0F], jnp.uint8), 4, shape=(3,), signed=True), [1, -1, -1]
    )


def test_inside_jit_and_vmap():
    codes = jnp.asarray(some(4, True, (2, 5)))
    packed = jax.jit(lambda c: pack(c, 4))(codes)
    again = jax.jit(lambda d: unpack(d, 4, shape=(2, 5), signed=True))(packed)
    np.testing.assert_array_equal(again, codes)
    rows = jax.vmap(lambda c: pack(c, 4))(codes)
    assert rows.shape == (2, 3)


def test_values_that_are_no_codes_are_refused():
    with pytest.raises(ValueError, match="1 to 16 bits, got 17"):
        pack(jnp.arange(3), 17)
    with pytest.raises(TypeError, match="to_integers"):
        pack(jnp.ones(3), 4)
    with pytest.raises(ValueError, match="5 codes of 4 bits are 3 bytes"):
        unpack(jnp.zeros(2, jnp.uint8), 4, shape=(5,))


FORMATS = [QFormat(0, 8), QFormat(0, 3, signed=True), QFormat(1, 8), QFormat(3, 0, signed=True)]


@pytest.mark.parametrize("format", FORMATS, ids=lambda f: f"{f.int_bits}.{f.frac_bits}")
def test_packed_values_are_the_rounded_ones(format):
    values = jax.random.normal(jax.random.key(0), (5, 3))
    packed = Packed.from_values(values, format)
    np.testing.assert_array_equal(packed.values(), format(values))
    np.testing.assert_array_equal(packed.codes(), format.to_integers(values))
    assert packed.nbytes == packed.data.nbytes == -(-format.bits * 15 // 8)


def test_packed_values_have_their_dtype_again():
    values = jnp.linspace(0, 1, 9).astype(jnp.bfloat16)
    again = Packed.from_values(values, QFormat(0, 8)).values()
    assert again.dtype == jnp.bfloat16
    np.testing.assert_array_equal(again, QFormat(0, 8)(values))


def test_packed_draws_where_the_format_does():
    format = QFormat(0, 4, rounding=stochastic)
    values, key = jax.random.uniform(jax.random.key(0), (50,)), jax.random.key(1)
    np.testing.assert_array_equal(
        Packed.from_values(values, format, key=key).values(), format(values, key=key)
    )
    with pytest.raises(ValueError, match="key"):
        Packed.from_values(values, format)


def test_packed_is_a_pytree_of_one_array():
    packed = Packed.from_values(jnp.linspace(0, 1, 9), QFormat(0, 4))
    (data,) = jax.tree.leaves(packed)
    assert data.dtype == jnp.uint8 and data.shape == (5,)
    values = jax.jit(lambda p: p.values())(packed)
    np.testing.assert_array_equal(values, packed.values())
