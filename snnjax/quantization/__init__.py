"""Few bits per weight: fixed point and its rounding, packed storage, shared scales.

Pure functions on arrays; the layers that use them are in `snnjax.nn`.
"""

from snnjax.quantization.fixed_point import (
    QFormat,
    nearest,
    stochastic,
    straight_through,
    truncate,
)
from snnjax.quantization.packing import Packed, pack, unpack
from snnjax.quantization.plans import FirstOf, Kernels, NeuronParameters, Plan, quantized
from snnjax.quantization.quantizer import Quantized, Quantizer
from snnjax.quantization.storage import Footprint, Stored, restore, store

__all__ = [
    "FirstOf",
    "Footprint",
    "Kernels",
    "NeuronParameters",
    "Packed",
    "Plan",
    "QFormat",
    "Quantized",
    "Quantizer",
    "Stored",
    "nearest",
    "pack",
    "quantized",
    "restore",
    "stochastic",
    "store",
    "straight_through",
    "truncate",
    "unpack",
]
