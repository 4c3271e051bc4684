"""Reset rules: the effect of a spike on the membrane potential of its neuron.

    subtract     v = h - s * threshold          keeps the overshoot ("soft")
    zero         v = (1 - s) * h                discards it ("hard")
    to(value)    v = (1 - s) * h + s * value
    none         v = h

`h` is the membrane potential after charging, `s` the spike. `detached(reset)` blocks the gradient
through `s` in the reset, not through the output spikes. `delayed(reset)` applies the rule one step
later, to the decayed membrane (snntorch's default); the state is then the membrane before the
reset.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax

from snnjax.neurons.model import Parameter
from snnjax.typing import Array

__all__ = ["Reset", "delayed", "detached", "none", "subtract", "to", "zero"]


@dataclasses.dataclass(frozen=True)
class Reset:
    """A reset rule `v = rule(h, s, threshold, value)` with its options.

    Attributes:
        rule: the rule, a pure function of membrane, spikes, threshold and `value`.
        value: membrane potential after a hard reset; unused by the other rules.
        detach: block the gradient through the spikes in the reset.
        delay: apply the rule at the next timestep.
    """

    rule: Callable[[Array, Array, Parameter, float], Array]
    value: float = 0.0
    detach: bool = False
    delay: bool = False

    def __call__(self, h: Array, spikes: Array, threshold: Parameter) -> Array:
        """The membrane potential after the reset, in the shape of `h`."""
        # Only the reset loses the gradient; the output spikes keep theirs.
        if self.detach:
            spikes = jax.lax.stop_gradient(spikes)
        return self.rule(h, spikes, threshold, self.value)


def _subtract(h, spikes, threshold, value):
    del value
    return h - spikes * threshold


def _to(h, spikes, threshold, value):
    del threshold
    # A reset to zero must not add `spikes * 0` to the arithmetic of the membrane.
    return (1 - spikes) * h + spikes * value if value else (1 - spikes) * h


def _none(h, spikes, threshold, value):
    del spikes, threshold, value
    return h


subtract = Reset(_subtract)
# `zero` and `to(0)` are equal resets.
zero = Reset(_to)
none = Reset(_none)


def to(value: float) -> Reset:
    """Hard reset to `value`, in units of the membrane potential."""
    return Reset(_to, value=float(value))


def detached(reset: Reset) -> Reset:
    """The same rule without a gradient through its spikes."""
    return dataclasses.replace(reset, detach=True)


def delayed(reset: Reset) -> Reset:
    """The same rule one timestep later: `h[t] = rule(decay * h[t-1], s[t-1]) + x[t]`."""
    return dataclasses.replace(reset, delay=True)
