"""Sub-bit kernels: 3x3 binary kernels out of a codebook, less than one bit for each weight.

Nine signs make 512 patterns. A layer draws its kernels from a codebook `P` of `2^tau` of them and
keeps a number of `tau` bits for each kernel: `tau / 9` of a bit for each weight, 0.56 at `tau = 5`.
Behind a kernel stands a latent one, `w` in R^9, which training moves:

    b   = argmin_p |w - p|_2 = argmax_p w . p,   p in P         (|p|^2 = 9 for every pattern)
    s_o = mean of |w| over the kernels of output o              (no gradient)
    the layer convolves with b and multiplies output o by s_o

    db/dw := 1 where |w| <= 1, else 0         (straight through)
    db/dq := 1 for the pattern chosen         (q: the latent pattern behind it, `sub_bit_codebook`)

A pattern also has a code, a number of nine bits: bit `i` is set where entry `i` is +1, row by row.
"Equally near" is decided here, and alike on every device and in every program: products with +-1
are exact and the nine of a kernel are added in order. Of equally near patterns the one that agrees
with the signs of `w` in most places is chosen, then the first; zero counts as negative. So the
whole codebook gives exactly the signs of `w`, and a kernel of zeros all -1 there.

Reference: Wang, Yang, Sun, Yao, "Sub-bit Neural Networks: Learning to Compress and Accelerate
Binary Neural Networks", ICCV 2021, arXiv:2110.09195 (not spiking: "SNN" is another word there).
Read in the released code: assignment, scale, both gradients. Ours: the rule for ties, where the
code takes the first; signs that are exact, where its `c + (b - c)` is 0.99999994 of them; blocks of
kernels, where it holds all of `[kernels, 2^tau, 9]`.
"""

from __future__ import annotations

import functools
import operator

import jax
import jax.numpy as jnp

from snnjax.typing import Array, Key

__all__ = [
    "FULL_BITS",
    "all_patterns",
    "code_of",
    "columns",
    "kernel_of",
    "nearest_pattern",
    "output_scale",
    "pattern_of",
    "random_patterns",
    "straight_through_kernels",
]

FULL_BITS = 9
"""Bits of a kernel number with which every pattern is in the codebook."""

_BLOCK = 4096  # kernels compared at a time: `4 * _BLOCK * 2^tau` bytes of scores, 8 MB at most


def all_patterns() -> Array:
    """The 512 patterns in the order of their codes, float32, `[512, 9]`; the first is all -1."""
    return pattern_of(jnp.arange(2**FULL_BITS))


def random_patterns(key: Key, *, bits_per_kernel: int) -> Array:
    """Different patterns drawn at random, `[2^bits_per_kernel, 9]`; with 9 bits, all in order.

    Args:
        key: of the draw.
        bits_per_kernel: tau, 1 to 9.

    Raises:
        ValueError: no such number of bits.
    """
    check_bits(bits_per_kernel)
    if bits_per_kernel == FULL_BITS:
        return all_patterns()
    codes = jax.random.permutation(key, 2**FULL_BITS)
    return pattern_of(codes[: 2**bits_per_kernel])


def check_bits(bits_per_kernel: int) -> None:
    """Refuses what is no number of bits of a kernel.

    Raises:
        ValueError: it is not a whole number from 1 to 9.
    """
    if isinstance(bits_per_kernel, bool) or bits_per_kernel not in range(1, FULL_BITS + 1):
        raise ValueError(
            f"a 3x3 binary kernel takes 1 to {FULL_BITS} bits, got {bits_per_kernel!r}: "
            "bits_per_kernel=5 is 0.56 bit for each weight, 9 is a plain binary kernel"
        )


def code_of(patterns: Array) -> Array:
    """Codes of patterns, or of anything by its signs: `[..., 9]` to int32 `[...]` below 512."""
    return jnp.sum((patterns > 0).astype(jnp.int32) << jnp.arange(FULL_BITS), -1)


def pattern_of(codes: Array) -> Array:
    """Patterns of codes: integers `[...]` to float32 `[..., 9]`, -1 or 1."""
    bits = (codes[..., None].astype(jnp.int32) >> jnp.arange(FULL_BITS)) & 1
    return 2 * bits.astype(jnp.float32) - 1


