"""A dyadic grid on which addition and subtraction of float32 numbers are exact.

    q(x) = round(x * 2^bits) / 2^bits,      dq/dx := 1   (straight through)

Multiples of `2^-bits` below `2^(24 - bits)` in magnitude fit float32's 24 bits of mantissa, and so
do their sums: `(x + q(f)) - q(f) == x`, bit for bit. A reversible stream on the grid is rebuilt
without error, so no spike can flip between the forward pass and its replay. Off the grid a last-bit
error that crosses a threshold flips a spike, and the flip spreads through batch norm and every
earlier block. Measured on couplings of IF, 3x3 convolution and batch norm, streams [4, 8, 16, 16,
32] float32, a CPU, jax 0.10.2, seeds 0, 1, 2 (`experiments/benchmarks/floating_stream.py`):

    blocks   bits=None: error of a rebuilt stream   cosine of the worst block   bits=12
    32       3.3, 15, 5e-6                          0.997, 0.052, 1.000         exactly 0, 1
    64       3.3, 13, 8.9                           0.996, 0.047, 0.331         exactly 0, 1
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

from snnjax.ops import isolate
from snnjax.typing import Array, PyTree

__all__ = ["DEFAULT_BITS", "bits_left", "grid_bound", "on_grid", "stream_peak", "watched"]

DEFAULT_BITS = 12


def on_grid(x: Array, *, bits: int | None = DEFAULT_BITS) -> Array:
    """Rounds to the nearest multiple of `2^-bits`, with a straight-through gradient.

    Args:
        x: any float array; the result is at least float32, since no narrower float has the
            bits.
        bits: binary places kept, 1 to 22; None leaves `x` as it is.

    Returns:
        The rounded values; the error is at most `2^-(bits + 1)`.

    Raises:
        ValueError: `bits` is outside 1 to 22.
    """
    if bits is None:
        return x
    if not 1 <= bits <= 22:
        raise ValueError(f"a grid in float32 keeps 1 to 22 binary places, got bits={bits}")
    return _round(bits, x if x.dtype.itemsize >= 4 else x.astype(jnp.float32))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _round(bits: int, x: Array) -> Array:
    return jnp.round(x * 2.0**bits) / 2.0**bits


@_round.defjvp
def _round_jvp(bits, primals, tangents):
    return _round(bits, *primals), tangents[0]


def grid_bound(*, bits: int = DEFAULT_BITS) -> float:
    """The magnitude below which float32 addition on the grid is exact: `2^(24 - bits)`."""
    return 2.0 ** (24 - bits)


def stream_peak(streams: PyTree) -> Array:
    """Largest magnitude in any array of a stream, a scalar; compare it with `grid_bound`."""
    peaks = [jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(streams)]
    return jax.lax.stop_gradient(jnp.max(jnp.stack(peaks)).astype(jnp.float32))


@jax.custom_jvp
def watched(streams: PyTree) -> tuple[PyTree, Array]:
    """The streams, and their `stream_peak` as it is found before anybody else reads them.

    On a CPU the peak alone, which only leaves with the statistics, would be put off to the end of
    the program and hold all streams of the forward pass alive until then.
    """
    return isolate(lambda carry: (carry[0], stream_peak(carry[0])), (streams, jnp.zeros(())))


@watched.defjvp
def _watched_jvp(primals, tangents):
    return watched(*primals), (tangents[0], jnp.zeros(()))


def bits_left(peak: float, *, bits: int = DEFAULT_BITS) -> float:
    """Binary places between a stream's peak and the bound; negative once exactness is lost."""
    return math.log2(grid_bound(bits=bits) / max(float(peak), 2.0**-bits))
