"""The published networks, put together.

                     diehl_cook              current_based           fspinn
    neuron           conductance             current                 either
    inhibition       layer, 10.4 and 17      layer or lateral        lateral
    rule             triplet                 pair                    windowed, post-triggered
    timestep         0.5 ms                  1 ms                    that of the neuron
    presentation     350 + 150 ms silence    250 ms, then reset      that of the neuron
    weights sum to   78                      78.4                    78.4
    peak rate        63.75 Hz                128 Hz                  that of the neuron

Peak rates are those of a white pixel. Where the original draws a delay of 0 to 10 ms for each
synapse of the input, there are no delays here.

Reference: P. U. Diehl, M. Cook, "Unsupervised learning of digit recognition using
spike-timing-dependent plasticity", 2015; H. Hazan et al., "BindsNET", 2018, arXiv:1806.01423 (the
current-based variant); R. V. W. Putra, M. Shafique, "FSpiNN", 2020, arXiv:2007.08860 (OUR
RECONSTRUCTION, see `plasticity.windowed`).
"""

from __future__ import annotations

import math

from snnjax.plasticity.cells import (
    ConductanceCell,
    CurrentCell,
    conductance_inhibitory,
    current_inhibitory,
)
from snnjax.plasticity.inhibition import InhibitoryLayer, LateralInhibition
from snnjax.plasticity.network import Network
from snnjax.plasticity.pair import PairParams, PairSTDP
from snnjax.plasticity.synapses import Format
from snnjax.plasticity.triplet import TripletParams, TripletSTDP
from snnjax.plasticity.windowed import WindowedParams, WindowedSTDP

__all__ = ["current_based", "diehl_cook", "fspinn"]


def diehl_cook(
    neurons: int,
    *,
    inputs: int = 784,
    dt: float = 0.5,
    block: float = 0.0,
    euler: bool = False,
    slots: int = 32,
    **changes,
) -> Network:
    """The conductance-based network.

    Args:
        neurons: N; as many inhibitory ones beside them.
        inputs: n.
        dt: Timestep, ms.
        block: ms in which a neuron lets no second spike through: 0, or the 50 that ports of the
            released code read in it.
        euler: Euler steps, as in the released code; unstable where many neurons fire together.
        slots: Spikes of all inputs in one timestep at most.
        **changes: Further fields of `Network`.
    """
    inhibitory = conductance_inhibitory(dt=dt, euler=euler)
    fields = {
        "cell": ConductanceCell(dt=dt, block=block, euler=euler),
        "inhibition": InhibitoryLayer(inhibitory, excitation=10.4, strength=17.0),
        "rule": TripletSTDP(
            TripletParams(
                decay_pre=math.exp(-dt / 20),
                decay_post_1=math.exp(-dt / 20),
                decay_post_2=math.exp(-dt / 40),
            )
        ),
        "timesteps": round(350 / dt),
        "rest": round(150 / dt),
        "total": 78.0,
        "least": 5,
    }
    return Network(inputs=inputs, neurons=neurons, slots=slots, **{**fields, **changes})


def current_based(
    neurons: int,
    *,
    inputs: int = 784,
    lateral: bool = False,
    strength: float = 120.0,
    slots: int = 64,
    **changes,
) -> Network:
    """The current-based network with pair STDP.

    Args:
        neurons: N.
        inputs: n.
        lateral: Inhibition straight from neuron to neuron, instead of through a layer.
        strength: Of the inhibition, mV.
        slots: Spikes of all inputs in one timestep at most.
        **changes: Further fields of `Network`.
    """
    decay = math.exp(-1 / 20)
    through = InhibitoryLayer(current_inhibitory(), strength=strength)
    fields = {
        "cell": CurrentCell(),
        "inhibition": LateralInhibition(strength) if lateral else through,
        "rule": PairSTDP(PairParams(decay_pre=decay, decay_post=decay)),
    }
    return Network(inputs=inputs, neurons=neurons, slots=slots, **{**fields, **changes})


def fspinn(
    neurons: int,
    *,
    inputs: int = 784,
    lateral: bool = True,
    post_triggered: bool = True,
    window: int | None = 10,
    spikes_per_factor: float | None = 4.0,
    strength: float = 120.0,
    form: Format | None = None,
    eta_pre: float = 1e-4,
    eta_post: float = 1e-2,
    slots: int = 64,
    **changes,
) -> Network:
    """FSpiNN on the current-based network, each technique a switch.

    With all of them off it is `current_based`.

    Args:
        neurons: N.
        inputs: n.
        lateral: Direct lateral inhibition.
        post_triggered: No update by presynaptic spikes.
        window: Timesteps per update; None updates at every spike. A window is post-triggered.
        spikes_per_factor: Of the potentiation factor; None is a factor of 1. It needs a window.
        strength: Of the inhibition, mV.
        form: Fixed-point format of the weights, such as `quantization.QFormat(0, 8)`.
        eta_pre: Depression.
        eta_post: Potentiation.
        slots: Spikes of all inputs in one timestep at most.
        **changes: Further fields of `Network`.

    Raises:
        ValueError: a window with `post_triggered=False`.
    """
    if window is not None and not post_triggered:
        raise ValueError("windowed updates are post-triggered: post_triggered=True, or window=None")
    rates = {"eta_pre": eta_pre, "eta_post": eta_post}
    decays = {"decay_pre": math.exp(-1 / 20), "decay_post": math.exp(-1 / 20)}
    if window is None:
        rule = PairSTDP(PairParams(**rates, **decays), depress=not post_triggered)
    else:
        params = WindowedParams(**rates, **decays)
        rule = WindowedSTDP(params, window=window, spikes_per_factor=spikes_per_factor)
    options = {"rule": rule, "form": form, **changes}
    return current_based(
        neurons, inputs=inputs, lateral=lateral, strength=strength, slots=slots, **options
    )
