"""LIF neurons with one scale for weights and membrane, so that a layer computes on integers.

With `b` bits, `n = 2^(b-1) - 1` and a learned `beta > 0` per layer, weights and membrane are
integer multiples of the step `beta / n`:

    k(x)   = round(n clip(tanh(x) / beta, -1, 1))          the code of x, in -n ... n
    h[t]   = decay m[t-1] + sum_i k(w_i) s_i[t]            potentials in steps
    s[t]   = [h[t] >= theta],   theta = n threshold / beta
    m[t]   = k((beta / n) (h[t] - s[t] theta))             membrane after leak, spike and soft reset

Inputs are spikes, so a current is a sum of codes, and only the code of the membrane needs the
scale. For a decay of `2^-p` the whole step is integer arithmetic (`integer_form`) with bit-equal
spikes:

    H = 2^p h = m + 2^p K,   s = [H >= ceil(2^p theta)],   m = -n + sum_j [H >= table_s[j]]

The code of a membrane is a staircase of `2 n` steps in `H`, one staircase for firing neurons and
one for silent ones. The two tables hold the positions of the steps and so contain the tanh.

The rounding function, the shared `beta`, its initial value and the comparison with the rounded-up
threshold follow the released code, which applies the tanh to the membrane as well. Our
reconstruction: `theta` in steps of `beta / n` on a `2^p` times finer membrane, and the tables; they
make the integer form exact.

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
        beta: Largest magnitude of weights and membrane after the tanh, above 0, a scalar.
        decay: Decay of the membrane per timestep, in (0, 1].
        threshold: Firing threshold in units of the membrane potential, not in steps.
    """

    beta: Array
    decay: Array | float
    threshold: Array | float


class SharedScaleState(NamedTuple):
    """State of `shared_scale_lif`: integer codes `v` of the membrane, `[B, ...]`."""

    v: Array


