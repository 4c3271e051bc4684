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

The codebook of sub-bit kernels: which patterns a layer may use, and how training refines them.

Behind the used patterns stand latent ones, `q` in R^9, which the gradient moves. An entry keeps its
sign as long as its latent one is too small to tell (`m`, the memory):

    p = m = sign(q) where |q| >= 1e-3, else as before

and each refinement, in training only,

    1. brings the memory up to date,
    2. lets the first of equal patterns stand and replaces the others by patterns drawn at random
       from those that are not in the codebook: q and m become the pattern drawn,
    3. clips q to [-3, 3].

Refinement is a function of a codebook and a key, `refine`; `refresh` applies it to all codebooks of
a network, and `with_refinement` to an optimizer's rule, so that it comes with every `every`-th step
of any training loop. Evaluation changes nothing, for nothing here is called in a forward pass; the
memory is saved with the parameters, for it is one of them; and devices that hold copies of the
parameters draw the same patterns. (The released code counts forward passes in evaluation too, loses
its memory on resuming, and drops what replicas on several GPUs refine.)

Reference: Wang, Yang, Sun, Yao, "Sub-bit Neural Networks: Learning to Compress and Accelerate
Binary Neural Networks", ICCV 2021, arXiv:2110.09195. Read in the released code: the memory, the
threshold 1e-3, the clip, random replacement, every 25th step. Our reconstruction: that "unused"
means outside the codebook, that the first of equals stands, and what a rule of optax makes of it.
"""

from __future__ import annotations

import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from snnjax.typing import Array, Key, PyTree

__all__ = [
    "Codebook",
    "FULL_BITS",
    "Refinement",
    "all_patterns",
    "code_of",
    "columns",
    "kernel_of",
    "nearest_pattern",
    "output_scale",
    "pattern_of",
    "random_codebook",
    "random_patterns",
    "refine",
    "refresh",
    "straight_through_kernels",
    "used_patterns",
    "with_refinement",
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


_TELLING = 1e-3  # latent entries below it do not decide a sign
_BOUND = 3.0


class Codebook(NamedTuple):
    """The patterns of a layer.

    Attributes:
        latent: `q`, `[2^tau, 9]`; moved by the gradient.
        memory: `m`, the signs last told, -1 or 1, `[2^tau, 9]`; moved by `refine` alone.
    """

    latent: Array
    memory: Array


def random_codebook(key: Key, *, bits_per_kernel: int) -> Codebook:
    """Different random patterns, which are both latent values and memory.

    Args:
        key: of the draw.
        bits_per_kernel: tau, 1 to 9; with 9 all patterns are there, in the order of their codes.

    Raises:
        ValueError: no such number of bits.
    """
    patterns = random_patterns(key, bits_per_kernel=bits_per_kernel)
    return Codebook(patterns, patterns)


def used_patterns(codebook: Codebook) -> Array:
    """The patterns that kernels choose from, -1 or 1, `[2^tau, 9]`; without a gradient."""
    latent, memory = jax.lax.stop_gradient(codebook)
    told = jnp.where(jnp.abs(latent) >= _TELLING, latent, memory)
    return jnp.where(told > 0, 1.0, -1.0).astype(latent.dtype)


def refine(codebook: Codebook, key: Key) -> Codebook:
    """One refinement, see the top of this file. Afterwards no two patterns are equal.

    Args:
        codebook: `[2^tau, 9]` each.
        key: of the patterns that replace duplicates.
    """
    patterns = used_patterns(codebook)
    codes = code_of(patterns)
    again = _repeats(codes)
    # As many patterns are unused as there are repeats, or more: n <= 512.
    draw = jax.random.uniform(key, (2**FULL_BITS,)).at[codes].set(2.0)
    unused = jnp.argsort(draw)  # in random order, and behind them the used ones
    fresh = pattern_of(unused[jnp.cumsum(again) - 1]).astype(patterns.dtype)
    latent = jnp.where(again[:, None], fresh, codebook.latent)
    memory = jnp.where(again[:, None], fresh, patterns)
    return Codebook(jnp.clip(latent, -_BOUND, _BOUND), memory)


def _repeats(codes: Array) -> Array:
    """Which of the codes `[n]` stand earlier in the list too, bool `[n]`."""
    place = jnp.arange(len(codes))
    return jnp.any((codes[:, None] == codes[None]) & (place[None] < place[:, None]), 1)


def refresh(tree: PyTree, key: Key) -> PyTree:
    """Refines every codebook in a network, in its parameters or in any other pytree.

    Args:
        tree: stays as it is.
        key: folded with the number of each codebook.

    Returns:
        The same tree with refined codebooks. Stacked ones, `[..., 2^tau, 9]`, are refined one by
        one.
    """
    leaves, structure = jax.tree.flatten(tree, is_leaf=_is_codebook)
    refined = [
        _refine_stack(leaf, jax.random.fold_in(key, number)) if _is_codebook(leaf) else leaf
        for number, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, refined)


def _is_codebook(node: Any) -> bool:
    return isinstance(node, Codebook)


def _refine_stack(codebook: Codebook, key: Key) -> Codebook:
    if codebook.latent.ndim == 2:
        return refine(codebook, key)
    return jax.vmap(_refine_stack)(codebook, jax.random.split(key, len(codebook.latent)))


class Refinement(NamedTuple):
    """What `with_refinement` carries from step to step: saved with the state of training.

    Attributes:
        rule: the state of the rule.
        count: steps done, int32.
        key: of all draws; step `n` uses `fold_in(key, n)`.
    """

    rule: PyTree
    count: Array
    key: Key


def with_refinement(
    rule: optax.GradientTransformation, *, key: Key, every: int = 25, speed: float = 1.0
) -> optax.GradientTransformation:
    """A rule that moves and refines codebooks at every `every`-th step.

    At that step latent patterns take the rule's update and are refined; at the others they rest,
    while moments that the rule keeps go on. (In the released code the gradient itself reaches the
    latent patterns in every 25th pass only.) All other parameters are the rule's own affair, at
    every step. A latent entry starts at -1 or 1: with steps as long as the learning rate `lr`, as
    Adam makes them, it changes its sign after `every / (lr speed)` steps at the soonest. The recipe
    of the paper has the time for that; a training of a few thousand steps wants another pace.

    Args:
        rule: what moves the parameters, such as `optax.adamw`.
        key: of the patterns that replace duplicates.
        every: steps from one refinement to the next.
        speed: by what the rule's updates of latent patterns are multiplied; ours, 1 is as released.

    Returns:
        A rule of optax whose state is a `Refinement`; its `update` needs the parameters.

    Raises:
        ValueError: `every` or `speed` is not positive; no parameters are given to `update`.
    """
    if every < 1:
        raise ValueError(f"steps from one refinement to the next are 1 or more, got {every}")
    if not speed > 0:
        raise ValueError(f"patterns at rest are nn.SubBitConv(learn_codebook=False), got {speed=}")

    def init(params: PyTree) -> Any:
        return Refinement(rule.init(params), jnp.zeros((), jnp.int32), key)

    def update(updates: PyTree, state: Any, params: PyTree = None):
        if params is None:
            raise ValueError("patterns are refined where they are: update(updates, state, params)")
        updates, inner = rule.update(updates, state.rule, params)
        count = state.count + 1
        pace = jnp.where(count % every == 0, speed, 0.0)
        updates = _refined_updates(updates, params, pace, jax.random.fold_in(state.key, count))
        return updates, Refinement(inner, count, state.key)

    return optax.GradientTransformation(init, update)


def _refined_updates(updates: PyTree, params: PyTree, pace: Array, key: Key) -> PyTree:
    """Updates that lead codebooks to where they would be refined; at pace 0 they stay."""
    leaves, structure = jax.tree.flatten(params, is_leaf=_is_codebook)
    changed = list(structure.flatten_up_to(updates))
    for number, (before, update) in enumerate(zip(leaves, changed, strict=True)):
        if _is_codebook(before):
            moved = before._replace(latent=before.latent + pace * update.latent)
            after = _refine_stack(moved, jax.random.fold_in(key, number))
            way = jax.tree.map(lambda a, b: jnp.where(pace > 0, a - b, 0), after, before)
            changed[number] = way
    return jax.tree.unflatten(structure, changed)
