"""What a network wastes: spike features, potentials, and channels that say nothing.

    sums = None
    for batch in batches:                           # jitted, nothing else leaves the device
        outputs, aux = net(frames, state, training=False, taps=redundancy.TAPS)
        sums = redundancy.add(sums, redundancy.measure(aux.taps, weights=batch.weights))
    found = redundancy.report(sums)
    found.nasfr, found.layers["lif3"].shares, found.layers["lif3"].currents.above

`TAPS` of all layers of one batch exist at once; of a data set there are only sums, of the size of a
layer's spikes for one example, and histograms. Rates are those that `training.evaluate` streams.

Reference: Yao, Hu, Zhao, Wang, Zhang, Xu, Li, "Inherent Redundancy in Spiking Neural Networks",
ICCV 2023, arXiv:2308.08227. Its released code shows maps and distributions, and leaves it to the
eye which of them are null, normal or noise: the rule and its thresholds are ours, see `classify`.
"""

from snnjax.redundancy.classes import CLASSES, Thresholds, classify, shares
from snnjax.redundancy.comparison import Comparison, compare
from snnjax.redundancy.histogram import Bins, Histogram
from snnjax.redundancy.report import Layer, Report, report
from snnjax.redundancy.sums import TAPS, Sums, add, measure

__all__ = [
    "CLASSES",
    "TAPS",
    "Bins",
    "Comparison",
    "Histogram",
    "Layer",
    "Report",
    "Sums",
    "Thresholds",
    "add",
    "classify",
    "compare",
    "measure",
    "report",
    "shares",
]
