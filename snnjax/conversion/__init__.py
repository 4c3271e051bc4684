"""Conversion of trained networks into spiking ones."""

from snnjax.conversion import activations, progressive, tandem
from snnjax.conversion.activations import (
    QCFS,
    ReLU,
    ThresholdReLU,
    qcfs,
    shifted_threshold_relu,
    threshold_relu,
)

__all__ = [
    "QCFS",
    "ReLU",
    "ThresholdReLU",
    "activations",
    "progressive",
    "qcfs",
    "shifted_threshold_relu",
    "tandem",
    "threshold_relu",
]