def columns(kernel: Array) -> Array:
    """The kernels of a convolution one by one, `[3, 3, C, D]` to `[D, C, 9]`.

    Raises:
        ValueError: the window is not 3x3.
    """
    if kernel.ndim != 4 or kernel.shape[:2] != (3, 3):
        raise ValueError(
            f"a codebook holds 3x3 kernels, [3, 3, C, D], got {list(kernel.shape)}: leave 1x1 and "
            "larger windows as they are"
        )
    return kernel.transpose(3, 2, 0, 1).reshape(*kernel.shape[:1:-1], FULL_BITS)


def kernel_of(kernels: Array) -> Array:
    """The kernel of a convolution from its kernels one by one, `[D, C, 9]` to `[3, 3, C, D]`."""
    return kernels.reshape(*kernels.shape[:2], 3, 3).transpose(2, 3, 1, 0)


def nearest_pattern(kernels: Array, patterns: Array) -> Array:
    """Numbers of the nearest patterns; see the top of this file for which of equally near ones.

    It compares 4,096 kernels at a time, so its memory does not grow with the layer.

    Args:
        kernels: latent kernels, `[..., 9]`.
        patterns: the codebook, -1 or 1, `[n, 9]`.

    Returns:
        int32 `[...]`, below `n`.
    """
    flat = kernels.reshape(-1, FULL_BITS)
    choose = functools.partial(_choose, patterns=patterns.astype(kernels.dtype))
    if len(flat) <= _BLOCK:
        found = jax.vmap(choose)(flat)
    else:
        found = jax.lax.map(choose, flat, batch_size=_BLOCK)
    return found.reshape(kernels.shape[:-1])


def _choose(kernel: Array, *, patterns: Array) -> Array:
    products = (kernel[i] * patterns[:, i] for i in range(FULL_BITS))
    scores = functools.reduce(operator.add, products)
    # Rounding is monotone, so no score is above that of the kernel's own signs: if these are in
    # the codebook they are among the best, and nothing agrees with them in more places.
    differ = jax.lax.population_count(code_of(kernel) ^ code_of(patterns))
    return jnp.argmax(jnp.where(scores == scores.max(), FULL_BITS - differ, -1)).astype(jnp.int32)


def output_scale(kernels: Array) -> Array:
    """`mean |w|` over the latent kernels of each output, without a gradient.

    Args:
        kernels: `[D, C, 9]`.

    Returns:
        `[D]`; positive unless all kernels of an output are zero.
    """
    rows = jnp.abs(jax.lax.stop_gradient(kernels)).reshape(len(kernels), -1)
    # A product: XLA divides by a constant in one program and multiplies by its inverse in another.
    # The barrier keeps what follows from being compiled together with it.
    return jax.lax.optimization_barrier(_sum(rows) * (1 / rows.shape[1]))


def _sum(rows: Array) -> Array:
    """Sums `[D, n]` to `[D]` by halves: in this order in every program, where `jnp.sum` has none.

    A layer, its replay and its stored form then have the same scale, bit for bit.
    """
    while rows.shape[1] > 1:
        half, odd = divmod(rows.shape[1], 2)
        pairs = rows[:, :half] + rows[:, half : 2 * half]
        rows = jnp.concatenate([pairs, rows[:, 2 * half :]], 1) if odd else pairs
    return rows[:, 0]


@jax.custom_jvp
def straight_through_kernels(kernels: Array, patterns: Array, latent: Array) -> Array:
    """The nearest patterns of latent kernels, exactly -1 or 1, with gradients straight through.

    Args:
        kernels: `w`, `[..., 9]`; the gradient passes where `|w| <= 1`, ends included.
        patterns: the codebook `P`, `[n, 9]`; without a gradient.
        latent: `q`, `[n, 9]`, behind the patterns; of no value here, it takes for each pattern the
            sum of the gradients of the kernels that chose it.

    Returns:
        `b`, `[..., 9]`, in the dtype of the kernels.
    """
    del latent
    return jnp.asarray(patterns)[nearest_pattern(kernels, patterns)].astype(kernels.dtype)


@straight_through_kernels.defjvp
def _straight_through_jvp(primals, tangents):
    (kernels, patterns, _), (moved, _, drawn) = primals, tangents
    chosen = nearest_pattern(kernels, patterns)
    tangent = jnp.where(jnp.abs(kernels) <= 1, moved, 0) + drawn[chosen].astype(kernels.dtype)
    return jnp.asarray(patterns)[chosen].astype(kernels.dtype), tangent
