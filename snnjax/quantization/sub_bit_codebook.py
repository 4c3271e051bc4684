"""The codebook of sub-bit kernels: which patterns a layer may use, and how training refines them.

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

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from snnjax.quantization.sub_bit import FULL_BITS, code_of, pattern_of, random_patterns
from snnjax.typing import Array, Key, PyTree

__all__ = [
    "Codebook",
    "Refinement",
    "random_codebook",
    "refine",
    "refresh",
    "used_patterns",
    "with_refinement",
]

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
