"""Metrics: what is reported and not differentiated. Padded examples have weight 0.

    accuracy           share of examples whose largest logit is the label
    correct            which examples these are, 1 or 0 each
    clip_accuracy      share of recordings of whose clips more than half are right
    top_k_accuracy     share of examples whose label is among the k largest
    confusion_matrix   who is taken for whom
    firing_rates       spikes per neuron and timestep of each layer, from the taps of a forward pass
    nasfr              the same of the network as a whole, every neuron counting once

Costs, the counts that NeuroBench defines and what it leaves out:

    connection_sparsity    share of weights that are zero
    activation_sparsity    share of outputs of neurons that are zero
    synaptic_operations    products of one connection, effective and dense
    membrane_updates       how often membranes move; `neuron_operations` of so many
    attention_products     products of activations with each other; `multiplications` of any number

Over several batches, average these with the sum of each batch's weights.
"""

from snnjax.metrics.accuracy import (
    accuracy,
    clip_accuracy,
    confusion_matrix,
    correct,
    top_k_accuracy,
)
from snnjax.metrics.firing import firing_rates, nasfr
from snnjax.metrics.operations import Operations, fan_out, synaptic_operations
from snnjax.metrics.products import Products, attention_products, multiplications
from snnjax.metrics.sparsity import (
    activation_sparsity,
    connection_sparsity,
    membrane_updates,
    neuron_operations,
)

__all__ = [
    "Operations",
    "Products",
    "accuracy",
    "activation_sparsity",
    "attention_products",
    "clip_accuracy",
    "confusion_matrix",
    "connection_sparsity",
    "correct",
    "fan_out",
    "firing_rates",
    "membrane_updates",
    "multiplications",
    "nasfr",
    "neuron_operations",
    "synaptic_operations",
    "top_k_accuracy",
]
