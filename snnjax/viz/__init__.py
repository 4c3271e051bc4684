"""Pictures of activity, training and memory, and one HTML page to hold them.

Every function returns a `matplotlib.figure.Figure` and leaves matplotlib's global state alone;
matplotlib is imported when the first picture is made. Three submodules are public: `conversion`,
`plasticity` and `redundancy` draw the results of these packages.
"""

# As modules: their functions draw results of the packages of the same names.
from snnjax.viz import conversion, plasticity, redundancy
from snnjax.viz.activity import firing_rates, membranes, raster
from snnjax.viz.learning import (
    classes_over_time,
    learning_curve,
    predictions,
    predictions_over_time,
)
from snnjax.viz.memory import memory_curve
from snnjax.viz.page import page, save

__all__ = [
    "classes_over_time",
    "conversion",
    "firing_rates",
    "learning_curve",
    "membranes",
    "memory_curve",
    "page",
    "plasticity",
    "predictions",
    "predictions_over_time",
    "raster",
    "redundancy",
    "save",
]
