"""Conversion of trained networks into spiking ones."""

from snnjax.conversion import activations
from snnjax.conversion.activations import (
    QCFS,
    ReLU,
    ThresholdReLU,
    qcfs,
    shifted_threshold_relu,
    threshold_relu,
)
from snnjax.conversion.flax_networks import from_flax, from_function

__all__ = [
    "QCFS",
    "ReLU",
    "ThresholdReLU",
    "activations",
    "from_flax",
    "from_function",
    "qcfs",
    "shifted_threshold_relu",
    "threshold_relu",
]
