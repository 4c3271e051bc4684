"""Undoing a step: the state before it, from the state after it, its input and its outputs.

    h[t]   = v[t] + s[t] * threshold             (reset by subtraction; none: h = v)
    v[t-1] = (h[t] - g * x[t]) / decay           lif, plif, integrate_fire, li
    a[t-1] = (a[t] - s[t]) / adaptation_decay    alif; its membrane is that of a lif
    i[t-1] = (i[t] - x[t]) / synaptic_decay      cuba_lif; its membrane that of a lif with input i

What a leak forgets, undoing it multiplies: a rounding error e grows to `growth^k e` after k steps,
where `growth` is `1 / decay` of what forgets fastest (of a cuba_lif the triangular matrix of its
two decays). The inverses here say how many steps that leaves in float32 (`steps`, where the growth
of `2^-23` reaches the tolerance), and `memory.reverse` refuses more. Without a leak the error does
not grow.

A hard or delayed reset has no inverse, and the makers say so (what a hard one drops is carried
along in a `coupled_lif`, which has an inverse of its own). Nor has a `recurrent` neuron: its input
holds the spikes of the step before, which are afterwards neither in its state nor in its outputs.
Use `memory.recompute(every)` for these.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Sequence

import numpy as np

from snnjax.neurons.alif import ALIFParams, ALIFState
from snnjax.neurons.cuba_lif import CubaLIFParams, CubaLIFState
from snnjax.neurons.integrate_fire import IFParams
from snnjax.neurons.li import LIParams
from snnjax.neurons.lif import LIFParams, LIFState
from snnjax.neurons.plif import PLIFParams, plif_decay
from snnjax.neurons.reset import Reset, none, subtract
from snnjax.typing import Array

__all__ = [
    "ALIFInverse",
    "CubaLIFInverse",
    "LIFInverse",
    "alif_inverse",
    "cuba_lif_inverse",
    "integrate_fire_inverse",
    "li_inverse",
    "lif_inverse",
    "plif_inverse",
    "undoable_steps",
]

_EPSILON = 2.0**-23
_ANY = 2**31


@dataclasses.dataclass(frozen=True)
class LIFInverse:
    """Undoes a step of a neuron with one membrane: `lif`, `plif`, `integrate_fire` or `li`.

    Attributes:
        reset: the step's reset.
        scale_input: as in the step.
        steps: steps it can undo in a row; None is any number.
    """

    reset: Reset
    scale_input: bool
    steps: int | None

    def __call__(
        self,
        params: LIFParams | PLIFParams | IFParams | LIParams,
        after: LIFState,
        current: Array,
        outputs: Array,
    ) -> LIFState:
        """The state before a step, `[B, ...]`."""
        return LIFState(_membrane(self, params, after.v, current, outputs))


@dataclasses.dataclass(frozen=True)
class ALIFInverse:
    """Undoes a step of `alif`; made by `alif_inverse`, attributes as those of `LIFInverse`."""

    reset: Reset
    scale_input: bool
    steps: int | None

    def __call__(
        self, params: ALIFParams, after: ALIFState, current: Array, spikes: Array
    ) -> ALIFState:
        """The state before a step, each `[B, ...]`."""
        v = _membrane(self, params, after.v, current, spikes)
        return ALIFState(v, (after.a - spikes) / params.adaptation_decay)


@dataclasses.dataclass(frozen=True)
class CubaLIFInverse:
    """Undoes a step of `cuba_lif`; made by `cuba_lif_inverse`, attributes as `LIFInverse`."""

    reset: Reset
    scale_input: bool
    steps: int | None

    def __call__(
        self, params: CubaLIFParams, after: CubaLIFState, current: Array, spikes: Array
    ) -> CubaLIFState:
        """The state before a step, each `[B, ...]`."""
        v = _membrane(self, params, after.v, after.i, spikes)
        return CubaLIFState(v, (after.i - current) / params.synaptic_decay)


def lif_inverse(
    *,
    decay: float,
    reset: Reset = subtract,
    scale_input: bool = False,
    tolerance: float = 1e-2,
) -> LIFInverse:
    """The inverse of `lif`, for as many steps as float32 allows.

    Args:
        decay: the smallest decay the parameters will have; it bounds the number of steps,
            `steps = log(tolerance / 2^-23) / log(1 / decay)`: 8 at decay 0.25, 16 at 0.5.
        reset: the step's reset: `subtract` or `none`, detached or not.
        scale_input: as in the step.
        tolerance: error of the membrane to put up with, as a share of its magnitude.

    Returns:
        The inverse, for `memory.reverse(inverse, refresh=inverse.steps)`.

    Raises:
        ValueError: the reset has no inverse, or `decay` is outside (0, 1].
    """
    _check(reset, decay=decay)
    return LIFInverse(reset, scale_input, undoable_steps([[1 / decay]], tolerance))


def plif_inverse(
    *,
    decay: float,
    reset: Reset = subtract,
    scale_input: bool = True,
    tolerance: float = 1e-2,
) -> LIFInverse:
    """The inverse of `plif`; arguments, result and errors as for `lif_inverse`.

    A PLIF learns its decay: `decay` is the smallest it is allowed to reach in training, and beyond
    it the gradient's error grows past `tolerance`.
    """
    return lif_inverse(decay=decay, reset=reset, scale_input=scale_input, tolerance=tolerance)


def integrate_fire_inverse(*, reset: Reset = subtract) -> LIFInverse:
    """The inverse of `integrate_fire`: any number of steps, to float32's rounding.

    Raises:
        ValueError: the reset has no inverse.
    """
    return lif_inverse(decay=1.0, reset=reset)


def li_inverse(*, decay: float, scale_input: bool = False, tolerance: float = 1e-2) -> LIFInverse:
    """The inverse of `li`, which never resets; otherwise as for `lif_inverse`."""
    return lif_inverse(decay=decay, reset=none, scale_input=scale_input, tolerance=tolerance)


def alif_inverse(
    *,
    decay: float,
    adaptation_decay: float,
    reset: Reset = subtract,
    scale_input: bool = False,
    tolerance: float = 1e-2,
) -> ALIFInverse:
    """The inverse of `alif`, for as many steps as the smaller of its decays allows.

    A spike takes the baseline threshold off the membrane and adds 1 to the adaptation, so that
    knowing the spike undoes both, one independently of the other.

    Args:
        decay: the smallest decay the membrane will have.
        adaptation_decay: the smallest decay the adaptation will have.
        reset: as for `lif_inverse`.
        scale_input: as in the step.
        tolerance: as for `lif_inverse`.

    Returns:
        The inverse, for `memory.reverse(inverse, refresh=inverse.steps)`.

    Raises:
        ValueError: the reset has no inverse, or a decay is outside (0, 1].
    """
    _check(reset, decay=decay, adaptation_decay=adaptation_decay)
    growth = [[1 / decay, 0], [0, 1 / adaptation_decay]]
    return ALIFInverse(reset, scale_input, undoable_steps(growth, tolerance))


def cuba_lif_inverse(
    *,
    decay: float,
    synaptic_decay: float,
    reset: Reset = subtract,
    scale_input: bool = False,
    tolerance: float = 1e-2,
) -> CubaLIFInverse:
    """The inverse of `cuba_lif`, for somewhat fewer steps than the smaller of its decays allows.

    The error of the synaptic current passes into the membrane, `e_v <- (e_v + g e_i) / decay`.

    Args:
        decay: the smallest decay the membrane will have.
        synaptic_decay: the smallest decay the synaptic current will have.
        reset: as for `lif_inverse`.
        scale_input: as in the step.
        tolerance: error of the state to put up with, as a share of its largest magnitude.

    Returns:
        The inverse, for `memory.reverse(inverse, refresh=inverse.steps)`.

    Raises:
        ValueError: the reset has no inverse, or a decay is outside (0, 1]; at a synaptic decay of
            0 the neuron is a `lif`, which has one.
    """
    _check(reset, decay=decay, synaptic_decay=synaptic_decay)
    gain = 1 - decay if scale_input else 1
    growth = [[1 / decay, gain / decay], [0, 1 / synaptic_decay]]
    return CubaLIFInverse(reset, scale_input, undoable_steps(growth, tolerance))


def undoable_steps(growth: Sequence[Sequence[float]], tolerance: float) -> int | None:
    """Steps that can be undone in a row: the largest k with `2^-23 |growth^k| <= tolerance`.

    Args:
        growth: what one step back makes of the errors of the state's parts, at worst,
            `[parts, parts]`; the norm is the largest sum of a row.
        tolerance: error to put up with.

    Returns:
        The number of steps; None is any number.

    Raises:
        ValueError: not even one step can be undone.
    """
    matrix = np.asarray(growth, np.float64)

    def too_far(k):
        with np.errstate(over="ignore", invalid="ignore"):
            error = _EPSILON * np.linalg.matrix_power(matrix, k).sum(1).max()
        return not error <= tolerance

    far = 1
    while far < _ANY and not too_far(far):
        far *= 2
    if far == _ANY:
        return None
    steps = bisect.bisect_left(range(1, far), True, key=too_far)
    if steps < 1:
        raise ValueError(
            "this neuron forgets too fast to be undone even once: use memory.recompute(every)"
        )
    return steps


def _membrane(inverse, params, v, current, spikes):
    """The membrane before a step of `lif` or of a neuron that charges and resets like it."""
    h = v + spikes * params.threshold if inverse.reset.rule == subtract.rule else v
    if isinstance(params, IFParams):
        return h - current
    decay = plif_decay(params.w) if isinstance(params, PLIFParams) else params.decay
    gain = 1 - decay if inverse.scale_input else 1
    return (h - gain * current) / decay


def _check(reset: Reset, **decays: float) -> None:
    for name, decay in decays.items():
        if not 0 < decay <= 1:
            raise ValueError(f"{name} lies in (0, 1] where a step is to be undone, got {decay}")
    if reset.delay or reset.rule not in (subtract.rule, none.rule):
        raise ValueError(
            "a hard or delayed reset forgets the membrane and cannot be undone: reset by "
            "subtraction (neurons.subtract), or use memory.recompute(every)"
        )
