"""Sub-bit kernels: 3x3 binary kernels from a learned codebook, less than one bit per weight.

**Kernels.** Nine signs make 512 patterns. A layer chooses its kernels from a codebook `P` of
`2^tau` patterns and stores an index of `tau` bits per kernel: `tau / 9` bits per weight, 0.56 at
`tau = 5`. Each kernel has a latent counterpart `w` in R^9 that training updates:

    b   = argmin_p |w - p|_2 = argmax_p w . p,   p in P         (|p|^2 = 9 for every pattern)
    s_o = mean of |w| over the kernels of output o              (no gradient)
    the layer convolves with b and multiplies output o by s_o

    db/dw := 1 where |w| <= 1, else 0         (straight through)
    db/dq := 1 for the chosen pattern         (q: its latent pattern, see below)

The code of a pattern is a number of nine bits: bit `i` is set where entry `i` is +1, row by row.
Ties between patterns are resolved alike on every device and in every program, because products with
+-1 are exact and the nine of a kernel are added in order. Among equally near patterns the one that
agrees with the signs of `w` in most places is chosen, then the first; zero counts as negative. The
full codebook therefore gives exactly the signs of `w`, and all -1 for a kernel of zeros.

**Codebook.** Each pattern has a latent counterpart `q` in R^9, updated by the gradient. An entry
keeps its sign, the memory `m`, while its latent value is close to zero:

    p = m = sign(q) where |q| >= 1e-3, else unchanged

A refinement, in training only,

    1. updates the memory,
    2. keeps the first of equal patterns and replaces the others by patterns drawn at random from
       outside the codebook: q and m become the drawn pattern,
    3. clips q to [-3, 3].

`refine` refines one codebook, `refine_all` every codebook of a network, and `with_refinement` adds
refinement at every `every`-th step to an optimizer, for any training loop. Evaluation changes
nothing, because no forward pass refines; the memory is a parameter and saved as one; and devices
with copies of the parameters draw the same patterns. (The released code also counts forward passes
of evaluation, loses its memory on resuming, and drops the refinements of replicas on several GPUs.)

Reference: Wang, Yang, Sun, Yao, "Sub-bit Neural Networks: Learning to Compress and Accelerate
Binary Neural Networks", ICCV 2021, arXiv:2110.09195 (not spiking: "SNN" means something else
there). From the released code: assignment, scale, both gradients, the memory, the threshold 1e-3,
the clip, random replacement, every 25th step. Ours: the rule for ties (the code takes the first);
exact signs (its `c + (b - c)` gives 0.99999994 of them); blocks of kernels (it holds all of
`[kernels, 2^tau, 9]`); "unused" read as outside the codebook; the form of an optax transformation.
"""

from __future__ import annotations

import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from snnjax.ops.derivative import with_derivative
from snnjax.typing import Array, Key, PyTree

__all__ = [
    "Codebook",
    "FULL_BITS",
    "Refinement",
    "all_patterns",
    "decode_patterns",
    "encode_patterns",
    "join_kernels",
    "nearest_pattern",
    "output_scale",
    "random_codebook",
    "random_patterns",
    "refine",
    "refine_all",
    "split_kernels",
    "straight_through_kernels",
    "used_patterns",
    "with_refinement",
]

FULL_BITS = 9
"""Bits per kernel of the full codebook, which holds every pattern."""

# Kernels compared at a time: `4 * _BLOCK * 2^tau` bytes of scores, 8 MB at most.
_BLOCK = 4096


def all_patterns() -> Array:
    """All 512 patterns in the order of their codes, float32, `[512, 9]`; the first is all -1."""
    return decode_patterns(jnp.arange(2**FULL_BITS))


def random_patterns(key: Key, *, bits_per_kernel: int) -> Array:
    """Draws distinct patterns, `[2^bits_per_kernel, 9]`; with 9 bits, all patterns in order.

    Args:
        key: Random key.
        bits_per_kernel: Bits per kernel, tau, 1 to 9.

    Raises:
        ValueError: `bits_per_kernel` is not an integer from 1 to 9.
    """
    check_bits(bits_per_kernel)
    if bits_per_kernel == FULL_BITS:
        return all_patterns()
    codes = jax.random.permutation(key, 2**FULL_BITS)
    return decode_patterns(codes[: 2**bits_per_kernel])


