"""What a network costs to run: synaptic operations, energy at 45 nm, memory traffic.

    tally    = cost.measure(network, frames)           counts, from one forward pass
    counts   = cost.neurobench(network, tally)         the figures as NeuroBench defines them
    estimate = cost.energy(tally)                      the estimate that papers print, by five rules

The two are reports of their own and do not mix: one counts what is not zero and excludes padding,
the other is the field's arithmetic of dense operations and mean rates. `cost.ZOO` holds a
configuration of every model, for `snnjax cost`. `cost.plasticity_cost` is of networks that learn by
plasticity.
"""

from snnjax.cost.energy import BREAK_EVEN, Energy, energy, millijoules
from snnjax.cost.measure import counted, measure, over_time, settled, tally
from snnjax.cost.neurobench import NeuroBench, neurobench, uncounted
from snnjax.cost.selection import Budgets, Candidate, chosen, front, over_budget
from snnjax.cost.tally import Connection, Product, Tally
from snnjax.cost.unsupervised import (
    PlasticityCost,
    PlasticityOperations,
    dense_bytes,
    plasticity_cost,
    synapse_bytes,
)
from snnjax.cost.zoo import ZOO, Case

__all__ = [
    "BREAK_EVEN",
    "ZOO",
    "Budgets",
    "Candidate",
    "Case",
    "Connection",
    "Energy",
    "NeuroBench",
    "PlasticityCost",
    "PlasticityOperations",
    "Product",
    "Tally",
    "chosen",
    "counted",
    "dense_bytes",
    "energy",
    "front",
    "measure",
    "millijoules",
    "neurobench",
    "over_budget",
    "over_time",
    "plasticity_cost",
    "settled",
    "synapse_bytes",
    "tally",
    "uncounted",
]
