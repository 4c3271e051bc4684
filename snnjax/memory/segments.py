"""Sequences in segments of `every` steps, the last one possibly short, without copying the inputs.

Slicing or reshaping a sequence in front of a scan is a copy of it; a slice taken inside the loop is
not. So a loop over segments runs over their numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from snnjax.typing import PyTree

__all__ = ["length_of", "over_segments", "piece"]


def length_of(xs: PyTree) -> int:
    """Length of the leading axis of every leaf.

    Raises:
        ValueError: the leaves differ in it, or there are none.
    """
    lengths = sorted({jnp.shape(x)[:1] for x in jax.tree.leaves(xs)})
    if len(lengths) != 1 or lengths == [()]:
        # Slicing would clamp the shorter leaf to its end without a word.
        found = [list(length) for length in lengths]
        raise ValueError(f"xs needs arrays of one length along their leading axis, got {found}")
    return lengths[0][0]


def piece(xs: PyTree, start: Any, length: int) -> PyTree:
    """`xs[start : start + length]` of every leaf; `start` may be traced."""
    return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, length), xs)


def over_segments(
    segment: Callable[..., tuple[PyTree, PyTree, PyTree]],
    carry: PyTree,
    length: int,
    every: int,
    *,
    given: PyTree = None,
    last: PyTree = None,
    reverse: bool = False,
) -> tuple[PyTree, PyTree, PyTree]:
    """Runs a function over the segments of a sequence of `length` steps.

    Args:
        segment: `(carry, start, given, size) -> (carry, ys, mark)`, for the steps `start` to
            `start + size`; `ys` has `size` rows.
        carry: before the first segment (before the last one, with `reverse`).
        length: steps in all.
        every: steps in a whole segment.
        given: something for every whole segment, stacked.
        last: the same for the short one.
        reverse: from the last segment to the first.

    Returns:
        The carry after all segments, `ys` of all steps, `[length, ...]`, and the marks of the whole
        segments, stacked.
    """
    whole, short = divmod(length, every)

    def one(carry, x):
        carry, ys, mark = segment(carry, x[0] * every, x[1], every)
        return carry, (ys, mark)

    final: PyTree = None
    if short and reverse:
        carry, final, _ = segment(carry, whole * every, last, short)
    carry, (ys, marks) = lax.scan(one, carry, (jnp.arange(whole), given), reverse=reverse)
    ys = jax.tree.map(lambda y: y.reshape(whole * every, *y.shape[2:]), ys)
    if short and not reverse:
        carry, final, _ = segment(carry, whole * every, last, short)
    if short:
        ys = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, final)
    return carry, ys, marks
