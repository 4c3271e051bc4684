"""Stored sub-bit kernels and their integer convolution of spikes by table lookup.

**Storage.** A layer from C to D channels stores an index of tau bits per kernel, a codebook and a
scale per output:

    bytes = ceil(tau C D / 8) + ceil(9 2^tau / 8) + 4 D          (36 C D in float32)

Indices and the nine signs of each pattern are packed without gaps (`quantization.words`).

**Convolution.** A 3x3 patch of one channel of spikes is one of 512 codes, and a kernel is one of
the patterns of a small codebook. A table holds all their products, -9 to 9, for the whole layer:

    code[n, o, c] = sum_i 2^i spikes[n, o + offset i of the window, c]
    T[x, j]       = sum_i p_j[i] [bit i of x] = 2 popcount(x & code of p_j) - popcount(x)
    count[n,o,d]  = sum_c T[code[n, o, c], index[d, c]]

Each channel and position reads `2^tau` products, shared by all outputs, and everything else is
additions. The scale of an output moves into the threshold: `s count >= v_th` exactly where
`count >= n` for the smallest such integer n, so a spike needs no multiplication.

The count is exact, as is a convolution of spikes with +-1 in float32 below 2^24, so both are equal.
This form models and verifies the arithmetic of hardware. On a CPU XLA's convolution is faster: from
[32, 14, 14, 32] to 64 channels at tau = 5 it takes 1.9 ms of one core, the lookup 10.5 ms (jax
0.10.2).

Reference: Wang, Yang, Sun, Yao, "Sub-bit Neural Networks: Learning to Compress and Accelerate
Binary Neural Networks", ICCV 2021, arXiv:2110.09195, for the shared products of few patterns; its
tables count the bits of the indices alone (`index_bits`). Ours: the layout in bytes, the table over
codes of spikes and the folded threshold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from snnjax.quantization.sub_bit import (
    FULL_BITS,
    check_bits,
    decode_patterns,
    encode_patterns,
    join_kernels,
    nearest_pattern,
    output_scale,
    split_kernels,
)
from snnjax.quantization.words import pack, unpack
from snnjax.typing import Array

__all__ = [
    "SubBitKernels",
    "bit_operations",
    "index_bits",
    "integer_threshold",
    "lookup_counts",
    "patch_codes",
    "product_table",
    "store_kernels",
]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SubBitKernels:
    """Stored kernels of a convolution from C to D channels, made by `store_kernels`.

    Attributes:
        indices: Pattern index of each kernel, `[D, C]` packed to uint8 `[ceil(tau C D / 8)]`.
        codebook: Codes of the patterns, packed to uint8 `[ceil(9 2^tau / 8)]`.
        scale: Scale of each output, float32 `[D]`.
        channels: Number of input channels, C.
        bits_per_kernel: Bits per kernel, tau.
    """

    indices: Array
    codebook: Array
    scale: Array
    channels: int = dataclasses.field(metadata={"static": True})
    bits_per_kernel: int = dataclasses.field(metadata={"static": True})

    @property
    def nbytes(self) -> int:
        """Bytes of the three arrays."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self))

    def pattern_indices(self) -> Array:
        """Pattern index of each kernel, int32 `[D, C]`."""
        shape = (len(self.scale), self.channels)
        # Stored as uint8 or uint16; indices need a dtype that does not overflow.
        return unpack(self.indices, self.bits_per_kernel, shape=shape).astype(jnp.int32)

    def patterns(self) -> Array:
        """Codebook, -1 or 1, float32 `[2^tau, 9]`."""
        count = (2**self.bits_per_kernel,)
        return decode_patterns(unpack(self.codebook, FULL_BITS, shape=count))

    def kernel(self) -> Array:
        """Binary weights of the convolution, float32 `[3, 3, C, D]`."""
        return join_kernels(self.patterns()[self.pattern_indices()])


def store_kernels(kernel: Array, patterns: Array) -> SubBitKernels:
    """Assigns latent kernels to their nearest patterns and packs indices, codebook and scales.

    Args:
        kernel: Latent kernels, `[3, 3, C, D]`.
        patterns: Codebook, -1 or 1, `[2^tau, 9]`.

    Raises:
        ValueError: The window is not 3x3, or the number of patterns is not `2^tau` with tau from 1
            to 9.
    """
    # tau only if the length is a power of two, which is checked below.
    bits = len(patterns).bit_length() - 1
    check_bits(bits)
    if len(patterns) != 2**bits:
        raise ValueError(f"a codebook holds 2^tau patterns, got {len(patterns)}: add or drop some")
    kernels = split_kernels(kernel)
    return SubBitKernels(
        indices=pack(nearest_pattern(kernels, patterns), bits),
        codebook=pack(encode_patterns(patterns), FULL_BITS),
        scale=output_scale(kernels),
        channels=kernel.shape[2],
        bits_per_kernel=bits,
    )


def index_bits(kernels: int, *, bits_per_kernel: int) -> int:
    """Bits of the indices of K 3x3 kernels, `tau K`, as the paper's tables count parameters.

    The 1,220,608 kernels in the 16 3x3 convolutions of a ResNet-18 take 10.99, 7.32, 6.10 and 4.88
    Mbit at tau = 9, 6, 5, 4. Codebooks (`9 2^tau` bits per layer) and scales are not included.

    Args:
        kernels: Number of kernels K: input channels times output channels, summed over layers.
        bits_per_kernel: Bits per kernel, tau, 1 to 9.

    Raises:
        ValueError: `bits_per_kernel` is not an integer from 1 to 9.
    """
    check_bits(bits_per_kernel)
    return bits_per_kernel * kernels


