"""Sub-bit kernels as they are stored: numbers of tau bits each, a codebook and a scale per output.

    bytes = ceil(tau C D / 8) + ceil(9 2^tau / 8) + 4 D          (a layer from C to D channels)

against `36 C D` of float32. Kernel numbers and the nine signs of a pattern lie one after the other
without a gap (`packing`).

Reference: Wang, Yang, Sun, Yao, "Sub-bit Neural Networks: Learning to Compress and Accelerate
Binary Neural Networks", ICCV 2021, arXiv:2110.09195. Its tables count the bits of the numbers alone
(`index_bits`); the layout in bytes is ours.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from snnjax.quantization.packing import pack, unpack
from snnjax.quantization.sub_bit import (
    FULL_BITS,
    check_bits,
    code_of,
    columns,
    kernel_of,
    nearest_pattern,
    output_scale,
    pattern_of,
)
from snnjax.typing import Array

__all__ = ["SubBitKernels", "index_bits", "store_kernels"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SubBitKernels:
    """The stored kernels of a convolution from C to D channels; made by `store_kernels`.

    Attributes:
        numbers: which pattern each kernel is, `[D, C]` packed to uint8 `[ceil(tau C D / 8)]`.
        codebook: codes of the patterns, packed to uint8 `[ceil(9 2^tau / 8)]`.
        scale: of each output, float32 `[D]`.
        channels: C.
        bits_per_kernel: tau.
    """

    numbers: Array
    codebook: Array
    scale: Array
    channels: int = dataclasses.field(metadata={"static": True})
    bits_per_kernel: int = dataclasses.field(metadata={"static": True})

    @property
    def nbytes(self) -> int:
        """Bytes of the three arrays."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self))

    def kernel_numbers(self) -> Array:
        """Which pattern each kernel is, int32 `[D, C]`."""
        shape = (len(self.scale), self.channels)
        return unpack(self.numbers, self.bits_per_kernel, shape=shape).astype(jnp.int32)

    def patterns(self) -> Array:
        """The codebook, -1 or 1, float32 `[2^tau, 9]`."""
        count = (2**self.bits_per_kernel,)
        return pattern_of(unpack(self.codebook, FULL_BITS, shape=count))

    def kernel(self) -> Array:
        """The signs that the layer convolves with, float32 `[3, 3, C, D]`."""
        return kernel_of(self.patterns()[self.kernel_numbers()])


def store_kernels(kernel: Array, patterns: Array) -> SubBitKernels:
    """Assigns latent kernels to their patterns and packs what is left.

    Args:
        kernel: latent, `[3, 3, C, D]`.
        patterns: the codebook, -1 or 1, `[2^tau, 9]`.

    Raises:
        ValueError: the window is not 3x3; the number of patterns is not `2^tau`, tau from 1 to 9.
    """
    bits = len(patterns).bit_length() - 1
    check_bits(bits)
    if len(patterns) != 2**bits:
        raise ValueError(f"a codebook holds 2^tau patterns, got {len(patterns)}: add or drop some")
    kernels = columns(kernel)
    return SubBitKernels(
        numbers=pack(nearest_pattern(kernels, patterns), bits),
        codebook=pack(code_of(patterns), FULL_BITS),
        scale=output_scale(kernels),
        channels=kernel.shape[2],
        bits_per_kernel=bits,
    )


def index_bits(kernels: int, *, bits_per_kernel: int) -> int:
    """Bits of the numbers of so many 3x3 kernels, `tau K`, as the paper's tables count parameters.

    For the 1,220,608 kernels of a ResNet-18's 16 3x3 convolutions 10.99, 7.32, 6.10 and 4.88 Mbit
    at tau = 9, 6, 5, 4. Codebooks, `9 2^tau` bits for each layer, and scales are not in it.

    Args:
        kernels: K, the product of channels in and out, summed over the layers.
        bits_per_kernel: tau, 1 to 9.

    Raises:
        ValueError: no such number of bits.
    """
    check_bits(bits_per_kernel)
    return bits_per_kernel * kernels
