"""One scale for the weights and the membrane of a layer, so that its arithmetic is on integers.

With `b` bits, `n = 2^(b-1) - 1` and a learned `beta > 0` per layer, weights and membrane are whole
numbers of steps `beta / n`:

    k(x)   = round(n clip(tanh(x) / beta, -1, 1))          the code of x, in -n ... n
    h[t]   = decay m[t-1] + sum_i k(w_i) s_i[t]            in steps, as everything here
    s[t]   = [h[t] >= theta],   theta = n threshold / beta
    m[t]   = k((beta / n) (h[t] - s[t] theta))             membrane after leak, spike and soft reset

Inputs are spikes, so a current is a sum of codes: the scale is needed nowhere but in the code of
the membrane. Where the decay is a power of two, `2^-p`, all of it is integer arithmetic
(`integer_form`), and the spikes are the same, bit for bit:

    H = 2^p h = m + 2^p K,   s = [H >= ceil(2^p theta)],   m = -n + sum_j [H >= table_s[j]]

The code of a membrane is a staircase of `2 n` steps in `H`, one staircase for neurons that fired
and one for those that did not; the two tables say where it rises. The tanh is inside of them.

The rounding function, one `beta` for weights and membrane, its start and the comparison with the
rounded-up threshold are those of the method's released code; it applies the tanh to the membrane as
well, and so does this. That `theta` is counted in steps of `beta / n` on `2^p` finer membranes, and
the tables, are our reconstruction: they make the integer form exact.

Reference: Yin, Moitra, Bhattacharjee, Kim, Panda, "MINT: Multiplier-less INTeger Quantization for
Energy Efficient Spiking Neural Networks", 2023, arXiv:2305.09850.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from snnjax.quantization.fixed_point import QFormat, straight_through
from snnjax.surrogate import Surrogate, triangle
from snnjax.typing import Array

__all__ = [
    "IntegerParams",
    "SharedScaleParams",
    "SharedScaleState",
    "initial_beta",
    "integer_form",
    "integer_lif",
    "levels",
    "shared_codes",
    "shared_scale_lif",
]


class SharedScaleParams(NamedTuple):
    """Parameters of `shared_scale_lif`.

    Attributes:
        beta: the largest value that weights and membrane (behind tanh) reach, above 0, a scalar.
        decay: of the membrane per timestep, in (0, 1].
        threshold: in the unit of the membrane potential, before it is counted in steps.
    """

    beta: Array
    decay: Array | float
    threshold: Array | float


class SharedScaleState(NamedTuple):
    """State of `shared_scale_lif`: codes `v` of the membrane, `[B, ...]`, whole numbers."""

    v: Array


def levels(bits: int) -> int:
    """`n`: codes run from `-n` to `n`.

    Raises:
        ValueError: fewer than 2 bits, which leave no level, or more than 8.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"codes -n ... n have 2 to 8 bits, got {bits}")
    return 2 ** (bits - 1) - 1


def initial_beta(weights: Array, *, bits: int) -> Array:
    """Where `beta` starts: `2 mean|w| / sqrt(n)`, made for few bits: at 8 it clips most weights."""
    return 2 * jnp.mean(jnp.abs(weights)) / math.sqrt(levels(bits))


def shared_codes(values: Array, beta: Array, *, bits: int) -> Array:
    """The codes `k(values)`, whole numbers in the dtype of the values.

    The gradient passes through the rounding, and through the clip where it is not at work, bounds
    included; it reaches `beta` as well, as that of a learned step does.

    Args:
        values: weights or membrane potentials, any shape.
        beta: a scalar.
        bits: 2 to 8.
    """
    n = levels(bits)
    z = n * jnp.tanh(values) / beta
    # Not jnp.clip, whose gradient at the bounds is 1/2.
    clipped = jnp.where(z > n, float(n), jnp.where(z < -n, float(-n), z))
    return straight_through(clipped, QFormat(bits - 1, 0, signed=True))