def check_bits(bits_per_kernel: int) -> None:
    """Checks a number of bits per kernel.

    Raises:
        ValueError: `bits_per_kernel` is not an integer from 1 to 9.
    """
    if isinstance(bits_per_kernel, bool) or bits_per_kernel not in range(1, FULL_BITS + 1):
        raise ValueError(
            f"a 3x3 binary kernel takes 1 to {FULL_BITS} bits, got {bits_per_kernel!r}: "
            "bits_per_kernel=5 is 0.56 bit for each weight, 9 is a plain binary kernel"
        )


# int32 by name: `jnp.arange` would follow `jax_enable_x64`.
_PLACES = np.arange(FULL_BITS, dtype=np.int32)


def encode_patterns(patterns: Array) -> Array:
    """Codes of patterns, or of the signs of any values: `[..., 9]` to int32 `[...]` below 512."""
    return jnp.sum((patterns > 0).astype(jnp.int32) << _PLACES, -1)


def decode_patterns(codes: Array) -> Array:
    """Patterns of integer codes: `[...]` to float32 `[..., 9]`, -1 or 1."""
    bits = (codes[..., None].astype(jnp.int32) >> _PLACES) & 1
    return 2 * bits.astype(jnp.float32) - 1


def split_kernels(kernel: Array) -> Array:
    """Splits the weights of a convolution into its 3x3 kernels, `[3, 3, C, D]` to `[D, C, 9]`.

    Raises:
        ValueError: The window is not 3x3.
    """
    if kernel.ndim != 4 or kernel.shape[:2] != (3, 3):
        raise ValueError(
            f"a codebook holds 3x3 kernels, [3, 3, C, D], got {list(kernel.shape)}: leave 1x1 and "
            "larger windows as they are"
        )
    return kernel.transpose(3, 2, 0, 1).reshape(*kernel.shape[:1:-1], FULL_BITS)


def join_kernels(kernels: Array) -> Array:
    """Joins 3x3 kernels into the weights of a convolution, `[D, C, 9]` to `[3, 3, C, D]`."""
    return kernels.reshape(*kernels.shape[:2], 3, 3).transpose(2, 3, 1, 0)


def nearest_pattern(kernels: Array, patterns: Array) -> Array:
    """Indices of the nearest patterns in a codebook.

    Among equally near patterns it takes the one that agrees with the signs of the kernel in most
    places, then the first. The memory does not grow with the layer: 4,096 kernels are compared at a
    time.

    Args:
        kernels: Latent kernels, `[..., 9]`.
        patterns: Codebook, -1 or 1, `[n, 9]`.

    Returns:
        Indices below `n`, int32 `[...]`.
    """
    flat = kernels.reshape(-1, FULL_BITS)
    choose = functools.partial(_choose, patterns=patterns.astype(kernels.dtype))
    if len(flat) <= _BLOCK:
        indices = jax.vmap(choose)(flat)
    else:
        indices = jax.lax.map(choose, flat, batch_size=_BLOCK)
    return indices.reshape(kernels.shape[:-1])


def output_scale(kernels: Array) -> Array:
    """Scale of each output, `mean |w|` over its latent kernels, without a gradient.

    Args:
        kernels: Latent kernels, `[D, C, 9]`.

    Returns:
        Scales, `[D]`; positive unless all kernels of an output are zero.
    """
    rows = jnp.abs(jax.lax.stop_gradient(kernels)).reshape(len(kernels), -1)
    # A product, since XLA divides by a constant in one program and multiplies by its reciprocal in
    # another. The barrier keeps XLA from fusing the users of the scale with it.
    return jax.lax.optimization_barrier(_sum_by_halves(rows) * (1 / rows.shape[1]))


def straight_through_kernels(kernels: Array, patterns: Array, latent: Array) -> Array:
    """Replaces latent kernels by their nearest patterns, with straight-through gradients.

        db/dw := 1 where |w| <= 1, else 0,        db/dq := 1 for the chosen pattern

    Args:
        kernels: Latent kernels `w`, `[..., 9]`; the gradient passes where `|w| <= 1`, bounds
            included.
        patterns: Codebook `P`, `[n, 9]`; gets no gradient.
        latent: Latent patterns `q`, `[n, 9]`. Their value is not used; the gradient of each is the
            sum over the kernels that chose its pattern.

    Returns:
        Patterns `b`, exactly -1 or 1, `[..., 9]`, in the dtype of the kernels.
    """
    fixed, patterns = jax.lax.stop_gradient((kernels, jnp.asarray(patterns)))
    indices = nearest_pattern(fixed, patterns)
    # The value of this sum is not used, only its derivative.
    passed = jnp.where(jnp.abs(fixed) <= 1, kernels, fixed) + latent[indices].astype(kernels.dtype)
    return with_derivative(patterns[indices].astype(kernels.dtype), passed)


