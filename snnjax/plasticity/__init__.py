"""Plasticity: learning without gradients and without labels, as pure steps scanned over time.

    network = plasticity.presets.current_based(400)
    state = plasticity.initialize(network, key)
    state, record = plasticity.present(network, state, rates, key, learning=True)

Parts of networks and rules are in the public modules of this package:

    presets                            networks of publications
    network                            states and records of a network
    cells, inhibition, homeostasis     neurons, competition, adaptive thresholds
    pair, triplet, windowed            STDP: dense steps, and the same rules on spike lists
    reward                             STDP modulated by a reward
    traces, weight_dependence          ingredients of rules
    labels                             readout: assignment of neurons to classes

Example: `plasticity.pair.pair_stdp` is a step for every scan of `snnjax.memory`,
`plasticity.pair.PairSTDP` the same rule for a `plasticity.Network`.
"""

from snnjax.plasticity import (
    cells,
    homeostasis,
    inhibition,
    labels,
    network,
    pair,
    presets,
    reward,
    traces,
    triplet,
    weight_dependence,
    windowed,
)
from snnjax.plasticity.network import Network, initialize, present

__all__ = [
    "network",
    "presets",
    "Network",
    "cells",
    "homeostasis",
    "inhibition",
    "initialize",
    "labels",
    "pair",
    "present",
    "reward",
    "traces",
    "triplet",
    "weight_dependence",
    "windowed",
]
