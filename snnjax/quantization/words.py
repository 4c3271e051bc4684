"""Packed words: codes of `b` bits stored contiguously in bytes.

    N codes take ceil(b N / 8) bytes: one code per byte at 8 bits, two at 4, four at 2, eight at 1

Code `k` occupies the bits `b k ... b k + b - 1` of the stream, lowest first, and bit `j` of the
stream is bit `j mod 8` of byte `j // 8`: the first of two 4-bit codes is the low half of the byte.
Widths that do not divide 8 cross byte boundaries. Negative codes are stored in two's complement.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from snnjax.quantization.fixed_point import QFormat
from snnjax.typing import Array, Key

__all__ = ["Packed", "pack", "unpack"]

# `unpack` assembles a code in uint16 at most.
_MAX_BITS = 16


def pack(codes: Array, bits: int) -> Array:
    """Packs codes of any shape into bytes.

    Args:
        codes: Integers of `bits` bits, signed or unsigned; higher bits are dropped.
        bits: Bits per code, 1 to 16.

    Returns:
        Packed codes, uint8, `[ceil(bits N / 8)]`; unused bits of the last byte are 0.

    Raises:
        ValueError: `bits` is out of range.
        TypeError: The codes are not integers.

    Example:
        pack(jnp.array([1, 15, -1]), 4)     # [0xf1, 0x0f]
    """
    _check(bits)
    codes = jnp.asarray(codes)
    if not jnp.issubdtype(codes.dtype, jnp.integer):
        raise TypeError(f"codes are integers, got {codes.dtype}: QFormat.to_integers makes them")
    flat = codes.reshape(-1)
    # Shift in the dtype of the codes: a uint8 cannot be shifted by 8 bits or more.
    places = jnp.arange(bits, dtype=flat.dtype)
    return jnp.packbits(((flat[:, None] >> places) & 1).astype(jnp.uint8), bitorder="little")


def unpack(data: Array, bits: int, *, shape: tuple[int, ...], signed: bool = False) -> Array:
    """Unpacks codes that `pack` packed.

    Args:
        data: Packed codes, uint8, `[ceil(bits N / 8)]`.
        bits: Bits per code, 1 to 16.
        shape: Shape of the codes, with N elements.
        signed: Reads the highest bit of a code as its sign.

    Returns:
        Codes of the given shape in the smallest integer dtype that holds them: (u)int8 or
        (u)int16.

    Raises:
        ValueError: `bits` is out of range, or the number of bytes does not fit the shape.
    """
    _check(bits)
    count = math.prod(shape)
    if data.shape != (_bytes(bits, count),):
        raise ValueError(
            f"{count} codes of {bits} bits are {_bytes(bits, count)} bytes, got {list(data.shape)}:"
            " give the shape and bits that were packed"
        )
    # The smallest dtype that holds a code: unpacked codes take one byte where they fit.
    wide = jnp.uint8 if bits <= 8 else jnp.uint16
    stream = jnp.unpackbits(data, count=bits * count, bitorder="little").reshape(count, bits)
    places = jnp.arange(bits, dtype=wide)
    codes = jnp.sum(stream.astype(wide) << places, axis=1, dtype=wide).reshape(shape)
    return _signed(codes, bits) if signed else codes


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["data"], meta_fields=["shape", "format", "dtype"]
)
@dataclasses.dataclass(frozen=True)
class Packed:
    """Packed codes of fixed-point values; a pytree of one array.

    Attributes:
        data: Packed codes, uint8.
        shape: Shape of the values.
        format: Fixed-point format of the values.
        dtype: Floating-point dtype of the values.
    """

    data: Array
    shape: tuple[int, ...]
    format: QFormat
    dtype: Any = jnp.dtype("float32")

    @classmethod
    def from_values(cls, values: Array, format: QFormat, *, key: Key | None = None) -> Packed:
        """Rounds values to a format and packs their codes.

        Args:
            values: Values of any shape, floating point.
            format: Format of at most 16 bits that saturates.
            key: Random key of stochastic rounding.

        Raises:
            ValueError: The format has more than 16 bits or does not saturate, or stochastic
                rounding without a key.
            TypeError: The values are integers.
        """
        codes = format.to_integers(values, key=key)
        dtype = jnp.asarray(values).dtype
        return cls(pack(codes, format.bits), tuple(codes.shape), format, dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of the packed codes, `ceil(bits N / 8)`."""
        return self.data.nbytes

    def codes(self) -> Array:
        """Unpacked codes, integers of the shape of the values."""
        bits, signed = self.format.bits, self.format.signed
        return unpack(self.data, bits, shape=self.shape, signed=signed)

    def values(self) -> Array:
        """Unpacked values on the grid of the format, in `dtype`."""
        return self.format.from_integers(self.codes(), dtype=self.dtype)


def _signed(codes: Array, bits: int) -> Array:
    """Reinterprets unsigned codes of `bits` bits as two's complement."""
    sign = jnp.asarray(1 << (bits - 1), codes.dtype)
    # (c ^ sign) - sign, modulo 2^8 or 2^16, copies the sign bit into all higher bits.
    extended = (codes ^ sign) - sign
    return jax.lax.bitcast_convert_type(extended, jnp.int8 if bits <= 8 else jnp.int16)


def _bytes(bits: int, count: int) -> int:
    # Rounded up to whole bytes.
    return -(-bits * count // 8)


def _check(bits: int) -> None:
    if not isinstance(bits, int | np.integer) or not 1 <= bits <= _MAX_BITS:
        raise ValueError(f"a code has 1 to {_MAX_BITS} bits, got {bits}: choose bits in that range")
