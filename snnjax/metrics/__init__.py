"""Metrics: what is reported and not differentiated. Padded examples have weight 0.

    accuracy           share of examples whose largest logit is the label
    top_k_accuracy     share of examples whose label is among the k largest
    confusion_matrix   who is taken for whom
    firing_rates       spikes per neuron and timestep of each layer, from the taps of a forward pass
    nasfr              the same of the network as a whole, every neuron counting once

Over several batches, average these with the sum of each batch's weights.
"""

from snnjax.metrics.accuracy import accuracy, confusion_matrix, top_k_accuracy
from snnjax.metrics.firing import firing_rates, nasfr

__all__ = ["accuracy", "confusion_matrix", "firing_rates", "nasfr", "top_k_accuracy"]
