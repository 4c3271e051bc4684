"""Pictures of spiking activity and of training, and one HTML page to hold them.

Every function gives a `matplotlib.figure.Figure` and leaves matplotlib's global state alone;
matplotlib is imported when the first picture is made, not before.
"""

from snnjax.viz.activity import firing_rates, frames, membranes, raster
from snnjax.viz.learning import learning_curve
from snnjax.viz.memory import memory_curve
from snnjax.viz.page import page, save

__all__ = [
    "firing_rates",
    "frames",
    "learning_curve",
    "membranes",
    "memory_curve",
    "page",
    "raster",
    "save",
]
