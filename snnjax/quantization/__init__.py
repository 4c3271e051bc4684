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

__all__ = [
    "Packed",
    "QFormat",
    "nearest",
    "pack",
    "stochastic",
    "straight_through",
    "truncate",
    "unpack",
]