def levels(bits: int) -> int:
    """Largest code `n = 2^(bits-1) - 1`; codes run from `-n` to `n`.

    Raises:
        ValueError: `bits` is below 2, which leaves no level, or above 8.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"codes -n ... n have 2 to 8 bits, got {bits}: choose bits in that range")
    return 2 ** (bits - 1) - 1


def initial_beta(weights: Array, *, bits: int) -> Array:
    """Initial `beta = 2 mean|w| / sqrt(n)`, intended for few bits: at 8 it clips most weights."""
    return 2 * jnp.mean(jnp.abs(weights)) / math.sqrt(levels(bits))


def shared_codes(values: Array, beta: Array, *, bits: int) -> Array:
    """Rounds values to codes `k(x) = round(n clip(tanh(x) / beta, -1, 1))`.

    The gradient passes straight through the rounding, and through the clip inside its bounds and at
    them. It reaches `beta` too, as for a learned step size.

    Args:
        values: Weights or membrane potentials, any shape.
        beta: Largest magnitude after the tanh, a scalar.
        bits: Bits per code, 2 to 8.

    Returns:
        Codes `-n` to `n`, in the dtype of the values.
    """
    n = levels(bits)
    z = n * jnp.tanh(values) / beta
    # Not jnp.clip: its gradient at the bounds is 1/2.
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
    """Advances the neurons by one timestep.

        h = decay m + current,    s = [h >= theta],    m <- k((beta / n) (h - s theta))

    with `theta = n threshold / beta`, all in steps of `beta / n`.

    Args:
        params: `beta`, `decay` and `threshold`.
        state: Codes of the membrane, `[B, ...]`.
        current: Sums of weight codes, `[B, ...]`; exact in every order of summation below `2^24`.
        bits: Bits per code.
        spike: Surrogate spike function of membrane minus threshold, in units of the potential; the
            slope of the default is `max(0, 1 - |u|)`.

    Returns:
        The new state and the spikes, 0 or 1, `[B, ...]`.
    """
    step = params.beta / levels(bits)
    h = params.decay * state.v + current
    # `h - theta` has an exact sign, and the positive factor keeps it: the integer form agrees.
    spikes = spike((h - params.threshold / step) * step)
    return SharedScaleState(_membrane(params, h, spikes, bits)), spikes


class IntegerParams(NamedTuple):
    """Parameters of `integer_lif`, int32.

    Attributes:
        shift: Exponent `p` of the decay `2^-p`, a scalar.
        threshold: Threshold `ceil(2^p theta)`, a scalar.
        tables: Positions of the steps of the membrane code, `[2, 2 n]`: for silent neurons, and for
            firing ones.
    """

    shift: Array
    threshold: Array
    tables: Array


def integer_form(params: SharedScaleParams, *, bits: int, largest: int) -> IntegerParams:
    """Computes the thresholds of the integer form; called once, outside of a jit.

    Args:
        params: Parameters of the trained layer, with a decay of 1, 1/2, 1/4, ...
        bits: Bits per code.
        largest: Largest possible current, such as the largest sum of `|k(w)|` into one neuron. The
            tables take `O(2^p largest)` operations to make and hold `4 n` integers.

    Returns:
        Parameters of `integer_lif`.

    Raises:
        ValueError: The decay is not a power of two, or currents exceed the integers of float32.
    """
    mantissa, exponent = math.frexp(float(params.decay))
    if mantissa != 0.5 or exponent > 1:
        raise ValueError(
            f"a decay of {float(params.decay)} is no shift of an integer: choose 1, 1/2, 1/4, ..."
        )
    n, shift = levels(bits), 1 - exponent
    bound = n + (largest << shift)
    if bound >= 2**24:
        raise ValueError(
            f"currents up to {largest} at a decay of 2^-{shift} exceed the 2^24 integers that "
            "float32 adds exactly: use fewer bits, or fewer inputs"
        )
    # The tables are read off the float step on every membrane that can occur: it includes the
    # rounding of tanh, which no closed form reproduces.
    potentials = np.arange(-bound, bound + 1, dtype=np.int32)
    h = jnp.asarray(potentials * np.float32(2.0**-shift))
    codes = [np.asarray(_membrane(params, h, jnp.full_like(h, s), bits), np.int32) for s in (0, 1)]
    theta = params.threshold / (params.beta / n)
    return IntegerParams(
        jnp.asarray(shift, jnp.int32),
        jnp.ceil(theta * 2.0**shift).astype(jnp.int32),
        jnp.asarray(np.stack([_step_positions(row, potentials, n) for row in codes])),
    )


def integer_lif(params: IntegerParams, state: Array, current: Array) -> tuple[Array, Array]:
    """Advances the neurons by one timestep in integers: additions, shifts and comparisons.

        H = m + 2^p current,   s = [H >= threshold],   m <- -n + sum_j [H >= table_s[j]]

    Args:
        params: Parameters from `integer_form`.
        state: Codes of the membrane, int32, `[B, ...]`.
        current: Sums of weight codes, int32, `[B, ...]`.

    Returns:
        The new codes and the spikes, int32, `[B, ...]`, equal to those of `shared_scale_lif`.
    """
    h = state + jax.lax.shift_left(current, jnp.broadcast_to(params.shift, current.shape))
    spikes = (h >= params.threshold).astype(jnp.int32)
    # side="right" counts the entries of a sorted table that H has reached.
    silent, fired = (
        jnp.searchsorted(table, h, side="right").astype(jnp.int32) for table in params.tables
    )
    n = params.tables.shape[-1] // 2
    return jnp.where(spikes == 1, fired, silent) - n, spikes


def _membrane(params: SharedScaleParams, h: Array, spikes: Array, bits: int) -> Array:
    """Codes of the membrane after the soft reset."""
    # One expression for the step and the tables: two would differ in their last bits.
    step = params.beta / levels(bits)
    return shared_codes((h - spikes * (params.threshold / step)) * step, params.beta, bits=bits)


def _step_positions(codes: np.ndarray, potentials: np.ndarray, n: int) -> np.ndarray:
    """Smallest `H` that reaches each code above `-n`; the largest int32 for unreachable codes."""
    first = np.searchsorted(codes, np.arange(-n + 1, n + 1), side="left")
    return np.append(potentials, np.iinfo(np.int32).max)[first].astype(np.int32)
