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
from snnjax.quantization.plans import FirstOf, Kernels, NeuronParameters, Plan, quantized
from snnjax.quantization.quantizer import Quantized, Quantizer
from snnjax.quantization.shared_scale_lif import (
    IntegerParams,
    SharedScaleParams,
    SharedScaleState,
    integer_form,
    integer_lif,
    shared_codes,
    shared_scale_lif,
)
from snnjax.quantization.storage import Footprint, Stored, restore, store
from snnjax.quantization.sub_bit import (
    Codebook,
    all_patterns,
    nearest_pattern,
    random_codebook,
    random_patterns,
    refine,
    refresh,
    used_patterns,
    with_refinement,
)
from snnjax.quantization.sub_bit_lookup import (
    SubBitKernels,
    bit_operations,
    index_bits,
    integer_threshold,
    lookup_counts,
    patch_codes,
    product_table,
    store_kernels,
)
from snnjax.quantization.words import Packed, pack, unpack

__all__ = [
    "Codebook",
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
    "SubBitKernels",
    "all_patterns",
    "bit_operations",
    "index_bits",
    "integer_form",
    "integer_lif",
    "integer_threshold",
    "lookup_counts",
    "nearest",
    "nearest_pattern",
    "pack",
    "patch_codes",
    "product_table",
    "quantized",
    "random_codebook",
    "random_patterns",
    "refine",
    "refresh",
    "restore",
    "shared_codes",
    "shared_scale_lif",
    "stochastic",
    "store",
    "store_kernels",
    "straight_through",
    "truncate",
    "unpack",
    "used_patterns",
    "with_refinement",
]