# A latent entry closer to zero leaves its sign to the memory.
_SIGN_THRESHOLD = 1e-3
# Bound of the latent entries, as in the released code.
_BOUND = 3.0


class Codebook(NamedTuple):
    """Codebook of a layer.

    Attributes:
        latent: Latent patterns `q`, `[2^tau, 9]`, updated by the gradient.
        memory: Signs `m` at the last refinement, -1 or 1, `[2^tau, 9]`, updated by `refine` only.
    """

    latent: Array
    memory: Array


def random_codebook(key: Key, *, bits_per_kernel: int) -> Codebook:
    """Draws a codebook of distinct patterns, which are both latent values and memory.

    Args:
        key: Random key.
        bits_per_kernel: Bits per kernel, tau, 1 to 9; 9 gives all patterns in the order of their
            codes.

    Raises:
        ValueError: `bits_per_kernel` is not an integer from 1 to 9.
    """
    patterns = random_patterns(key, bits_per_kernel=bits_per_kernel)
    return Codebook(patterns, patterns)


def used_patterns(codebook: Codebook) -> Array:
    """Current patterns of a codebook, -1 or 1, `[2^tau, 9]`, without a gradient."""
    latent, memory = jax.lax.stop_gradient(codebook)
    signs = jnp.where(jnp.abs(latent) >= _SIGN_THRESHOLD, latent, memory)
    return jnp.where(signs > 0, 1.0, -1.0).astype(latent.dtype)


def refine(codebook: Codebook, key: Key) -> Codebook:
    """Updates the memory of a codebook, replaces duplicates and clips the latent patterns.

    The patterns of the result are distinct.

    Args:
        codebook: Latent patterns and memory, each `[2^tau, 9]`.
        key: Random key of the patterns that replace duplicates.
    """
    patterns = used_patterns(codebook)
    codes = encode_patterns(patterns)
    repeated = _repeats(codes)
    # There are at least as many unused patterns as repeats, since the codebook has at most 512.
    draw = jax.random.uniform(key, (2**FULL_BITS,)).at[codes].set(2.0)
    # Draws are below 1, so the unused codes come first, in random order, and the used ones last.
    unused = jnp.argsort(draw)
    fresh = decode_patterns(unused[jnp.cumsum(repeated) - 1]).astype(patterns.dtype)
    latent = jnp.where(repeated[:, None], fresh, codebook.latent)
    memory = jnp.where(repeated[:, None], fresh, patterns)
    return Codebook(jnp.clip(latent, -_BOUND, _BOUND), memory)


def refine_all(tree: PyTree, key: Key) -> PyTree:
    """Refines every codebook in a network, its parameters, or any other pytree.

    Args:
        tree: Pytree with codebooks.
        key: Random key, folded with the number of each codebook.

    Returns:
        The tree with refined codebooks; stacked codebooks `[..., 2^tau, 9]` are refined one by one.
    """
    leaves, structure = jax.tree.flatten(tree, is_leaf=_is_codebook)
    refined = [
        _refine_stack(leaf, jax.random.fold_in(key, number)) if _is_codebook(leaf) else leaf
        for number, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, refined)


class Refinement(NamedTuple):
    """Optimizer state of `with_refinement`.

    Attributes:
        rule: State of the inner optimizer.
        count: Number of steps, int32.
        key: Random key; step `n` draws from `fold_in(key, n)`.
    """

    rule: PyTree
    count: Array
    key: Key


