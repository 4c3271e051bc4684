"""Bounds on the inverse of a neuron's step: the number of steps that float32 can undo in a row.

Undoing a leak multiplies a rounding error by `1 / decay`. After k steps an error of `2^-23` of the
state has grown to at most

    2^-23 |growth^k|        growth [parts, parts]: error of each part of the state, one step back

and `undoable_steps` gives the largest k that keeps this below a tolerance; `memory.reverse` refuses
to undo more steps in a row. Without a leak (growth 1) their number is unlimited. The parameters of
a call may differ from those that a bound was made for: `is_accurate` compares again, inside a
program if they are traced, and refuses membranes of fewer than 32 bits.

A hard or a delayed reset discards the membrane potential and has no inverse; `coupled_lif` keeps
the discarded part in its other group and has one. A neuron with feedback (`recurrent_model`) has no
inverse: its input contains the spikes of the step before, which neither state nor outputs hold.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from snnjax.neurons.model import Inverse, Parameter, Refusal, unknown_parameter
from snnjax.neurons.reset import Reset, none, subtract
from snnjax.ops.arguments import is_traced
from snnjax.ops.rounding import refuse_narrow
from snnjax.typing import PyTree

__all__ = [
    "LeakInverse",
    "center",
    "check_invertible",
    "inverse_or_refusal",
    "is_accurate",
    "largest",
    "reciprocal",
    "smallest",
    "undoable_steps",
]

# Relative rounding error of float32, the dtype of membranes.
_EPSILON = 2.0**-23
# Longer than any sequence: an inverse that reaches it has no limit.
_UNBOUNDED = 2**31
# Default tolerance of an inverse.
_TOLERANCE = 1e-2


@dataclasses.dataclass(frozen=True)
class LeakInverse:
    """Fields of the inverse of a leaky step.

    Attributes:
        reset: the step's reset, `subtract` or `none`.
        scale_input: as in the step.
        steps: number of steps it can undo in a row; None is any number.
        tolerance: largest error of the state, as a share of its magnitude.
    """

    reset: Reset
    scale_input: bool
    steps: int | None
    tolerance: float = _TOLERANCE


def inverse_or_refusal(maker: Callable[..., Inverse], **options: Any) -> Inverse | Refusal:
    """Makes an inverse by `maker(**options)`; its ValueError becomes a `Refusal`.

    An option of None is a bound of unknown value, see `smallest`.
    """
    # A model without an inverse is of use under every other strategy, so the error waits until a
    # reversing scan asks for the inverse.
    for name, value in options.items():
        if value is None:
            return unknown_parameter(name)
    try:
        return maker(**options)
    except ValueError as error:
        return Refusal(str(error))


def smallest(parameter: Parameter) -> float | None:
    """The smallest entry of a parameter; None for a tracer, whose values are unknown."""
    return _extreme(np.min, parameter)


def largest(parameter: Parameter) -> float | None:
    """The largest entry of a parameter; None for a tracer, whose values are unknown."""
    return _extreme(np.max, parameter)


def center(parameter: Parameter) -> float:
    """The mean of a parameter, for a state at rest.

    Raises:
        ValueError: the parameter is traced, and its value unknown.
    """
    mean = _extreme(np.mean, parameter)
    if mean is None:
        raise ValueError(
            "the state at rest needs a known parameter, and this one is traced: make the model "
            "outside of jax.jit"
        )
    return mean


def _extreme(function: Callable[..., Any], parameter: Parameter) -> float | None:
    try:
        return float(function(np.asarray(parameter)))
    # A model may be made inside `jax.jit`, with traced parameters.
    except jax.errors.TracerArrayConversionError:
        return None


def reciprocal(parameter: Parameter) -> Any:
    """Largest entry of `1 / parameter`; infinite where one is not positive."""
    low = smallest(parameter)
    if low is not None:
        return 1 / low if low > 0 else np.inf
    traced = jax.lax.stop_gradient(parameter)
    return jnp.where(jnp.all(traced > 0), 1 / jnp.min(traced), jnp.inf)


def is_accurate(
    growth: Sequence[Sequence[Any]], state: PyTree, steps: int, *, tolerance: float
) -> Any:
    """True if steps can be undone in a row within a tolerance, `eps |growth^steps| <= tolerance`.

    Args:
        growth: as for `undoable_steps`, numbers or traced scalars.
        state: state, whose dtype gives the rounding error eps.
        steps: number of steps.
        tolerance: as for `undoable_steps`.

    Returns:
        A boolean scalar, traced if an entry of `growth` is.

    Raises:
        ValueError: a part of the state has fewer than 32 bits.
    """
    refuse_narrow(state)
    epsilon = max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(state))
    traced = any(is_traced(entry) for row in growth for entry in row)
    with np.errstate(over="ignore", invalid="ignore"):
        if traced:
            matrix: Any = jnp.stack([jnp.stack([jnp.float32(e) for e in row]) for row in growth])
        else:
            matrix = np.asarray(growth, np.float64)
        error = epsilon * _power(matrix, steps).sum(1).max()
    # Twice: parameters in float32 differ from the numbers that a bound was made for. NaN is False.
    return error <= 2 * tolerance


def _power(matrix: Any, exponent: int) -> Any:
    """Power of a square matrix by squaring; elementwise, since a product may round its factors."""
    result = None
    while exponent:
        if exponent & 1:
            result = matrix if result is None else (result[:, :, None] * matrix).sum(1)
        exponent >>= 1
        if exponent:
            matrix = (matrix[:, :, None] * matrix).sum(1)
    return result


def undoable_steps(growth: Sequence[Sequence[float]], tolerance: float) -> int | None:
    """Number of undoable steps, the largest k with `2^-23 |growth^k| <= tolerance`.

    Args:
        growth: upper bound of the errors of the state's parts after one step back, `[parts,
            parts]`; its norm is the largest row sum.
        tolerance: largest error of the state, as a share of its magnitude.

    Returns:
        The number of steps; None is unlimited.

    Raises:
        ValueError: one step back already exceeds the tolerance.
    """
    matrix = np.asarray(growth, np.float64)

    def exceeds(k):
        # A high power of a growth above 1 overflows to infinity, which exceeds every tolerance.
        with np.errstate(over="ignore", invalid="ignore"):
            error = _EPSILON * np.linalg.matrix_power(matrix, k).sum(1).max()
        # Negated, so that NaN (infinity times 0) exceeds the tolerance as well.
        return not error <= tolerance

    # Doubling finds an upper bound, bisection the exact number below it.
    bound = 1
    while bound < _UNBOUNDED and not exceeds(bound):
        bound *= 2
    if bound == _UNBOUNDED:
        return None
    steps = bisect.bisect_left(range(1, bound), True, key=exceeds)
    if steps < 1:
        raise ValueError(
            "this neuron forgets too fast to be undone even once: use memory.recompute(every)"
        )
    return steps


def check_invertible(reset: Reset, **decays: float) -> None:
    """Checks that a step with this reset and these decays can be undone.

    Raises:
        ValueError: the reset is hard or delayed, or a decay is outside (0, 1].
    """
    for name, decay in decays.items():
        if not 0 < decay <= 1:
            raise ValueError(f"{name} lies in (0, 1] where a step is to be undone, got {decay}")
    # Rules are compared, since a detached reset has the same inverse.
    if reset.delay or reset.rule not in (subtract.rule, none.rule):
        raise ValueError(
            "a hard or delayed reset forgets the membrane and cannot be undone: reset by "
            "subtraction (neurons.reset.subtract), or use memory.recompute(every)"
        )
