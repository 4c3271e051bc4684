"""Conversion of trained networks into spiking ones.

A source network has activations in place of neurons (`activations`); `to_spiking` replaces them by
integrate-and-fire neurons, whose thresholds `calibrate` measures. Public modules hold the parts:

    activations    base class of activations of your own
    layers         rules per layer, units, and the method `to_spiking` of layers of your own
    progressive    conversion layer by layer, with training between
    tandem         layers of spike counts with the gradient of rectified ones
"""

from snnjax.conversion import activations, layers, progressive, tandem
from snnjax.conversion.activations import (
    QCFS,
    ReLU,
    ThresholdReLU,
    qcfs,
    shifted_threshold_relu,
    threshold_relu,
)
from snnjax.conversion.calibration import calibrate, spiking_thresholds
from snnjax.conversion.diagnosis import LayerError, layer_errors
from snnjax.conversion.folding import Scale, fold_batch_norm
from snnjax.conversion.simulation import mean_outputs
from snnjax.conversion.spiking import activation_names, to_spiking

__all__ = [
    "LayerError",
    "QCFS",
    "ReLU",
    "Scale",
    "ThresholdReLU",
    "activation_names",
    "activations",
    "calibrate",
    "fold_batch_norm",
    "layer_errors",
    "layers",
    "mean_outputs",
    "progressive",
    "qcfs",
    "shifted_threshold_relu",
    "spiking_thresholds",
    "tandem",
    "threshold_relu",
    "to_spiking",
]
