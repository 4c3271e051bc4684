"""Pictures of spiking activity, of redundancy and of training, and one HTML page to hold them.

Every function gives a `matplotlib.figure.Figure` and leaves matplotlib's global state alone;
matplotlib is imported when the first picture is made, not before.
"""

from snnjax.viz.activity import firing_rates, frames, membranes, raster
from snnjax.viz.distributions import Distribution, distributions
from snnjax.viz.learning import learning_curve
from snnjax.viz.memory import memory_curve
from snnjax.viz.page import page, save
from snnjax.viz.prediction import predictions
from snnjax.viz.redundancy import class_shares, compared_rates, spike_features
from snnjax.viz.trade_off import trade_off
from snnjax.viz.weights import receptive_fields

__all__ = [
    "Distribution",
    "class_shares",
    "compared_rates",
    "distributions",
    "firing_rates",
    "frames",
    "learning_curve",
    "membranes",
    "memory_curve",
    "page",
    "predictions",
    "raster",
    "receptive_fields",
    "save",
    "spike_features",
    "trade_off",
]
