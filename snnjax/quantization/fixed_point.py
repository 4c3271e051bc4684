"""Fixed-point formats and their rounding: values on a grid of step `2^-f`.

    code  = clip(round(value * 2^f), lowest, highest)         value on the grid = code * 2^-f

    unsigned    codes 0 ... 2^(i+f) - 1             values [0, 2^i - 2^-f]         i + f bits
    signed      codes -2^(i+f) ... 2^(i+f) - 1      values [-2^i, 2^i - 2^-f]      1 + i + f bits

`i` is `int_bits` and `f` is `frac_bits`. **The sign bit is not counted in `int_bits`**: signed
8-bit weights in [-1, 1) are `QFormat(0, 7, signed=True)`. The released code of SNN4Agents counts it
and calls the same grid Q1.7. Either number may be negative (`QFormat(-2, 10)` is 8 bits on
[0, 1/4)), as long as at least one bit of magnitude remains.

Rounding is a function:

    truncate      floor(z)                         error in [-step, 0], half a step low on average
    nearest       round(z), ties to the even code  error in [-step/2, step/2]
    stochastic    floor(z) + [u < z - floor(z)]    u uniform on [0, 1): the mean is z itself

Training in fixed point loses small updates: `nearest` discards every update below half a step, and
`truncate` turns any decrease, however small, into a whole step. Spike-timing rules make such
updates: with a step of 2^-8 = 0.0039 a potentiation of 0.0014 has no effect, and a depression of
0.0001 has no effect or 39 times its size. Two remedies: `stochastic` rounding, which preserves
every update on average, or full-precision weights that learn while the network reads their
quantised copy (`straight_through` for gradient training).

References: Putra and Shafique, "FSpiNN: An Optimization Framework for Memory- and Energy-Efficient
Spiking Neural Networks", 2020, arXiv:2007.08860 (fixed-point weights of STDP networks; its format
is our reconstruction); Gupta, Agrawal, Gopalakrishnan, Narayanan, "Deep Learning
with Limited Numerical Precision", 2015, arXiv:1502.02551 (stochastic rounding).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from snnjax.ops.derivative import with_derivative
from snnjax.typing import Array, Key

__all__ = ["QFormat", "nearest", "stochastic", "straight_through", "truncate"]

# float32 represents every integer up to 2^24.
_MAX_BITS = 24


def truncate(values: Array, *, key: Key | None = None) -> Array:
    """Rounds down to an integer, `floor`: toward minus infinity, not toward zero."""
    del key
    return jnp.floor(values)


def nearest(values: Array, *, key: Key | None = None) -> Array:
    """Rounds to the nearest integer, ties to the even one."""
    del key
    return jnp.round(values)


def stochastic(values: Array, *, key: Key | None = None) -> Array:
    """Rounds up or down at random with `E[result] = values`.

        floor(z) + [u < z - floor(z)],    u uniform on [0, 1)

    Integers are unchanged for every draw.

    Args:
        values: Values in steps of the grid, any shape.
        key: Random key; the same key gives the same result.

    Raises:
        ValueError: `key` is None.
    """
    if key is None:
        raise ValueError(
            "stochastic rounding draws a number per value: pass key=jax.random.key(...), a fresh "
            "one every time, or round to nearest"
        )
    below = jnp.floor(values)
    # The fraction is exact, whereas adding the draw to a large value would round again. A draw in
    # bfloat16 would resolve only 256 probabilities.
    wide = values.dtype if jnp.finfo(values.dtype).bits >= 32 else jnp.float32
    fraction = (values - below).astype(wide)
    up = jax.random.uniform(key, values.shape, fraction.dtype) < fraction
    return below + up.astype(values.dtype)


@dataclasses.dataclass(frozen=True)
class QFormat:
    """Fixed-point format of `int_bits + frac_bits` bits of magnitude, and a sign bit if signed.

        code = clip(round(value * 2^frac_bits), lowest, highest),     value = code * 2^-frac_bits

    Attributes:
        int_bits: Bits before the binary point, without the sign bit; may be negative.
        frac_bits: Bits after the binary point; may be negative.
        signed: Two's complement, with one more bit for the sign.
        rounding: `truncate`, `nearest`, `stochastic`, or a function `(values, *, key) -> integers`.
        saturate: Clips values out of range to the bound. Without saturation they stay on the grid
            beyond the range of the bits, as in the released code of SNN4Agents; `to_integers`
            refuses such a format.

    Raises:
        ValueError: The bits of magnitude are not between 1 and 24.

    Example:
        weights = QFormat(0, 8)(weights)                              # 256 levels in [0, 1)
        codes = QFormat(0, 3, signed=True).to_integers(weights)       # int8, -8 ... 7
    """

    int_bits: int
    frac_bits: int
    _: dataclasses.KW_ONLY
    signed: bool = False
    rounding: Callable[..., Array] = nearest
    saturate: bool = True

    def __post_init__(self):
        magnitude = self.int_bits + self.frac_bits
        if not 1 <= magnitude <= _MAX_BITS:
            raise ValueError(
                f"int_bits + frac_bits is {self.int_bits} + {self.frac_bits} = {magnitude}: give 1 "
                f"to {_MAX_BITS}, which float32 holds exactly (the sign bit is not counted)"
            )

    @property
    def bits(self) -> int:
        """Bits per value, including the sign."""
        return self.int_bits + self.frac_bits + self.signed

    @property
    def step(self) -> float:
        """Distance between neighbouring values of the grid, `2^-f`."""
        return 2.0**-self.frac_bits

    @property
    def codes(self) -> tuple[int, int]:
        """Lowest and highest code."""
        span = 2 ** (self.int_bits + self.frac_bits)
        return (-span if self.signed else 0), span - 1

    @property
    def minimum(self) -> float:
        """Smallest value, `-2^i` or 0."""
        return self.codes[0] * self.step

    @property
    def maximum(self) -> float:
        """Largest value, `2^i - 2^-f`."""
        return self.codes[1] * self.step

    @property
    def dtype(self) -> np.dtype[Any]:
        """Smallest integer dtype that holds the codes."""
        width = next(width for width in (8, 16, 32) if width >= self.bits)
        return np.dtype(f"{'' if self.signed else 'u'}int{width}")

    def __call__(self, values: Array, *, key: Key | None = None) -> Array:
        """Rounds values to the grid, keeping their shape and floating-point dtype.

        The derivative is 0 almost everywhere, as for any step function; see `straight_through`.
        With `saturate`, infinities become the bounds; NaN stays NaN.

        Args:
            values: Values of any shape and floating-point dtype.
            key: Random key of stochastic rounding.

        Raises:
            ValueError: Stochastic rounding without a key, or a dtype that cannot hold the grid.
            TypeError: The values are integers.
        """
        return self._round(values, key) * self.step

    def to_integers(self, values: Array, *, key: Key | None = None) -> Array:
        """Rounds values to integer codes of type `dtype`; `from_integers` gives `self(values)`.

        Args:
            values: Floating-point values of any shape, without NaN.
            key: Random key of stochastic rounding.

        Raises:
            ValueError: The format does not saturate, stochastic rounding without a key, or a dtype
                that cannot hold the grid.
            TypeError: The values are integers.
        """
        # A code beyond the bits would wrap around in the integer dtype.
        if not self.saturate:
            raise ValueError(
                f"without saturation a value may need more than {self.bits} bits: "
                "dataclasses.replace(format, saturate=True) has codes"
            )
        return self._round(values, key).astype(self.dtype)

    def from_integers(self, codes: Array, *, dtype: Any = jnp.float32) -> Array:
        """Values of integer codes, `codes * step`."""
        return jnp.asarray(codes).astype(dtype) * self.step

    def _round(self, values: Array, key: Key | None) -> Array:
        """Codes in the floating-point dtype of the values."""
        values = jnp.asarray(values)
        self._check_dtype(values.dtype)
        # The factor is a power of two, hence exact: a value on the grid is not changed.
        codes = self.rounding(values * 2.0**self.frac_bits, key=key)
        return jnp.clip(codes, *map(float, self.codes)) if self.saturate else codes

    def _check_dtype(self, dtype: Any) -> None:
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"values are floating point, got {dtype}: codes go to from_integers")
        precision = jnp.finfo(dtype).nmant + 1  # the leading bit of the mantissa is implicit
        if self.int_bits + self.frac_bits > precision:
            raise ValueError(
                f"{dtype} holds {precision} bits and this format has "
                f"{self.int_bits + self.frac_bits} beside the sign: use float32, or fewer bits"
            )


def straight_through(values: Array, format: QFormat, *, key: Key | None = None) -> Array:
    """Rounds values to a format, with the gradient of the identity inside its range.

        d/dv = 1 where minimum <= v <= maximum, both bounds included, and 0 outside;
               1 everywhere if the format does not saturate

    A value outside the range gets no gradient and cannot return: choose a range that the weights do
    not leave, clip the full-precision weights to it, or use weight decay.

    Args:
        values: Full-precision weights, any shape, floating point.
        format: Fixed-point format.
        key: Random key of stochastic rounding.

    Returns:
        `format(values)`.

    Raises:
        ValueError: Stochastic rounding without a key, or a dtype that cannot hold the grid.
        TypeError: The values are integers.

    Reference:
        Bengio, Leonard, Courville, "Estimating or Propagating Gradients Through Stochastic Neurons
        for Conditional Computation", 2013, arXiv:1308.3432.
    """
    values = jnp.asarray(values)
    fixed = jax.lax.stop_gradient(values)
    quantized = format(fixed, key=key)
    if format.saturate:
        # Not the derivative of jnp.clip, which is 1/2 at the bounds.
        inside = (values >= format.minimum) & (values <= format.maximum)
        values = jnp.where(inside, values, fixed)
    # Not `v + stop_gradient(q - v)`, whose sum rounds and may lie off the grid.
    return with_derivative(quantized, values)