def with_refinement(
    rule: optax.GradientTransformation, *, key: Key, every: int = 25, speed: float = 1.0
) -> optax.GradientTransformation:
    """Wraps an optimizer so that it updates and refines codebooks at every `every`-th step.

    At that step the latent patterns take the optimizer's update and are refined; between those
    steps they are constant, while the moments of the optimizer continue to accumulate. (In the
    released code the gradient reaches the latent patterns only in every 25th pass.) All other
    parameters follow the optimizer at every step. A latent entry starts at -1 or 1: with updates of
    the size of the learning rate `lr`, as Adam makes them, it changes sign after
    `every / (lr speed)` steps at the earliest. The paper's recipe is long enough for that; a
    training of a few thousand steps needs a larger `speed`.

    Args:
        rule: Optimizer of the parameters, such as `optax.adamw`.
        key: Random key of the patterns that replace duplicates.
        every: Number of steps between refinements.
        speed: Factor on the optimizer's updates of latent patterns; ours, the released code has 1.

    Returns:
        An optax transformation whose state is a `Refinement`; its `update` needs the parameters.

    Raises:
        ValueError: `every` or `speed` is not positive, or `update` gets no parameters.
    """
    if every < 1:
        raise ValueError(f"every is a number of steps, at least 1, got {every}")
    if not speed > 0:
        raise ValueError(
            f"speed must be positive, got {speed}: nn.SubBitConv(learn_codebook=False) keeps "
            "patterns constant"
        )

    def init(params: PyTree) -> Any:
        return Refinement(rule.init(params), jnp.zeros((), jnp.int32), key)

    def update(updates: PyTree, state: Any, params: PyTree = None):
        if params is None:
            raise ValueError("refinement needs the parameters: update(updates, state, params)")
        updates, inner = rule.update(updates, state.rule, params)
        count = state.count + 1
        # A factor, not a condition: the step stays one program for all counts.
        factor = jnp.where(count % every == 0, speed, 0.0)
        updates = _refine_updates(updates, params, factor, jax.random.fold_in(state.key, count))
        return updates, Refinement(inner, count, state.key)

    return optax.GradientTransformation(init, update)


def _refine_updates(updates: PyTree, params: PyTree, factor: Array, key: Key) -> PyTree:
    """Replaces the updates of codebooks by those that lead to refined ones; 0 for factor 0."""
    leaves, structure = jax.tree.flatten(params, is_leaf=_is_codebook)
    refined = list(structure.flatten_up_to(updates))
    for number, (before, update) in enumerate(zip(leaves, refined, strict=True)):
        if _is_codebook(before):
            moved = before._replace(latent=before.latent + factor * update.latent)
            after = _refine_stack(moved, jax.random.fold_in(key, number))
            # Optax adds updates to parameters, so a replacement is written as a difference.
            refined[number] = jax.tree.map(
                lambda a, b: jnp.where(factor > 0, a - b, 0), after, before
            )
    return jax.tree.unflatten(structure, refined)


def _choose(kernel: Array, *, patterns: Array) -> Array:
    """Index of the pattern nearest to one kernel `[9]`."""
    # Nine additions in a fixed order: the reduction of a dot product has none, and two programs
    # could resolve a tie differently.
    products = (kernel[i] * patterns[:, i] for i in range(FULL_BITS))
    scores = functools.reduce(operator.add, products)
    # Rounding is monotone, so no score exceeds that of the kernel's own signs: if the codebook
    # holds them they are among the best, and no other pattern agrees with them in more places.
    differences = jax.lax.population_count(encode_patterns(kernel) ^ encode_patterns(patterns))
    agreement = jnp.where(scores == scores.max(), FULL_BITS - differences, -1)
    return jnp.argmax(agreement).astype(jnp.int32)


def _sum_by_halves(rows: Array) -> Array:
    """Sums `[D, n]` to `[D]` in one fixed order, pairwise."""
    # `jnp.sum` leaves the order to the compiler. With a fixed one a layer, its replay and its
    # stored form have bit-equal scales.
    while rows.shape[1] > 1:
        half, odd = divmod(rows.shape[1], 2)
        pairs = rows[:, :half] + rows[:, half : 2 * half]
        rows = jnp.concatenate([pairs, rows[:, 2 * half :]], 1) if odd else pairs
    return rows[:, 0]


def _repeats(codes: Array) -> Array:
    """Mask of the codes `[n]` that occur earlier in the list, bool `[n]`."""
    index = jnp.arange(len(codes))
    return jnp.any((codes[:, None] == codes[None]) & (index[None] < index[:, None]), 1)


def _is_codebook(node: Any) -> bool:
    return isinstance(node, Codebook)


def _refine_stack(codebook: Codebook, key: Key) -> Codebook:
    if codebook.latent.ndim == 2:
        return refine(codebook, key)
    return jax.vmap(_refine_stack)(codebook, jax.random.split(key, len(codebook.latent)))
