"""Fixed point: numbers on a grid of powers of two, as few bits as they are worth.

    code  = clip(round(value * 2^f), lowest, highest)         value on the grid = code * 2^-f

    unsigned    codes 0 ... 2^(i+f) - 1             values [0, 2^i - 2^-f]         i + f bits
    signed      codes -2^(i+f) ... 2^(i+f) - 1      values [-2^i, 2^i - 2^-f]      1 + i + f bits

`i` is `int_bits` and `f` is `frac_bits`. **The sign bit is not counted in `int_bits`**: signed
8-bit weights in [-1, 1) are `QFormat(0, 7, signed=True)`. The released code of SNN4Agents counts it
and calls the same grid Q1.7. Either number may be negative (`QFormat(-2, 10)` is 8 bits on
[0, 1/4)), as long as one bit of magnitude is left.

Rounding is a function:

    truncate      floor(z)                         error in [-step, 0], half a step low on average
    nearest       round(z), ties to the even code  error in [-step/2, step/2]
    stochastic    floor(z) + [u < z - floor(z)]    u uniform on [0, 1): the mean is z itself

The trap of training in fixed point is the small update: one of less than half a step is lost under
`nearest` every time, and under `truncate` any decrease, however small, costs a whole step. Spike
timing rules live there: with a step of 2^-8 = 0.0039 a potentiation of 0.0014 does nothing, and a
depression of 0.0001 does nothing or 39 times too much. Two cures: `stochastic` rounding, which
keeps every update on average, or full-precision weights that learn while the network reads their
quantised copy (`straight_through` where the learning is by gradient).

References: Putra and Shafique, "FSpiNN: An Optimization Framework for Memory- and Energy-Efficient
Spiking Neural Networks", 2020, arXiv:2007.08860 (fixed-point weights of STDP networks; that its
format is this one is our reconstruction); Gupta, Agrawal, Gopalakrishnan, Narayanan, "Deep Learning
with Limited Numerical Precision", 2015, arXiv:1502.02551 (stochastic rounding).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from snnjax.typing import Array, Key

__all__ = ["QFormat", "nearest", "stochastic", "straight_through", "truncate"]

_MOST_BITS = 24  # whole numbers are exact in float32 up to 2^24


def truncate(values: Array, *, key: Key | None = None) -> Array:
    """The next whole number below, `floor`: toward minus infinity, not toward zero."""
    del key
    return jnp.floor(values)


def nearest(values: Array, *, key: Key | None = None) -> Array:
    """The nearest whole number; a tie goes to the even one."""
    del key
    return jnp.round(values)


def stochastic(values: Array, *, key: Key | None = None) -> Array:
    """One of the two whole numbers around, the nearer one more often: `E[result] = values`.

    Whole numbers stay as they are, whatever is drawn.

    Args:
        values: in steps of the grid.
        key: what is drawn from; the same key gives the same numbers.

    Raises:
        ValueError: there is no key.
    """
    if key is None:
        raise ValueError(
            "stochastic rounding draws a number per value: pass key=jax.random.key(...), a fresh "
            "one every time, or round to nearest"
        )
    below = jnp.floor(values)
    # The rest is exact. Adding the draw to the value instead would round once more where it is
    # large; and a draw in bfloat16 would know 256 probabilities only.
    wide = values.dtype if jnp.finfo(values.dtype).bits >= 32 else jnp.float32
    rest = (values - below).astype(wide)
    up = jax.random.uniform(key, values.shape, rest.dtype) < rest
    return below + up.astype(values.dtype)


@dataclasses.dataclass(frozen=True)
class QFormat:
    """A fixed-point format; see the top of this file for how bits are counted.

    Attributes:
        int_bits: bits in front of the point, without the sign bit; may be negative.
        frac_bits: bits behind the point; may be negative.
        signed: two's complement, one bit more.
        rounding: `truncate`, `nearest`, `stochastic`, or a function `(values, *, key) -> whole
            numbers` of your own.
        saturate: values out of range become the bound. Without it they stay on the grid, beyond
            what the bits can hold, as in the authors' released code: good for comparing with that,
            and refused by `to_integers`.

    Raises:
        ValueError: no bit of magnitude is left, or more than 24.

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
        if not 1 <= magnitude <= _MOST_BITS:
            raise ValueError(
                f"int_bits + frac_bits is {self.int_bits} + {self.frac_bits} = {magnitude}: give 1 "
                f"to {_MOST_BITS}, which float32 holds exactly (the sign bit is not counted)"
            )

    @property
    def bits(self) -> int:
        """Bits per value, with the sign."""
        return self.int_bits + self.frac_bits + self.signed

    @property
    def step(self) -> float:
        """Distance of two values on the grid, `2^-f`."""
        return 2.0**-self.frac_bits

    @property
    def codes(self) -> tuple[int, int]:
        """The lowest and the highest code."""
        span = 2 ** (self.int_bits + self.frac_bits)
        return (-span if self.signed else 0), span - 1

    @property
    def minimum(self) -> float:
        """The smallest value, `-2^i` or 0."""
        return self.codes[0] * self.step

    @property
    def maximum(self) -> float:
        """The largest value, `2^i - 2^-f`."""
        return self.codes[1] * self.step

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest integer type that holds the codes."""
        width = next(width for width in (8, 16, 32) if width >= self.bits)
        return np.dtype(f"{'' if self.signed else 'u'}int{width}")

    def __call__(self, values: Array, *, key: Key | None = None) -> Array:
        """The values on the grid, in their own shape and floating-point dtype.

        Its derivative is 0 almost everywhere, as that of any step; see `straight_through`. Under
        `saturate` infinities become the bounds; NaN stays NaN.

        Args:
            values: any shape, a floating-point dtype.
            key: for stochastic rounding.

        Raises:
            ValueError: stochastic rounding without a key; a dtype that cannot hold the grid.
            TypeError: the values are integers.
        """
        return self._rounded(values, key) * self.step

    def to_integers(self, values: Array, *, key: Key | None = None) -> Array:
        """The codes of values, of type `dtype`; `from_integers` of them is `self(values)`.

        Args:
            values: any shape, floating point and not NaN.
            key: for stochastic rounding.

        Raises:
            ValueError: as when called, or the format does not saturate.
            TypeError: the values are integers.
        """
        if not self.saturate:
            raise ValueError(
                f"without saturation a value may need more than {self.bits} bits: "
                "dataclasses.replace(format, saturate=True) has codes"
            )
        return self._rounded(values, key).astype(self.dtype)

    def from_integers(self, codes: Array, *, dtype: Any = jnp.float32) -> Array:
        """The values that codes stand for, `codes * step`."""
        return jnp.asarray(codes).astype(dtype) * self.step

    def _rounded(self, values: Array, key: Key | None) -> Array:
        values = jnp.asarray(values)
        self._check(values.dtype)
        # Powers of two: exact, so that what is on the grid already stays where it is.
        whole = self.rounding(values * 2.0**self.frac_bits, key=key)
        return jnp.clip(whole, *map(float, self.codes)) if self.saturate else whole

    def _check(self, dtype: Any) -> None:
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"values are floating point, got {dtype}: codes go to from_integers")
        held = jnp.finfo(dtype).nmant + 1
        if self.int_bits + self.frac_bits > held:
            raise ValueError(
                f"{dtype} holds {held} bits and this format has {self.int_bits + self.frac_bits} "
                "beside the sign: use float32, or fewer bits"
            )


def straight_through(values: Array, format: QFormat, *, key: Key | None = None) -> Array:
    """`format(values)`, with the gradient of the identity where nothing saturates.

        d/dv = 1 where minimum <= v <= maximum, both bounds included, and 0 outside;
               1 everywhere if the format does not saturate

    What left the range has no gradient to bring it back: choose a range that the weights do not
    leave, clip the full-precision weights to it, or decay them.

    Args:
        values: any shape, floating point: the full-precision weights that learn.
        format: the grid.
        key: for stochastic rounding.

    Raises:
        ValueError, TypeError: as `QFormat` when called.

    Reference:
        Bengio, Leonard, Courville, "Estimating or Propagating Gradients Through Stochastic Neurons
        for Conditional Computation", 2013, arXiv:1308.3432.
    """
    values = jnp.asarray(values)
    return _through(format, values, jax.lax.stop_gradient(format(values, key=key)))


# A rule of its own, since `v + stop_gradient(q - v)` would leave the grid by rounding.
@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _through(format: QFormat, values: Array, quantized: Array) -> Array:
    del format, values
    return quantized


@_through.defjvp
def _through_jvp(format: QFormat, primals, tangents):
    (values, quantized), (slope, _) = primals, tangents
    if format.saturate:
        inside = (values >= format.minimum) & (values <= format.maximum)
        slope = jnp.where(inside, slope, jnp.zeros_like(slope))
    return quantized, slope
