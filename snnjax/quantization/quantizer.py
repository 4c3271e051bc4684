"""Weight quantizer: few bits per weight with a fitted scale per output channel or per tensor.

    code = clip(round(w / scale), -2^(b-1), 2^(b-1) - 1)          rounded weight = scale * code

The range of weights trained by gradient is not known beforehand, so the scale is fitted to them. A
scale that is a power of two gives a fixed-point grid with one binary point per channel. Zero is
always on the grid. Two ways to fit:

    "largest"        scale = max|w| / (2^(b-1) - 1): nothing is clipped
    "least_error"    of 80 fractions of that scale, the one with the least squared error: a few
                     large weights are clipped for a finer step

At 8 bits either fit is usually enough. At 4 bits and below the choice matters, and a smaller error
of the weights does not always mean a smaller loss of the network: try both (as
`experiments/quantized_fashion_mnist` does), and train with the rounding if neither is enough
(`nn.Quantized`).
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
# Candidates of "least_error": 1, 0.99, ..., 0.21 of the scale that clips nothing.
_FRACTIONS = tuple(1 - 0.01 * k for k in range(80))


@dataclasses.dataclass(frozen=True)
class Quantizer:
    """Quantizer of weights `[..., C]` to `bits` bits with a fitted scale.

        code = clip(round(w / scale), -2^(b-1), 2^(b-1) - 1),     rounded weight = scale * code

    Frozen and comparable, so that a module may hold one.

    Attributes:
        bits: Bits per weight, 2 to 16, including the sign.
        per: One scale per output `"channel"` (the last axis; in a stack over depth one scale for
            the channel in all blocks) or one per `"tensor"`.
        fit: Fit of the scale, `"least_error"` or `"largest"`.
        power_of_two: Restricts scales to powers of two (the next larger one with `"largest"`),
            which are stored in one byte instead of four and applied by a shift.

    Raises:
        ValueError: `bits` is out of range, or `per` or `fit` is unknown.

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
        """Format of the codes: signed integers of `bits` bits."""
        return QFormat(self.bits - 1, 0, signed=True)

    def scale(self, values: Array) -> Array:
        """Fits the scale of weights `[..., C]`.

        Args:
            values: Weights, floating point.

        Returns:
            The scale, float32, `[C]` or `[]`, without a gradient; 1 where all weights are 0.
        """
        # Per tensor there is one column, so that both cases reduce over axis 0.
        columns = values.reshape(-1, values.shape[-1] if self.per == "channel" else 1)
        columns = jax.lax.stop_gradient(columns).astype(jnp.float32)
        # By the largest positive code: the negative range has one more, and +max|w| must not clip.
        largest = jnp.max(jnp.abs(columns), axis=0) / (2 ** (self.bits - 1) - 1)
        # A scale of 0 would make the codes of a dead channel NaN.
        largest = jnp.where(largest > 0, largest, 1.0)
        scale = self._search(columns, largest) if self.fit == "least_error" else self._snap(largest)
        return scale if self.per == "channel" else scale[0]

    def __call__(self, values: Array) -> Array:
        """Rounds weights to the grid; the gradient is 1 inside the range of the codes, 0 outside.

        Args:
            values: Weights `[..., C]`, floating point.

        Returns:
            The rounded weights, of the same shape and dtype.
        """
        scale = self.scale(values)
        # In float32: a 16-bit quotient would be rounded once before the code is.
        codes = straight_through(values.astype(jnp.float32) / scale, self.format)
        return (codes * scale).astype(values.dtype)

    def store(self, values: Array) -> Quantized:
        """Packs weights `[..., C]` as codes and scales."""
        scale = self.scale(values)
        codes = Packed.from_values(values.astype(jnp.float32) / scale, self.format)
        if self.power_of_two:
            # frexp(2^e) is mantissa 1/2 and exponent e + 1.
            scale = (jnp.frexp(scale)[1] - 1).astype(jnp.int8)
        return Quantized(codes, scale, jnp.dtype(values.dtype))

    def _snap(self, scale: Array) -> Array:
        """Rounds scales up to a power of two whose exponent fits int8."""
        if not self.power_of_two:
            return scale
        # By exponents, because exp2(ceil(log2(x))) is not exact.
        mantissa, exponent = jnp.frexp(scale)
        exponent = jnp.where(mantissa == 0.5, exponent - 1, exponent)
        # Below 2^-126 float32 has no normal numbers to divide by.
        return jnp.ldexp(jnp.ones_like(scale), jnp.clip(exponent, -126, 127))

    def _search(self, columns: Array, largest: Array) -> Array:
        """Scale of least squared error for each channel; the largest of equally good ones."""

        def keep_better(best, fraction):
            scale = self._snap(largest * fraction)
            error = jnp.sum(jnp.square(self.format(columns / scale) * scale - columns), axis=0)
            # Strictly better only: the fractions fall, so the largest scale wins ties.
            best = (jnp.where(error < best[1], scale, best[0]), jnp.minimum(error, best[1]))
            return best, None

        start = (self._snap(largest), jnp.full_like(largest, jnp.inf))
        fractions = jnp.asarray(_FRACTIONS, jnp.float32)
        # A scan, not vmap: 80 rounded copies of the weights would be alive at once.
        return jax.lax.scan(keep_better, start, fractions)[0][0]


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["codes", "scale"], meta_fields=["dtype"]
)
@dataclasses.dataclass(frozen=True)
class Quantized:
    """Packed codes and scales of weights; a pytree of two arrays, made by `Quantizer.store`.

    Attributes:
        codes: Packed codes, of shape `[..., C]`.
        scale: Scales, `[C]` or `[]`: float32, or the int8 exponent of a power of two.
        dtype: Dtype of the weights.
    """

    codes: Packed
    scale: Array
    dtype: Any

    @property
    def nbytes(self) -> int:
        """Bytes of the packed codes and the scales."""
        return self.codes.nbytes + self.scale.nbytes

    def values(self) -> Array:
        """Rounded weights, `scale * code`, in the dtype of the weights."""
        scale = self.scale
        if scale.dtype == jnp.int8:
            # ldexp is exact, exp2 is not.
            scale = jnp.ldexp(jnp.ones(scale.shape, jnp.float32), scale.astype(jnp.int32))
        return (self.codes.values() * scale).astype(self.dtype)
