"""Sub-bit convolution of spikes in whole numbers: look the 3x3 patches up, add, compare.

A patch of one channel of spikes is one of 512 codes, and a kernel one of the patterns of a small
codebook: a table holds all their products, -9 to 9, and serves the whole layer.

    code[n, o, c] = sum_i 2^i spikes[n, o + place i of the window, c]
    T[x, j]       = sum_i p_j[i] [bit i of x] = 2 popcount(x & code of p_j) - popcount(x)
    count[n,o,d]  = sum_c T[code[n, o, c], number[d, c]]

so each channel and position reads `2^tau` products, which all outputs share, and the rest are
additions. The scale of an output goes into the threshold: `s count >= v_th` where `count >= n`, the
smallest such whole number, so that nothing is multiplied for a spike.

The count is exact, and so is a convolution of spikes with +-1 in float32 below 2^24: both give the
same numbers. This form shows and checks what hardware would do; on a CPU XLA's convolution is the
faster one: from [32, 14, 14, 32] to 64 channels at tau = 5 it takes 1.9 ms of one core, looking up
10.5 (jax 0.10.2).

Reference: Wang, Yang, Sun, Yao, "Sub-bit Neural Networks: Learning to Compress and Accelerate
Binary Neural Networks", ICCV 2021, arXiv:2110.09195, for the shared products of few patterns. The
table over codes of spikes and the folded threshold are ours.

Sub-bit kernels as they are stored: numbers of tau bits each, a codebook and a scale per output.

    bytes = ceil(tau C D / 8) + ceil(9 2^tau / 8) + 4 D          (a layer from C to D channels)

against `36 C D` of float32. Kernel numbers and the nine signs of a pattern lie one after the other
without a gap (`packing`).

Reference: Wang, Yang, Sun, Yao, "Sub-bit Neural Networks: Learning to Compress and Accelerate
Binary Neural Networks", ICCV 2021, arXiv:2110.09195. Its tables count the bits of the numbers alone
(`index_bits`); the layout in bytes is ours.
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
    code_of,
    columns,
    kernel_of,
    nearest_pattern,
    output_scale,
    pattern_of,
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


def product_table(patterns: Array) -> Array:
    """Products of every patch of spikes with every pattern, int8 `[512, n]`, of -9 to 9.

    Args:
        patterns: -1 or 1, `[n, 9]`.
    """
    patches = jnp.arange(2**FULL_BITS, dtype=jnp.int32)[:, None]
    ones = jax.lax.population_count(patches)
    both = jax.lax.population_count(patches & code_of(patterns))
    return (2 * both - ones).astype(jnp.int8)


def patch_codes(
    spikes: Array,
    *,
    strides: Sequence[int] = (1, 1),
    padding: Sequence[tuple[int, int]] = ((1, 1), (1, 1)),
) -> Array:
    """The 3x3 patches of every channel as numbers.

    Args:
        spikes: `[N, H, W, C]`; anything but 0 counts as a spike.
        strides: per spatial axis.
        padding: zeros `(low, high)` per spatial axis.

    Returns:
        int32 `[N, H', W', C]`, 0 to 511; bit `3 i + j` is row `i`, column `j` of the patch.
    """
    framed = jnp.pad((spikes != 0).astype(jnp.int32), ((0, 0), *padding, (0, 0)))
    rows, cols = ((n - 3) // s + 1 for n, s in zip(framed.shape[1:3], strides, strict=True))
    codes = jnp.zeros((len(framed), rows, cols, framed.shape[-1]), jnp.int32)
    for bit in range(FULL_BITS):
        i, j = divmod(bit, 3)
        down = slice(i, i + (rows - 1) * strides[0] + 1, strides[0])
        right = slice(j, j + (cols - 1) * strides[1] + 1, strides[1])
        codes = codes + (framed[:, down, right] << bit)
    return codes


def lookup_counts(codes: Array, stored: SubBitKernels) -> Array:
    """The convolution without its scale, in whole numbers.

    Args:
        codes: of the spikes, `[N, H', W', C]`, from `patch_codes`.
        stored: kernels of C channels.

    Returns:
        int32 `[N, H', W', D]`; times `stored.scale` they are what `nn.SubBitConv` gives.

    Raises:
        ValueError: codes and kernels have different channels.
    """
    if codes.shape[-1] != stored.channels:
        raise ValueError(
            f"codes of {codes.shape[-1]} channels cannot pass kernels of {stored.channels}: give "
            "the patches of the inputs of this layer"
        )
    table, numbers = product_table(stored.patterns()), stored.kernel_numbers()

    def add(total: Array, channel: tuple[Array, Array]) -> tuple[Array, None]:
        seen, chosen = channel
        products = table[seen]  # [N, H', W', 2^tau]: what all outputs share
        return total + products[..., chosen].astype(jnp.int32), None

    total = jnp.zeros((*codes.shape[:-1], len(stored.scale)), jnp.int32)
    return jax.lax.scan(add, total, (jnp.moveaxis(codes, -1, 0), numbers.T))[0]


def integer_threshold(threshold: Array, scale: Array) -> Array:
    """The smallest count that reaches a threshold: `n` with `scale n >= threshold`, no less.

    It is decided by the float32 product itself, so that `count >= n` is true exactly where
    `scale * count >= threshold` is. For neurons that start each timestep at rest, or integrate
    without a leak and start over after a spike (sums of counts are counts); a leak or a reset by
    subtraction leaves the whole numbers.

    Args:
        threshold: float32, at least 0, any shape that fits `scale`.
        scale: float32, positive, `[D]`.

    Returns:
        int32 `[D]`.
    """
    guess = jnp.ceil(threshold / scale)
    # The quotient is rounded, and so is the product: the answer is the guess or beside it.
    around = guess[..., None] + jnp.arange(-1, 2, dtype=guess.dtype)
    reach = around * scale[..., None] >= jnp.asarray(threshold)[..., None]
    first = jnp.argmax(reach, -1, keepdims=True)
    return jnp.take_along_axis(around, first, -1)[..., 0].astype(jnp.int32)


def bit_operations(layers: Sequence[tuple[int, int, int]], *, bits_per_kernel: int) -> float:
    """Operations on bits of 3x3 convolutions with binary activations, as the paper counts them.

        2^tau <  D:   9 C 2^tau P + C D P / 2        products of few patterns, then additions
        2^tau >= D:   9 C D P

    For the 16 3x3 convolutions of a ResNet-18 on 224x224 pixels it gives the published 1.68, 0.88,
    0.50 and 0.30 G at tau = 9, 6, 5, 4.

    Args:
        layers: `(C, D, P)` of each: channels in and out, positions of the output.
        bits_per_kernel: tau, 1 to 9.

    Raises:
        ValueError: no such number of bits.
    """
    check_bits(bits_per_kernel)
    c, d, p = np.asarray(layers, np.float64).reshape(-1, 3).T
    patterns = 2**bits_per_kernel
    shared = FULL_BITS * c * patterns * p + c * d * p / 2
    return float(np.sum(np.where(patterns < d, shared, FULL_BITS * c * d * p)))
