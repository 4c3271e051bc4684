"""Weights of trained networks on few bits: a scale per output channel, or one for all.

    code = clip(round(w / scale), -2^(b-1), 2^(b-1) - 1)          w on the grid = scale * code

Weights of gradient-trained networks have no range known beforehand, so the grid is fitted to them;
with a scale that is a power of two it is a fixed-point grid, one binary point per channel. Zero is
always on the grid. Two ways to fit:

    "largest"        scale = max|w| / (2^(b-1) - 1): nothing is clipped
    "least_error"    of 80 shares of that scale, the one with the least squared error: it clips a
                     few large weights for a finer step

Of 8 bits any of this will do as a rule. At 4 bits and below it matters, and a smaller error of the
weights is not always a smaller loss of the network: try both (`experiments/quantized_fashion_mnist`
does), and train with the rounding where neither is enough (`nn.Quantized`).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from snnjax.quantization.fixed_point import QFormat, straight_through
from snnjax.quantization.words import Packed
from snnjax.typing import Array

__all__ = ["Quantized", "Quantizer"]

_FITS = ("least_error", "largest")
_PER = ("channel", "tensor")
_SHARES = tuple(1 - 0.01 * k for k in range(80))


@dataclasses.dataclass(frozen=True)
class Quantizer:
    """How to put weights `[..., C]` on `bits` bits; see the top of this file.

    Frozen and comparable: a module may hold one.

    Attributes:
        bits: per weight, 2 to 16, sign included.
        per: one scale per output `"channel"` (the last axis; of a stack over depth, one for the
            channel in all blocks) or one per `"tensor"`.
        fit: `"least_error"` or `"largest"`.
        power_of_two: scales are powers of two (under `"largest"`, the next one above), which are
            stored at one byte instead of four and cost a shift instead of a product.

    Raises:
        ValueError: another number of bits, or an unknown word.

    Example:
        quantizer = Quantizer(4)
        rounded = quantizer(kernel)             # in training: the gradient passes straight through
        stored = quantizer.store(kernel)        # packed: stored.values() is `rounded`
    """

    bits: int
    _: dataclasses.KW_ONLY
    per: str = "channel"
    fit: str = "least_error"
    power_of_two: bool = False

    def __post_init__(self):
        if not 2 <= self.bits <= 16:
            raise ValueError(
                f"a grid with a zero and a sign has 2 to 16 bits, got {self.bits}: at one bit and "
                "below there are quantization.sub_bit's kernels"
            )
        for name, words in (("per", _PER), ("fit", _FITS)):
            if getattr(self, name) not in words:
                raise ValueError(f"{name} must be one of {words}, got {getattr(self, name)!r}")

    @property
    def format(self) -> QFormat:
        """Of the codes: whole numbers of so many bits."""
        return QFormat(self.bits - 1, 0, signed=True)

    def scale(self, values: Array) -> Array:
        """The step fitted to weights `[..., C]`: float32, `[C]` or `[]`; 1 where all are 0.

        No gradient passes through it.
        """
        columns = values.reshape(-1, values.shape[-1] if self.per == "channel" else 1)
        columns = jax.lax.stop_gradient(columns).astype(jnp.float32)
        largest = jnp.max(jnp.abs(columns), axis=0) / (2 ** (self.bits - 1) - 1)
        largest = jnp.where(largest > 0, largest, 1.0)
        found = self._search(columns, largest) if self.fit == "least_error" else self._snap(largest)
        return found if self.per == "channel" else found[0]

    def __call__(self, values: Array) -> Array:
        """The weights on the grid; the gradient is 1 where they are not clipped and 0 where so.

        Args:
            values: `[..., C]`, floating point.

        Returns:
            The same shape and dtype.
        """
        scale = self.scale(values)
        codes = straight_through(values.astype(jnp.float32) / scale, self.format)
        return (codes * scale).astype(values.dtype)

    def store(self, values: Array) -> Quantized:
        """The weights as packed codes and their scales."""
        scale = self.scale(values)
        codes = Packed.of(values.astype(jnp.float32) / scale, self.format)
        if self.power_of_two:
            # 2^e has the mantissa 1/2 and the exponent e + 1.
            scale = (jnp.frexp(scale)[1] - 1).astype(jnp.int8)
        return Quantized(codes, scale, jnp.dtype(values.dtype))

    def _snap(self, scale: Array) -> Array:
        """The next power of two from there on upwards, exactly; float32 ones of an int8 exponent.

        Below 2^-126 there are no normal numbers to divide by.
        """
        if not self.power_of_two:
            return scale
        mantissa, exponent = jnp.frexp(scale)
        exponent = jnp.where(mantissa == 0.5, exponent - 1, exponent)
        return jnp.ldexp(jnp.ones_like(scale), jnp.clip(exponent, -126, 127))

    def _search(self, columns: Array, largest: Array) -> Array:
        """The candidate of each channel whose squared error is the least; the largest of equals."""

        def better(best, share):
            scale = self._snap(largest * share)
            error = jnp.sum(jnp.square(self.format(columns / scale) * scale - columns), axis=0)
            found = (jnp.where(error < best[1], scale, best[0]), jnp.minimum(error, best[1]))
            return found, None

        start = (self._snap(largest), jnp.full_like(largest, jnp.inf))
        shares = jnp.asarray(_SHARES, jnp.float32)
        return jax.lax.scan(better, start, shares)[0][0]


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["codes", "scale"], meta_fields=["dtype"]
)
@dataclasses.dataclass(frozen=True)
class Quantized:
    """Weights as packed codes and scales; a pytree of two arrays, made by `Quantizer.store`.

    Attributes:
        codes: packed, of shape `[..., C]`.
        scale: `[C]` or `[]`; float32, or int8 where it is the exponent of a power of two.
        dtype: of the weights.
    """

    codes: Packed
    scale: Array
    dtype: Any

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales."""
        return self.codes.nbytes + self.scale.nbytes

    def values(self) -> Array:
        """The weights on their grid, `scale * code`, in their own dtype."""
        scale = self.scale
        if scale.dtype == jnp.int8:
            scale = jnp.ldexp(jnp.ones(scale.shape, jnp.float32), scale.astype(jnp.int32))
        return (self.codes.values() * scale).astype(self.dtype)
