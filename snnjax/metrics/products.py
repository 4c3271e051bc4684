"""Products that are no connection's: attention multiplies activations with each other.

They are kept apart from synaptic operations, since the tools that define those do not count them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp

from snnjax.typing import Array

__all__ = ["Products", "attention_products", "multiplications"]


class Products(NamedTuple):
    """What a layer without weights of its own did, `[T, B]` each: one row per time that it ran.

    Attributes:
        effective: products of two numbers that are both not zero, uint32.
        dense: products that there are, uint32.
        binary: whether one factor of each is a spike, 0 or 1, so that it is no multiplication.
    """

    effective: Array
    dense: Array
    binary: Array


def multiplications(number: int, shape: Sequence[int]) -> Products:
    """So many multiplications of real numbers per example, whatever their values.

    Args:
        number: for one example, each time the layer runs.
        shape: `[T, B]`: how often it runs, and examples.
    """
    count = jnp.full(tuple(shape), number, jnp.uint32)
    return Products(count, count, jnp.zeros(tuple(shape), bool))


def attention_products(q: Array, k: Array, v: Array) -> Products:
    """The products of `(q k^T) v` per head, in the cheaper order of the two brackets.

        d <= N:  q (k^T v)      sum over heads, n of |k_n| |v_n|,   then of [q_nc] |(k^T v)_c|
        d > N:   (q k^T) v      sum over heads, c of |q_c| |k_c|,   then of [(q k^T)_nm] |v_m|

    where `|a|` is the number of entries that are not zero. Dense are `2 N d min(N, d)` per head.
    The fixed scale of the product is not counted: it can be folded into a threshold.

    Args:
        q: `[T, B, N, heads, d]`.
        k: the same.
        v: the same.

    Returns:
        `[T, B]`; binary where q, k and v are spikes: each product then only adds where it is 1.
    """
    *rows, tokens, heads, size = q.shape
    number = 2 * heads * tokens * size * min(tokens, size)
    spikes = [jnp.all((a == 0) | (a == 1), (-3, -2, -1)) for a in (q, k, v)]
    there = [(a != 0).astype(jnp.float32) for a in (q, k, v)]
    return Products(
        effective=_effective(*there, by_token=size <= tokens).astype(jnp.uint32),
        dense=jnp.full(rows, number, jnp.uint32),
        binary=spikes[0] & spikes[1] & spikes[2],
    )


def _effective(q: Array, k: Array, v: Array, *, by_token: bool) -> Array:
    """Counts of 0s and 1s; sums of float32 would round, so whole numbers are added up."""
    if by_token:
        inner = jnp.einsum("...nhc,...nhd->...hcd", k, v, precision="highest") > 0.5
        first = _whole(k).sum(-1) * _whole(v).sum(-1)  # [..., N, heads]
        second = _whole(q).sum(-3) * _whole(inner).sum(-1)  # [..., heads, d]
    else:
        scores = jnp.einsum("...nhc,...mhc->...hnm", q, k, precision="highest") > 0.5
        first = _whole(q).sum(-3) * _whole(k).sum(-3)
        second = _whole(scores).sum(-2) * jnp.swapaxes(_whole(v).sum(-1), -1, -2)
    axes = (-2, -1)
    return jnp.sum(first, axes, dtype=jnp.uint32) + jnp.sum(second, axes, dtype=jnp.uint32)


def _whole(values: Array) -> Array:
    return values.astype(jnp.uint32)
