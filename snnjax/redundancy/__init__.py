"""Redundancy of a network: spike features, distributions of potentials, channels without content.

    sums = None
    for batch in batches:
        outputs, aux = net(frames, state, training=False, taps=redundancy.TAPS)
        part = redundancy.measure(aux.taps, weights=batch.weights)     # jitted with the network
        sums = redundancy.add(sums, part)
    result = redundancy.report(sums)
    result.nasfr, result.layers["lif3"].shares, result.layers["lif3"].currents.share_above

The `TAPS` of all layers exist for one batch at a time. Over a data set only sums are kept: spike
maps of the size of a layer's spikes for one example, and histograms. Rates equal those that
`training.evaluate` streams.

Reference: Yao, Hu, Zhao, Wang, Zhang, Xu, Li, "Inherent Redundancy in Spiking Neural Networks",
ICCV 2023, arXiv:2308.08227. Its released code shows maps and distributions and leaves it to the eye
to tell null, normal and noise features apart: the rule and its `Thresholds` are ours.
"""

from snnjax.redundancy.classes import Thresholds
from snnjax.redundancy.report import Report, compare, report
from snnjax.redundancy.sums import TAPS, add, measure

__all__ = ["TAPS", "Report", "Thresholds", "add", "compare", "measure", "report"]
