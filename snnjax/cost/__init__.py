"""Cost of running a network: synaptic operations, energy at 45 nm, memory traffic.

    tally    = cost.measure(network, frames)           counts from one forward pass
    figures  = cost.neurobench(network, tally)         figures as NeuroBench defines them
    estimate = cost.energy(tally)                      the estimate that papers print, by five rules

The two reports are separate: NeuroBench counts nonzero factors and excludes padding; the energy
estimate is the field's arithmetic of dense operations and mean rates. `cost.ZOO` holds a
configuration of every model, for `snnjax cost`. Public modules hold the parts:

    counting        the forward pass and its sums, for a loop over a data set
    unsupervised    networks that learn by plasticity
    selection       choice by accuracy, bytes and energy
"""

from snnjax.cost import counting, selection, unsupervised
from snnjax.cost.counting import measure
from snnjax.cost.energy import BREAK_EVEN, energy
from snnjax.cost.neurobench import neurobench
from snnjax.cost.zoo import ZOO

__all__ = [
    "BREAK_EVEN",
    "ZOO",
    "counting",
    "energy",
    "measure",
    "neurobench",
    "selection",
    "unsupervised",
]
