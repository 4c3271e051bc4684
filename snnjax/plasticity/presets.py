"""Constructors of the published networks.

                     diehl_cook              current_based           fspinn
    neuron           conductance             current                 either
    inhibition       layer, 10.4 and 17      layer or lateral        lateral
    rule             triplet                 pair                    windowed, post-triggered
    timestep         0.5 ms                  1 ms                    that of the neuron
    presentation     350 + 150 ms silence    250 ms, then reset      that of the neuron
    weight sum       78                      78.4                    78.4
    peak rate        63.75 Hz                128 Hz                  that of the neuron
    decay of theta   with 20 mV of base      the offset alone        the offset alone

The base decays in the released code of the original: from a start of 20 mV, the whole adaptive
threshold falls with a time constant of 1e7 ms, 19 mV in a pass over 60,000 images without spikes.
The peak rate is that of a white pixel. The original draws a delay of 0 to 10 ms for each input
synapse; these networks have no delays.

Reference: P. U. Diehl, M. Cook, "Unsupervised learning of digit recognition using
spike-timing-dependent plasticity", 2015; H. Hazan et al., "BindsNET", 2018, arXiv:1806.01423 (the
current-based variant); R. V. W. Putra, M. Shafique, "FSpiNN", 2020, arXiv:2007.08860 (OUR
RECONSTRUCTION, see `plasticity.windowed`).
"""

from __future__ import annotations

import math

from snnjax.plasticity._synapses import Format
from snnjax.plasticity.cells import (
    ConductanceCell,
    CurrentCell,
    conductance_inhibitory,
    current_inhibitory,
)
from snnjax.plasticity.homeostasis import AdaptiveThreshold
from snnjax.plasticity.inhibition import InhibitoryLayer, LateralInhibition
from snnjax.plasticity.network import Network
from snnjax.plasticity.pair import PairParams, PairSTDP
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
    """Makes the conductance-based network of Diehl and Cook with triplet STDP.

    Args:
        neurons: Number of excitatory neurons, N; the network has N inhibitory ones beside them.
        inputs: Number of inputs, n.
        dt: Timestep, ms.
        block: Time for which a second spike of a neuron is suppressed, ms: 0, or 50 as ports of the
            released code have it.
        euler: Integrates by Euler steps, as the released code does; unstable where many neurons
            fire together.
        slots: Largest number of input spikes in one timestep.
        **changes: Further fields of `Network`; `threshold=AdaptiveThreshold()` lets only the
            offset decay, and keeps the threshold of a silent neuron.

    Returns:
        The configuration of the network.
    """
    inhibitory = conductance_inhibitory(dt=dt, euler=euler)
    fields = {
        "cell": ConductanceCell(dt=dt, block=block, euler=euler),
        # The original adapts 20 mV of its threshold of -72 + 20 mV, and lets all of them decay.
        "threshold": AdaptiveThreshold(base=20.0),
        # Conductances, in units of the leak.
        "inhibition": InhibitoryLayer(inhibitory, excitation=10.4, strength=17.0),
        "rule": TripletSTDP(
            TripletParams(
                # Time constants of the original: 20, 20 and 40 ms, at any timestep.
                decay_pre=math.exp(-dt / 20),
                decay_post_1=math.exp(-dt / 20),
                decay_post_2=math.exp(-dt / 40),
            )
        ),
        "timesteps": round(350 / dt),
        "silence": round(150 / dt),
        # The original's sum; 78.4 is that of the current-based variant.
        "total": 78.0,
        # The original repeats an example that evokes fewer than 5 spikes.
        "min_spikes": 5,
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
    """Makes the current-based network with pair STDP.

    Args:
        neurons: Number of excitatory neurons, N.
        inputs: Number of inputs, n.
        lateral: Inhibits directly from neuron to neuron instead of through a layer.
        strength: Inhibition of every other neuron by one spike, mV.
        slots: Largest number of input spikes in one timestep.
        **changes: Further fields of `Network`.

    Returns:
        The configuration of the network.
    """
    decay = math.exp(-1 / 20)  # 20 ms at a timestep of 1 ms
    layer = InhibitoryLayer(current_inhibitory(), strength=strength)
    fields = {
        "cell": CurrentCell(),
        "inhibition": LateralInhibition(strength) if lateral else layer,
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
    """Makes the current-based network with the techniques of FSpiNN, each a switch.

    With all techniques off it is `current_based`.

    Args:
        neurons: Number of excitatory neurons, N.
        inputs: Number of inputs, n.
        lateral: Inhibits directly from neuron to neuron.
        post_triggered: Leaves out the updates by presynaptic spikes.
        window: Timesteps per update; None updates at every spike. A window is post-triggered.
        spikes_per_factor: Spike count per unit of the potentiation factor; None is a factor of 1.
            It applies to windows only.
        strength: Inhibition of every other neuron by one spike, mV.
        form: Fixed-point format of the weights, such as `quantization.QFormat(0, 8)`; None is
            float32.
        eta_pre: Learning rate of depression.
        eta_post: Learning rate of potentiation.
        slots: Largest number of input spikes in one timestep.
        **changes: Further fields of `Network`.

    Returns:
        The configuration of the network.

    Raises:
        ValueError: `window` is set and `post_triggered` is False.
    """
    if window is not None and not post_triggered:
        # Refused and not ignored: a window has no updates by presynaptic spikes at all.
        raise ValueError("windowed updates are post-triggered: post_triggered=True, or window=None")
    rates = {"eta_pre": eta_pre, "eta_post": eta_post}
    decays = {"decay_pre": math.exp(-1 / 20), "decay_post": math.exp(-1 / 20)}
    if window is None:
        rule = PairSTDP(PairParams(**rates, **decays), depress=not post_triggered)
    else:
        params = WindowedParams(**rates, **decays)
        rule = WindowedSTDP(params, window=window, spikes_per_factor=spikes_per_factor)
    # `changes` last, so that a caller may replace any field.
    options = {"rule": rule, "form": form, **changes}
    return current_based(
        neurons, inputs=inputs, lateral=lateral, strength=strength, slots=slots, **options
    )
