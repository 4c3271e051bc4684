"""Undoing a step: the membrane before it, from the membrane after it, its input and its spikes.

    h[t]   = v[t] + s[t] * threshold               (reset by subtraction; none: h = v)
    v[t-1] = (h[t] - g * x[t]) / decay

A leak forgets, so undoing it multiplies rounding errors by `1 / decay` at each step: after k steps
some `2^-23 / decay^k` in float32. The inverses here say how many steps that leaves (`steps`), and
`memory.reverse` refuses more. Without a leak the error does not grow. A hard reset has no inverse.
"""

from __future__ import annotations

import dataclasses
import math

from snnjax.neurons.integrate_fire import IFParams
from snnjax.neurons.lif import LIFParams, LIFState
from snnjax.neurons.reset import Reset, none, subtract
from snnjax.typing import Array

__all__ = ["LIFInverse", "integrate_fire_inverse", "lif_inverse"]

_EPSILON = 2.0**-23


@dataclasses.dataclass(frozen=True)
class LIFInverse:
    """Undoes a step of `lif` or `integrate_fire`; made by `lif_inverse`, `integrate_fire_inverse`.

    Attributes:
        reset: the step's reset.
        scale_input: as in the step.
        steps: steps it can undo in a row; None is any number.
    """

    reset: Reset
    scale_input: bool
    steps: int | None

    def __call__(
        self, params: LIFParams | IFParams, after: LIFState, current: Array, spikes: Array
    ) -> LIFState:
        """The state before a step, `[B, ...]`."""
        overshoot = self.reset.rule == subtract.rule
        h = after.v + spikes * params.threshold if overshoot else after.v
        if isinstance(params, IFParams):
            return LIFState(h - current)
        gain = 1 - params.decay if self.scale_input else 1
        return LIFState((h - gain * current) / params.decay)


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
    if not 0 < decay <= 1:
        raise ValueError(f"decay lies in (0, 1], got {decay}")
    _check(reset)
    if decay == 1:
        return LIFInverse(reset, scale_input, None)
    steps = math.floor(math.log(tolerance / _EPSILON) / math.log(1 / decay))
    if steps < 1:
        raise ValueError(
            f"decay {decay} forgets too fast to be undone even once: use memory.recompute(every)"
        )
    return LIFInverse(reset, scale_input, steps)


def integrate_fire_inverse(*, reset: Reset = subtract) -> LIFInverse:
    """The inverse of `integrate_fire`: any number of steps, to float32's rounding.

    Raises:
        ValueError: the reset has no inverse.
    """
    _check(reset)
    return LIFInverse(reset, False, None)


def _check(reset: Reset) -> None:
    if reset.delay or reset.rule not in (subtract.rule, none.rule):
        raise ValueError(
            "a hard or delayed reset forgets the membrane and cannot be undone: reset by "
            "subtraction (neurons.subtract), or use memory.recompute(every)"
        )
