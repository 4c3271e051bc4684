"""The leaky integrator (LI): a membrane that never fires; its potential is the output.

    v[t] = decay * v[t-1] + g * x[t],    output v[t]        g = 1, or 1 - decay with `scale_input`

The usual last layer of a spiking network that is trained on membrane potentials.
"""

from __future__ import annotations

from typing import NamedTuple

from snnjax.neurons._inverses import inverse_or_refusal, smallest
from snnjax.neurons.lif import LIFState, charge, lif_inverse, lif_state
from snnjax.neurons.model import Model, Parameter, check_options
from snnjax.neurons.reset import none
from snnjax.typing import Array, bind

__all__ = ["LIParams", "li", "li_model"]


class LIParams(NamedTuple):
    """Parameters of `li`.

    Attributes:
        decay: fraction of the membrane potential kept per timestep, in (0, 1], a scalar or an
            array that broadcasts against one timestep.
    """

    decay: Parameter


def li(
    params: LIParams, state: LIFState, current: Array, *, scale_input: bool = False
) -> tuple[LIFState, Array]:
    """One timestep of leaky integrators.

        v[t] = decay * v[t-1] + g * x[t]        g = 1, or 1 - decay with `scale_input`

    Args:
        params: `decay`, fraction of the membrane potential kept per timestep.
        state: membrane potential after the last step, `[B, ...]`.
        current: input current, `[B, ...]`, in units of the membrane potential per timestep.
        scale_input: charge with `(1 - decay) * current`.

    Returns:
        The new state and the membrane potential, `[B, ...]`.
    """
    v = charge(params.decay, state.v, current, scale_input=scale_input)
    return LIFState(v), v


def li_model(*, decay: Parameter = 0.9, scale_input: bool = False) -> Model:
    """Model of leaky integrators (LI), the non-spiking readout.

        v[t] = decay * v[t-1] + g * x[t]        g = 1, or 1 - decay with `scale_input`

    Currents x `[T, B, ...]` in units of the membrane potential per timestep; the outputs are the
    membrane potentials v, `[T, B, ...]`.

    Args:
        decay: fraction of the membrane potential kept per timestep, in (0, 1]; a number, or an
            array that broadcasts against one timestep.
        scale_input: charge with `(1 - decay) * x`.
    """
    check_options("li_model", decay=decay)
    return Model(
        bind(li, scale_input=scale_input),
        LIParams(decay),
        lif_state,
        inverse=inverse_or_refusal(
            # A LI is a LIF that never fires: its step is undone without a reset.
            lif_inverse,
            decay=smallest(decay),
            reset=none,
            scale_input=scale_input,
        ),
        spiking=False,
        name="li",
    )
