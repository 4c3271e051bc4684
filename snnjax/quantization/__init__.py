"""Quantization: fixed point and its rounding, packed storage, few bits per weight.

    format = quantization.QFormat(0, 7, signed=True)                     fixed point on [-1, 1)
    plan = quantization.plans.Kernels(quantization.Quantizer(4))         4 bits per weight
    stored = quantization.store(network, plan)                           packed arrays
    network = quantization.restore(stored)

The entry points are functions on arrays and pytrees; the layers that use them are in `snnjax.nn`.
Public modules hold their parts:

    fixed_point                 rounding: nearest, truncate, stochastic, straight_through
    plans                       choice of a format by the name of an array
    words                       packed codes of 1 to 16 bits
    shared_scale_lif            LIF neurons on the scale of their weights, in integers
    sub_bit, sub_bit_lookup     binary 3x3 kernels from a codebook; their stored form
"""

from snnjax.quantization import fixed_point, plans, shared_scale_lif, sub_bit, sub_bit_lookup, words
from snnjax.quantization.fixed_point import QFormat
from snnjax.quantization.plans import quantize
from snnjax.quantization.quantizer import Quantizer
from snnjax.quantization.storage import restore, store

__all__ = [
    "QFormat",
    "Quantizer",
    "fixed_point",
    "plans",
    "quantize",
    "restore",
    "shared_scale_lif",
    "store",
    "sub_bit",
    "sub_bit_lookup",
    "words",
]