def shared_scale_lif(
    params: SharedScaleParams,
    state: SharedScaleState,
    current: Array,
    *,
    bits: int,
    spike: Surrogate = triangle(alpha=1.0),  # noqa: B008 (frozen)
) -> tuple[SharedScaleState, Array]:
    """One timestep of the neurons above.

    Args:
        params: `beta`, `decay` and `threshold`.
        state: codes of the membrane, `[B, ...]`.
        current: sums of codes, `[B, ...]`: exact, whatever their order, below `2^24`.
        bits: of the codes.
        spike: the spike function, of the membrane minus its threshold in the unit of the
            potential; the default's slope is `max(0, 1 - |u|)`.

    Returns:
        The new state and the spikes, 0 or 1, `[B, ...]`.
    """
    step = params.beta / levels(bits)
    h = params.decay * state.v + current
    # The sign of this product is that of `h - theta`, which is exact: integers agree with it.
    spikes = spike((h - params.threshold / step) * step)
    return SharedScaleState(_membrane(params, h, spikes, bits)), spikes


class IntegerParams(NamedTuple):
    """What `integer_lif` compares with; int32.

    Attributes:
        shift: `p` of the decay `2^-p`, a scalar.
        threshold: `ceil(2^p theta)`, a scalar.
        tables: where the membrane's code rises, `[2, 2 n]`: of neurons that did not fire, and of
            those that did.
    """

    shift: Array
    threshold: Array
    tables: Array


def integer_form(params: SharedScaleParams, *, bits: int, largest: int) -> IntegerParams:
    """The thresholds of the integer form; made once, on concrete numbers.

    Args:
        params: of the trained layer; a decay of 1, 1/2, 1/4, ...
        bits: of the codes.
        largest: the largest current that can come, such as the largest sum of `|k(w)|` into one
            neuron. The tables take `O(2^p largest)` to make and `4 n` numbers to keep.

    Raises:
        ValueError: the decay is no power of two; currents do not fit float32's whole numbers.
    """
    mantissa, exponent = math.frexp(float(params.decay))
    if mantissa != 0.5 or exponent > 1:
        raise ValueError(
            f"a decay of {float(params.decay)} is no shift of an integer: choose 1, 1/2, 1/4, ..."
        )
    n, shift = levels(bits), 1 - exponent
    most = n + (largest << shift)
    if most >= 2**24:
        raise ValueError(
            f"currents up to {largest} at a decay of 2^-{shift} leave the 2^24 whole numbers that "
            "float32 adds exactly: fewer bits, or fewer inputs"
        )
    every = np.arange(-most, most + 1, dtype=np.int32)
    h = jnp.asarray(every * np.float32(2.0**-shift))
    codes = [np.asarray(_membrane(params, h, jnp.full_like(h, s), bits), np.int32) for s in (0, 1)]
    theta = params.threshold / (params.beta / n)
    return IntegerParams(
        jnp.asarray(shift, jnp.int32),
        jnp.ceil(theta * 2.0**shift).astype(jnp.int32),
        jnp.asarray(np.stack([_rises(own, every, n) for own in codes])),
    )


def integer_lif(params: IntegerParams, state: Array, current: Array) -> tuple[Array, Array]:
    """One timestep in integers: additions, shifts and comparisons.

    Args:
        params: from `integer_form`.
        state: codes of the membrane, int32, `[B, ...]`.
        current: sums of codes of weights, int32, `[B, ...]`.

    Returns:
        The new codes, and the spikes as int32, `[B, ...]`: those of `shared_scale_lif`.
    """
    h = state + jax.lax.shift_left(current, jnp.broadcast_to(params.shift, current.shape))
    spikes = (h >= params.threshold).astype(jnp.int32)
    silent, fired = (
        jnp.searchsorted(table, h, side="right").astype(jnp.int32) for table in params.tables
    )
    n = params.tables.shape[-1] // 2
    return jnp.where(spikes == 1, fired, silent) - n, spikes


def _membrane(params: SharedScaleParams, h: Array, spikes: Array, bits: int) -> Array:
    """Codes after the soft reset; one expression for the step and for the tables."""
    step = params.beta / levels(bits)
    return shared_codes((h - spikes * (params.threshold / step)) * step, params.beta, bits=bits)


def _rises(codes: np.ndarray, every: np.ndarray, n: int) -> np.ndarray:
    """The smallest `H` at which each code above the lowest is reached; beyond all where never."""
    first = np.searchsorted(codes, np.arange(-n + 1, n + 1), side="left")
    return np.append(every, np.iinfo(np.int32).max)[first].astype(np.int32)
