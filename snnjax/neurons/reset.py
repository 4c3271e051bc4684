"""What a spike does to the membrane that fired it.

    subtract     v = h - s * threshold          the overshoot is kept ("soft")
    zero         v = (1 - s) * h                everything is dropped ("hard")
    to(value)    v = (1 - s) * h + s * value
    none         v = h

`h` is the membrane after charging, `s` the spike. `detached(reset)` blocks the gradient through `s`
here (not through the output spikes). `delayed(reset)` applies the rule one step later, to the
decayed membrane, so that the returned membrane is the one before the reset (snntorch's default).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax

from snnjax.typing import Array

__all__ = ["Reset", "delayed", "detached", "none", "subtract", "to", "zero"]


@dataclasses.dataclass(frozen=True)
class Reset:
    """A reset rule `v = rule(h, s, threshold, value)` with its options.

    Attributes:
        rule: the rule, a pure function of membrane, spikes, threshold and `value`.
        value: where a hard reset goes; unused by the other rules.
        detach: no gradient through the spikes in the reset.
        delay: the rule is applied at the next timestep.
    """

    rule: Callable[[Array, Array, Array, float], Array]
    value: float = 0.0
    detach: bool = False
    delay: bool = False

    def __call__(self, h: Array, spikes: Array, threshold: Array) -> Array:
        """The membrane after the reset, same shape as `h`."""
        if self.detach:
            spikes = jax.lax.stop_gradient(spikes)
        return self.rule(h, spikes, threshold, self.value)


def _subtract(h, spikes, threshold, value):
    del value
    return h - spikes * threshold


def _to(h, spikes, threshold, value):
    del threshold
    # A branch on the value, so that a reset to zero adds nothing to the membrane's arithmetic.
    return (1 - spikes) * h + spikes * value if value else (1 - spikes) * h


def _none(h, spikes, threshold, value):
    del spikes, threshold, value
    return h


subtract = Reset(_subtract)
zero = Reset(_to)
none = Reset(_none)


def to(value: float) -> Reset:
    """Hard reset to `value`, in the unit of the membrane potential."""
    return Reset(_to, value=float(value))


def detached(reset: Reset) -> Reset:
    """The same rule without a gradient through its spikes."""
    return dataclasses.replace(reset, detach=True)


def delayed(reset: Reset) -> Reset:
    """The same rule one timestep later: `h[t] = rule(decay * h[t-1], s[t-1]) + x[t]`."""
    return dataclasses.replace(reset, delay=True)
