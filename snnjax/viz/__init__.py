"""Pictures of activity, training and memory, and one HTML page to hold them.

Every function returns a `matplotlib.figure.Figure` and leaves matplotlib's global state alone;
matplotlib is imported when the first picture is made. Three submodules are public: `conversion`,
`plasticity` and `redundancy` draw the results of these packages.
"""

# As modules: their functions draw results of the packages of the same names.
from snnjax.viz import conversion, plasticity, redundancy
from snnjax.viz.activity import firing_rates, membranes, raster
from snnjax.viz.learning import learning_curve, predictions
from snnjax.viz.memory import memory_curve
from snnjax.viz.page import page, save

__all__ = [
    "conversion",
    "firing_rates",
    "learning_curve",
    "membranes",
    "memory_curve",
    "page",
    "plasticity",
    "predictions",
    "raster",
    "redundancy",
    "save",
]
