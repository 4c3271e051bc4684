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
from snnjax.quantization.shared_scale import (
    IntegerParams,
    SharedScaleParams,
    SharedScaleState,
    integer_form,
    integer_lif,
    shared_codes,
    shared_scale_lif,
)
from snnjax.quantization.storage import Footprint, Stored, restore, store

__all__ = [
    "FirstOf",
    "Footprint",
    "IntegerParams",
    "Kernels",
    "NeuronParameters",
    "Packed",
    "Plan",
    "QFormat",
    "Quantized",
    "Quantizer",
    "SharedScaleParams",
    "SharedScaleState",
    "Stored",
    "integer_form",
    "integer_lif",
    "nearest",
    "pack",
    "quantized",
    "restore",
    "shared_codes",
    "shared_scale_lif",
    "stochastic",
    "store",
    "straight_through",
    "truncate",
    "unpack",
]
