"""Dyadic grid with exact addition and subtraction of float32 numbers.

    q(x) = round(x * 2^bits) / 2^bits,      dq/dx := 1   (straight through)

Multiples of `2^-bits` below `2^(24 - bits)` in magnitude fit the 24 bits of float32's mantissa, and
so do their sums: `(x + q(f)) - q(f) == x`, bit for bit. A reversible stream on the grid is
reconstructed without error, so no spike can flip between the forward pass and its replay. Off the
grid an error of the last bit can flip a spike, and the flip spreads through batch norm and every
earlier block. Measured on couplings of IF, 3x3 convolution and batch norm, streams
[4, 8, 16, 16, 32] float32, a CPU, jax 0.10.2, seeds 0, 1, 2
(`experiments/benchmarks/floating_stream.py`):

    blocks   bits=None: reconstruction error        cosine of the worst block   bits=12
    32       3.3, 15, 5e-6                          0.997, 0.052, 1.000         exactly 0, 1
    64       3.3, 13, 8.9                           0.996, 0.047, 0.331         exactly 0, 1
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from snnjax.ops.derivative import with_derivative
from snnjax.ops.isolate import isolate
from snnjax.typing import Array, PyTree

__all__ = ["DEFAULT_BITS", "bits_left", "grid_bound", "on_grid", "stream_peak", "with_stream_peak"]

# Streams up to 4,096 are exact, and rounding a branch costs an error of 1.2e-4 at most.
DEFAULT_BITS = 12


def on_grid(x: Array, *, bits: int | None = DEFAULT_BITS) -> Array:
    """Rounds to the nearest multiple of `2^-bits`, with a straight-through gradient.

    Args:
        x: Floating array.
        bits: Binary places of the grid, 1 to 22; None leaves `x` unchanged.

    Returns:
        The rounded values, in at least float32; the error is at most `2^-(bits + 1)`.

    Raises:
        ValueError: `bits` is outside 1 to 22.
    """
    if bits is None:
        return x
    if not 1 <= bits <= 22:
        raise ValueError(
            f"a grid in float32 keeps 1 to 22 binary places, got bits={bits}: 12 is the default"
        )
    # Narrower floats do not have the bits of the grid.
    x = x if x.dtype.itemsize >= 4 else x.astype(jnp.float32)
    return with_derivative(jnp.round(x * 2.0**bits) / 2.0**bits, x)


def grid_bound(*, bits: int = DEFAULT_BITS) -> float:
    """Magnitude below which float32 addition on the grid is exact, `2^(24 - bits)`."""
    return 2.0 ** (24 - bits)


def stream_peak(streams: PyTree) -> Array:
    """Largest magnitude in all arrays of a stream, a scalar, to compare with `grid_bound`."""
    peaks = [jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(streams)]
    return jax.lax.stop_gradient(jnp.max(jnp.stack(peaks)).astype(jnp.float32))


def with_stream_peak(streams: PyTree) -> tuple[PyTree, Array]:
    """Returns the streams and their `stream_peak`, computed before any other use of the streams."""
    # The peak is needed only with the statistics. XLA:CPU would compute it at the end of the
    # program and keep all streams of the forward pass alive until then.
    # Without a gradient, since reverse mode cannot pass through the loop.
    start = (jax.lax.stop_gradient(streams), jnp.zeros((), jnp.float32))
    held, peak = isolate(lambda carry: (carry[0], stream_peak(carry[0])), start)
    return jax.tree.map(with_derivative, held, streams), peak


def bits_left(peak: float, *, bits: int = DEFAULT_BITS) -> float:
    """Binary places between the peak of a stream and `grid_bound`; negative if it is exceeded."""
    return math.log2(grid_bound(bits=bits) / max(float(peak), 2.0**-bits))
