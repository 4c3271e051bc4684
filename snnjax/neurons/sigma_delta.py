"""The sigma-delta coder: multi-bit spikes whose sum follows the sum of the inputs.

    charge   u[t] = v[t-1] + x[t]
    fire     y[t] = Q(u[t]),      Q(u) = k / g,   k = trunc(g clip(u, -M, M)), 0 where |k| <= h
    keep     v[t] = u[t] - y[t]                   the error of the code, carried to the next step

`g = 2^(b-1) (1 - 1e-4) / M` for b bits, and `M` is the tracked range of u: the larger magnitude of
the moving averages of its minimum and maximum, which move once per timestep in training,

    low <- m low + (1 - m) min(u),     M = max |low, high| / (1 - m^count)

over all examples and neurons, padded examples too; with `lengths`, timesteps behind the end of a
sequence are left out. The averages are arguments and results, like the statistics of a batch norm.
The derivative passes straight through `trunc` and the threshold h, and is 0 where u is clipped by
more than rounding. Without clipping the Jacobian of all outputs by all inputs is then exactly the
identity: y = u in first order, and nothing remains in v.

Spikes are signed, from `{0, +-(h+1), .., +-(2^(b-1)-1)} / g`. With one bit the factor `1 - 1e-4`
leaves `trunc` nothing but 0, in the released code as well: binary spikes need `bits=2,
threshold=0`.

Reference: Ponghiran and Roy, "Spiking Neural Networks with Improved Inherent Recurrence Dynamics
for Sequential Learning", AAAI 2022, arXiv:2109.01905.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from snnjax.neurons.model import Model, Refusal
from snnjax.ops.arguments import check_counts, check_numbers
from snnjax.ops.derivative import with_derivative
from snnjax.typing import Array, bind

__all__ = [
    "Coder",
    "CoderParams",
    "CoderState",
    "Range",
    "coder_state",
    "sigma_delta",
    "sigma_delta_model",
    "unknown_range",
]

# Keeps the largest code below 2^(b-1), where a two's complement number of b bits ends.
_MARGIN = 1 - 1e-4
# Values up to here count as inside of the range.
_TIE = 1 + 1e-5


class Range(NamedTuple):
    """Moving averages of a minimum and a maximum, scalars without bias correction.

    Attributes:
        low: average of the minima.
        high: average of the maxima.
        count: number of updates, 0 for none.
    """

    low: Array
    high: Array
    count: Array


def unknown_range() -> Range:
    """The range before the first update; a coder then codes within [-1, 1]."""
    # In the default float, as the statistics of a batch norm.
    return Range(*(jnp.zeros((), jnp.result_type(float)) for _ in Range._fields))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Coder:
    """Quantizer of the coder and the rule of its range; see the top of this module.

    Attributes:
        bits: b, bits of a spike with its sign, 1 to 32.
        threshold: h, largest magnitude of a code that is no spike, in steps of the code.
        momentum: m, weight of the old average (the released 0.1 is 0.9 here), in [0, 1).
        axes: mesh axes that share the batch inside `jax.shard_map`.

    Raises:
        ValueError: a value out of range.
    """

    bits: int = 6
    threshold: int = 3
    momentum: float = 0.9
    axes: tuple[str, ...] = ()

    def __post_init__(self):
        check_counts("Coder", bits=self.bits)
        check_counts("Coder", least=0, threshold=self.threshold)
        check_numbers("Coder", least=0, below=1, momentum=self.momentum)
        if self.bits > 32:
            raise ValueError(f"a coder has 1 to 32 bits per spike, got bits={self.bits}")

    def move(self, known: Range, u: Array, *, left: Array | None = None) -> Range:
        """The range after one timestep with the inputs `u` of the quantizer.

        Args:
            known: range before the timestep.
            u: `[B, ...]`, inputs of the quantizer.
            left: `[B]`, valid timesteps of each sequence from this one on; None is at least one.
        """
        u = jax.lax.stop_gradient(u)
        if left is not None:
            return self._move_valid(known, u, left)
        return self._average(known, (u.min(), u.max()))

    def _move_valid(self, known: Range, u: Array, left: Array) -> Range:
        valid = (left > 0).reshape(-1, *[1] * (u.ndim - 1))
        ends = (jnp.where(valid, u, jnp.inf).min(), jnp.where(valid, u, -jnp.inf).max())
        moved = self._average(known, ends)
        longest = jax.lax.pmax(left.max(), self.axes) if self.axes else left.max()
        # Behind the end of all sequences nothing moves, and their infinite ends are dropped.
        return Range(*(jnp.where(longest > 0, a, b) for a, b in zip(moved, known, strict=True)))

    def _average(self, known: Range, ends: tuple[Array, Array]) -> Range:
        if self.axes:
            ends = (jax.lax.pmin(ends[0], self.axes), jax.lax.pmax(ends[1], self.axes))
        low, high = (
            old + (1 - self.momentum) * (new.astype(old.dtype) - old)
            for old, new in zip(known[:2], ends, strict=True)
        )
        return Range(low, high, known.count + 1)

    def largest(self, known: Range) -> Array:
        """`M`, the magnitude above which values are clipped; 1 for an unknown or empty range."""
        moved = known.count > 0
        # The weights of all updates sum to 1 - m^count.
        total = jnp.where(moved, 1 - self.momentum ** jnp.maximum(known.count, 1), 1)
        edge = jnp.maximum(jnp.abs(known.low), jnp.abs(known.high)) / total
        return jnp.where(moved & (edge > 0), edge, 1)

    def gain(self, largest: Array) -> Array:
        """`g`, steps of the code per unit of `u`."""
        return 2.0 ** (self.bits - 1) * _MARGIN / largest

    def quantize(self, u: Array, largest: Array) -> Array:
        """`Q(u)`, of the shape and dtype of `u`; the derivative is 1 inside of the range, else 0.

        Args:
            u: values to code.
            largest: `M`, a scalar; a constant for the derivative.
        """
        edge, value = (jax.lax.stop_gradient(a).astype(u.dtype) for a in (largest, u))
        gain = self.gain(edge)
        codes = jnp.trunc(gain * jnp.clip(value, -edge, edge))
        codes = jnp.where(jnp.abs(codes) <= self.threshold, 0, codes)
        # The first range ends at the largest value: without a margin the last bit, and with it the
        # memory strategy, would decide on its derivative.
        return with_derivative(codes / gain, jnp.where(jnp.abs(value) <= edge * _TIE, u, value))


class CoderParams(NamedTuple):
    """Parameters of `sigma_delta`: the range before the sequence, scalars as in `Range`.

    Attributes:
        low: average of the minima.
        high: average of the maxima.
        count: number of updates.
        lengths: valid timesteps of the sequences, `[B]` floating; None if all are valid.
    """

    low: Array | float
    high: Array | float
    count: Array | float
    lengths: Array | None = None


class CoderState(NamedTuple):
    """State of `sigma_delta`: error of the code `v`, `[B, ...]`, and the range since the start.

    The range has a count of 0 until it moves; that of the parameters then holds.
    """

    v: Array
    range: Range


def coder_state(shape: tuple[int, ...], *, dtype=jnp.float32) -> CoderState:
    """The state at rest, no error and an unknown range, for inputs of shape `(B, ...)`."""
    return CoderState(jnp.zeros(shape, dtype), Range(*(jnp.zeros((), dtype) for _ in range(3))))


def sigma_delta(
    params: CoderParams, state: CoderState, x: Array, *, coder: Coder, training: bool = False
) -> tuple[CoderState, Array]:
    """One timestep of the coder.

        u[t] = v[t-1] + x[t],    y[t] = Q(u[t]),    v[t] = u[t] - y[t]

    Args:
        params: range before the sequence.
        state: error of the code, and range since the start of the sequence.
        x: `[B, ...]`, any unit.
        coder: bits, threshold and momentum.
        training: move the range before it is used.

    Returns:
        The new state and the multi-bit spikes, `[B, ...]`, in the unit of the inputs.

    Reference:
        Ponghiran and Roy, "Spiking Neural Networks with Improved Inherent Recurrence Dynamics for
        Sequential Learning", AAAI 2022, arXiv:2109.01905.
    """
    u, own = state.v + x, state.range
    # One carry for both orders: in time order every step is given the same parameters.
    known = Range(
        *(
            jnp.where(own.count > 0, a, jnp.asarray(b).astype(a.dtype))
            for a, b in zip(own, params[:3], strict=True)
        )
    )
    if training:
        left = params.lengths
        # The range moves once per timestep, so that its count tells the number of this one.
        left = None if left is None else left - (known.count - params.count).astype(left.dtype)
        known = coder.move(known, u, left=left)
    y = coder.quantize(u, coder.largest(known))
    return CoderState(u - y, known if training else own), y


# v[t-1] = v[t] + y[t] - x[t] would be exact, but the range of the step before is unknown.
_NO_INVERSE = Refusal(
    "a sigma-delta coder has no inverse, since rounding errors of the rebuilt membrane move its "
    "codes: use memory.recompute(every)"
)


def sigma_delta_model(*, largest: float = 1.0, bits: int = 6, threshold: int = 3) -> Model:
    """Model of the sigma-delta coder with a fixed range `[-largest, largest]`.

        u[t] = v[t-1] + x[t],    y[t] = Q(u[t]),    v[t] = u[t] - y[t]

    `nn.SigmaDelta` tracks the range in training.

    Args:
        largest: `M`, the magnitude above which values are clipped.
        bits: bits of a spike with its sign.
        threshold: largest magnitude of a code that is no spike.

    Raises:
        ValueError: a value out of range.

    Reference:
        Ponghiran and Roy, "Spiking Neural Networks with Improved Inherent Recurrence Dynamics for
        Sequential Learning", AAAI 2022, arXiv:2109.01905.
    """
    check_numbers("sigma_delta_model", above=0, largest=largest)
    # No memory of earlier updates: the correction of the bias divides by 1.
    coder = Coder(bits=bits, threshold=threshold, momentum=0.0)
    return Model(
        bind(sigma_delta, coder=coder),
        CoderParams(-largest, largest, 1.0),
        coder_state,
        inverse=_NO_INVERSE,
        spiking=False,
        name="sigma_delta",
    )
