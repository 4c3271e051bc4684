"""Plasticity: learning without gradients and without labels, as pure steps scanned over time.

traces.py  weight_dependence.py      what rules are made of
pair.py  triplet.py  windowed.py     STDP: dense steps, and the same on lists of spikes
reward.py                            STDP that waits for a reward
homeostasis.py  inhibition.py        adaptive thresholds, weight sums, competition
synapses.py                          weights by rows and columns, in float32 or fixed point
cells.py  network.py  presets.py     the networks of Diehl and Cook, BindsNET and FSpiNN
labels.py                            which class a neuron answers to
"""

from snnjax.plasticity.cells import (
    ConductanceCell,
    ConductanceState,
    CurrentCell,
    CurrentState,
    conductance_inhibitory,
    current_inhibitory,
)
from snnjax.plasticity.homeostasis import AdaptiveThreshold, normalize, normalized
from snnjax.plasticity.inhibition import InhibitoryLayer, LateralInhibition, others, through
from snnjax.plasticity.labels import (
    Responses,
    all_activity,
    assign,
    no_responses,
    proportion,
    seen,
)
from snnjax.plasticity.network import (
    Activity,
    Network,
    NetworkState,
    Presentation,
    float_weights,
    initialize,
    present,
)
from snnjax.plasticity.pair import PairParams, PairState, PairSTDP, pair_state, pair_stdp
from snnjax.plasticity.presets import current_based, diehl_cook, fspinn
from snnjax.plasticity.reward import RewardParams, RewardState, reward_state, reward_stdp
from snnjax.plasticity.synapses import Format
from snnjax.plasticity.traces import Trace, latest, summed
from snnjax.plasticity.triplet import (
    TripletParams,
    TripletState,
    TripletSTDP,
    triplet_state,
    triplet_stdp,
)
from snnjax.plasticity.weight_dependence import Additive, Multiplicative, Power, WeightDependence
from snnjax.plasticity.windowed import WindowedParams, WindowedSTDP, potentiation_factor

__all__ = [
    "Activity",
    "AdaptiveThreshold",
    "Additive",
    "ConductanceCell",
    "ConductanceState",
    "CurrentCell",
    "CurrentState",
    "Format",
    "InhibitoryLayer",
    "LateralInhibition",
    "Multiplicative",
    "Network",
    "NetworkState",
    "PairParams",
    "PairSTDP",
    "PairState",
    "Power",
    "Presentation",
    "Responses",
    "RewardParams",
    "RewardState",
    "Trace",
    "TripletParams",
    "TripletSTDP",
    "TripletState",
    "WeightDependence",
    "WindowedParams",
    "WindowedSTDP",
    "all_activity",
    "assign",
    "conductance_inhibitory",
    "current_based",
    "current_inhibitory",
    "diehl_cook",
    "float_weights",
    "fspinn",
    "initialize",
    "latest",
    "no_responses",
    "normalize",
    "normalized",
    "others",
    "pair_state",
    "pair_stdp",
    "potentiation_factor",
    "present",
    "proportion",
    "reward_state",
    "reward_stdp",
    "seen",
    "summed",
    "through",
    "triplet_state",
    "triplet_stdp",
]
