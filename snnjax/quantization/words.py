"""Packed storage: codes of `b` bits, one after the other, with no bit between them.

    N codes take ceil(b N / 8) bytes: N at 8 bits, two codes per byte at 4, four at 2, eight at 1

Code `k` has the bits `b k ... b k + b - 1` of the stream, lowest first, and bit `j` of the stream
is bit `j mod 8` of byte `j // 8`: of two 4-bit codes the first is in the low half of the byte.
Widths that do not divide 8 run across bytes. Negative codes are kept in two's complement.
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

_MOST_BITS = 16


def pack(codes: Array, bits: int) -> Array:
    """Codes of any shape as bytes.

    Args:
        codes: integers that fit in so many bits, signed or not; of others the high bits are lost.
        bits: per code, 1 to 16.

    Returns:
        uint8, `[ceil(bits N / 8)]`; bits left over in the last byte are 0.

    Raises:
        ValueError: another number of bits.
        TypeError: the codes are no integers.

    Example:
        pack(jnp.array([1, 15, -1]), 4)     # [0xf1, 0x0f]
    """
    _check(bits)
    codes = jnp.asarray(codes)
    if not jnp.issubdtype(codes.dtype, jnp.integer):
        raise TypeError(f"codes are integers, got {codes.dtype}: QFormat.to_integers makes them")
    flat = codes.reshape(-1)
    # Bytes do not shift by 8 and more: the wide ones are shifted before they become bytes.
    places = jnp.arange(bits, dtype=flat.dtype)
    return jnp.packbits(((flat[:, None] >> places) & 1).astype(jnp.uint8), bitorder="little")


def unpack(data: Array, bits: int, *, shape: tuple[int, ...], signed: bool = False) -> Array:
    """The codes that `pack` packed.

    Args:
        data: uint8, `[ceil(bits N / 8)]`.
        bits: per code.
        shape: of the codes, of N elements.
        signed: whether the highest bit is a sign.

    Returns:
        Codes of that shape, of the smallest integer type that holds them: (u)int8 or (u)int16.

    Raises:
        ValueError: another number of bits; the bytes are not those of so many codes.
    """
    _check(bits)
    count = math.prod(shape)
    if data.shape != (_bytes(bits, count),):
        raise ValueError(
            f"{count} codes of {bits} bits are {_bytes(bits, count)} bytes, got {list(data.shape)}"
        )
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
    """Fixed-point values as packed codes; a pytree of one array.

    Attributes:
        data: uint8, the packed codes.
        shape: of the values.
        format: the grid they are on.
        dtype: of the values.
    """

    data: Array
    shape: tuple[int, ...]
    format: QFormat
    dtype: Any = jnp.dtype("float32")

    @classmethod
    def of(cls, values: Array, format: QFormat, *, key: Key | None = None) -> Packed:
        """Rounds values to a format and packs their codes.

        Args:
            values: any shape, floating point.
            format: at most 16 bits.
            key: for stochastic rounding.

        Raises:
            ValueError, TypeError: as `QFormat.to_integers` and `pack`.
        """
        codes = format.to_integers(values, key=key)
        dtype = jnp.asarray(values).dtype
        return cls(pack(codes, format.bits), tuple(codes.shape), format, dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of the packed codes, `ceil(bits N / 8)`."""
        return self.data.nbytes

    def codes(self) -> Array:
        """The codes, integers of this shape."""
        bits, signed = self.format.bits, self.format.signed
        return unpack(self.data, bits, shape=self.shape, signed=signed)

    def values(self) -> Array:
        """The values in their own dtype, `format(values)` of what was packed."""
        return self.format.from_integers(self.codes(), dtype=self.dtype)


def _signed(codes: Array, bits: int) -> Array:
    """Two's complement: the sign bit counts for minus its weight."""
    sign = jnp.asarray(1 << (bits - 1), codes.dtype)
    # Flips the sign bit and subtracts it again, modulo 2^8 or 2^16.
    moved = (codes ^ sign) - sign
    return jax.lax.bitcast_convert_type(moved, jnp.int8 if bits <= 8 else jnp.int16)


def _bytes(bits: int, count: int) -> int:
    return -(-bits * count // 8)


def _check(bits: int) -> None:
    if not isinstance(bits, int | np.integer) or not 1 <= bits <= _MOST_BITS:
        raise ValueError(f"a code has 1 to {_MOST_BITS} bits, got {bits}")
