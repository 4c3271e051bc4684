"""Metrics: numbers for reports, not differentiated. Padded examples have weight 0.

    accuracy               share of examples whose largest logit is the label
    clip_accuracy          share of recordings with most clips classified correctly
    top_k_accuracy         share of examples whose label is among the k largest logits
    confusion_matrix       counts of each pair of label and answer
    median_relative_error  error of vectors over the targets' length, at moving targets
    firing_rates           spikes per neuron and timestep of each layer, from taps
    nasfr                  spikes per neuron and timestep of the whole network
    connection_sparsity    share of weights that are zero
    activation_sparsity    share of outputs of neurons that are zero
    operations             submodule: counts of synaptic, attention and neuron operations

To average over several batches, weigh each by the sum of its weights.
"""

from snnjax.metrics import operations
from snnjax.metrics.accuracy import (
    accuracy,
    clip_accuracy,
    confusion_matrix,
    correct,
    top_k_accuracy,
)
from snnjax.metrics.firing import activation_sparsity, connection_sparsity, firing_rates, nasfr
from snnjax.metrics.regression import median_relative_error

__all__ = [
    "accuracy",
    "activation_sparsity",
    "clip_accuracy",
    "confusion_matrix",
    "connection_sparsity",
    "correct",
    "firing_rates",
    "median_relative_error",
    "nasfr",
    "operations",
    "top_k_accuracy",
]
