"""The leaky integrator (LI): a membrane that never fires, read out as it is.

    v[t] = decay * v[t-1] + g * x[t],    output v[t]        g = 1, or 1 - decay with `scale_input`

The usual last layer of a spiking network that is trained on membrane potentials.
"""

from __future__ import annotations

from typing import NamedTuple

from snnjax.neurons.lif import LIFState, charge, lif_state
from snnjax.typing import Array

__all__ = ["LIParams", "LIState", "li", "li_state"]

LIState = LIFState
li_state = lif_state


class LIParams(NamedTuple):
    """Parameters of `li`.

    Attributes:
        decay: membrane kept per timestep, in (0, 1], a scalar or broadcastable.
    """

    decay: Array


def li(
    params: LIParams, state: LIState, current: Array, *, scale_input: bool = False
) -> tuple[LIState, Array]:
    """One timestep of a leaky integrator.

    Args:
        params: the decay.
        state: the membrane after the last step, `[B, ...]`.
        current: input current, `[B, ...]`.
        scale_input: charge with `(1 - decay) * current`.

    Returns:
        The new state and the membrane potential, `[B, ...]`.
    """
    v = charge(params.decay, state.v, current, scale_input=scale_input)
    return LIState(v), v