def product_table(patterns: Array) -> Array:
    """Products of every patch of spikes with every pattern, int8 `[512, n]`, -9 to 9.

    Args:
        patterns: Codebook, -1 or 1, `[n, 9]`.
    """
    patches = jnp.arange(2**FULL_BITS, dtype=jnp.int32)[:, None]
    # A spike on +1 counts 1 and a spike on -1 counts -1: twice the spikes on +1, less all spikes.
    spikes = jax.lax.population_count(patches)
    positive = jax.lax.population_count(patches & encode_patterns(patterns))
    # int8 holds -9 to 9; sums over channels are widened to int32.
    return (2 * positive - spikes).astype(jnp.int8)


def patch_codes(
    spikes: Array,
    *,
    strides: Sequence[int] = (1, 1),
    padding: Sequence[tuple[int, int]] = ((1, 1), (1, 1)),
) -> Array:
    """Codes of the 3x3 patches of every channel.

    Args:
        spikes: Spikes `[N, H, W, C]`; every nonzero value is a spike.
        strides: Step per spatial axis.
        padding: Zeros `(low, high)` per spatial axis.

    Returns:
        Codes 0 to 511, int32 `[N, H', W', C]`; bit `3 i + j` is row `i`, column `j` of the patch.
    """
    padded = jnp.pad((spikes != 0).astype(jnp.int32), ((0, 0), *padding, (0, 0)))
    height, width = ((n - 3) // s + 1 for n, s in zip(padded.shape[1:3], strides, strict=True))
    codes = jnp.zeros((len(padded), height, width, padded.shape[-1]), jnp.int32)
    # Nine strided slices: extracting the patches would hold nine times the spikes at once.
    for bit in range(FULL_BITS):
        i, j = divmod(bit, 3)
        rows = slice(i, i + (height - 1) * strides[0] + 1, strides[0])
        columns = slice(j, j + (width - 1) * strides[1] + 1, strides[1])
        codes = codes + (padded[:, rows, columns] << bit)
    return codes


def lookup_counts(codes: Array, stored: SubBitKernels) -> Array:
    """Convolves spikes with stored kernels by table lookup, in integers and without the scale.

    Args:
        codes: Patch codes of the spikes, `[N, H', W', C]`, from `patch_codes`.
        stored: Stored kernels of C input channels.

    Returns:
        Counts, int32 `[N, H', W', D]`; times `stored.scale` they equal `nn.SubBitConv`.

    Raises:
        ValueError: Codes and kernels have different numbers of channels.
    """
    if codes.shape[-1] != stored.channels:
        raise ValueError(
            f"codes of {codes.shape[-1]} channels cannot pass kernels of {stored.channels}: give "
            "the patches of the inputs of this layer"
        )
    table, indices = product_table(stored.patterns()), stored.pattern_indices()

    # Scans over channels, so that one channel's products are in memory at a time.
    def add_channel(total: Array, channel: tuple[Array, Array]) -> tuple[Array, None]:
        patches, patterns = channel
        products = table[patches]  # [N, H', W', 2^tau], shared by all outputs
        return total + products[..., patterns].astype(jnp.int32), None

    total = jnp.zeros((*codes.shape[:-1], len(stored.scale)), jnp.int32)
    return jax.lax.scan(add_channel, total, (jnp.moveaxis(codes, -1, 0), indices.T))[0]


def integer_threshold(threshold: Array, scale: Array) -> Array:
    """Smallest count that reaches a threshold: the smallest `n` with `scale n >= threshold`.

    The float32 product itself decides, so `count >= n` is true exactly where
    `scale * count >= threshold` is. It suits neurons that start each timestep at rest, or integrate
    without a leak and reset to zero (sums of counts are counts); a leak or a reset by subtraction
    leaves the integers.

    Args:
        threshold: Threshold, float32, at least 0, of any shape that broadcasts with `scale`.
        scale: Scale of each output, float32, positive, `[D]`.

    Returns:
        Thresholds of the counts, int32 `[D]`.
    """
    guess = jnp.ceil(threshold / scale)
    # Quotient and product are both rounded, so the answer is the guess or a neighbour of it.
    candidates = guess[..., None] + jnp.arange(-1, 2, dtype=guess.dtype)
    reach = candidates * scale[..., None] >= jnp.asarray(threshold)[..., None]
    first = jnp.argmax(reach, -1, keepdims=True)
    return jnp.take_along_axis(candidates, first, -1)[..., 0].astype(jnp.int32)


def bit_operations(layers: Sequence[tuple[int, int, int]], *, bits_per_kernel: int) -> float:
    """Bit operations of 3x3 convolutions with binary activations, as the paper counts them.

        2^tau <  D:   9 C 2^tau P + C D P / 2        products of few patterns, then additions
        2^tau >= D:   9 C D P

    For the 16 3x3 convolutions of a ResNet-18 on 224x224 pixels it gives the published 1.68, 0.88,
    0.50 and 0.30 G at tau = 9, 6, 5, 4.

    Args:
        layers: `(C, D, P)` of each layer: input channels, output channels, output positions.
        bits_per_kernel: Bits per kernel, tau, 1 to 9.

    Raises:
        ValueError: `bits_per_kernel` is not an integer from 1 to 9.
    """
    check_bits(bits_per_kernel)
    # float64 on the host: the counts of large layers exceed 32 bits.
    c, d, p = np.asarray(layers, np.float64).reshape(-1, 3).T
    patterns = 2**bits_per_kernel
    shared = FULL_BITS * c * patterns * p + c * d * p / 2
    return float(np.sum(np.where(patterns < d, shared, FULL_BITS * c * d * p)))
