"""Gradient accumulation: a function summed over the parts of a batch, one part at a time.

    sum_i f(i, part_i),      part_i the examples i, i + k, i + 2k, ... of k parts

If f is the loss and gradient of a part, the sum is the gradient of the batch in the memory of one
part, and nothing is computed twice. On a CPU it can also be the fastest form, because the working
set of a part fits the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from snnjax.typing import Array, PyTree

__all__ = ["accumulate"]


def accumulate(
    function: Callable[..., tuple[PyTree, PyTree]],
    parts: int,
    batch: tuple[PyTree, ...],
    *,
    axes: tuple[int, ...],
) -> tuple[PyTree, PyTree]:
    """Sums a function over the parts of a batch.

        sum_i function(i, part_i),      part_i the examples i, i + parts, i + 2 parts, ...

    The result equals one call with the whole batch, up to the order of summation, if `function` is
    a sum over independent examples. Batch norm in training makes them dependent: each part then has
    its own statistics. Weight the parts inside `function`: their means add up to `parts` times the
    mean.

    Args:
        function: Function `(number, *part) -> (addend, row)`; the number of the part is traced.
        parts: Number of parts.
        batch: Pytrees of arrays.
        axes: Axis of the examples in each pytree of `batch`: 1 for frames `[T, B, ...]`, 0 for
            labels `[B]`.

    Returns:
        The sum of the addends, in float32 or wider where they are floating, and the stacked rows.

    Raises:
        ValueError: `parts` does not divide the number of examples, or is not positive.

    Example:
        def part(number, frames, labels):
            loss, gradient = jax.value_and_grad(mean_loss)(params, frames, labels)
            return jax.tree.map(lambda x: x / 8, (loss, gradient)), ()

        (loss, gradient), _ = memory.accumulate(part, 8, (frames, labels), axes=(1, 0))
    """
    sizes = {
        leaf.shape[axis]
        for tree, axis in zip(batch, axes, strict=True)
        for leaf in jax.tree.leaves(tree)
    }
    if parts < 1 or any(size % parts for size in sizes):
        raise ValueError(
            f"a batch of {', '.join(map(str, sorted(sizes)))} cannot be cut into {parts} equal "
            "parts: choose a number that divides it"
        )

    def call(number: Any) -> tuple[PyTree, PyTree]:
        part = (
            jax.tree.map(lambda leaf, axis=axis: _take_part(leaf, parts, number, axis), tree)
            for tree, axis in zip(batch, axes, strict=True)
        )
        addend, row = function(number, *part)
        return jax.tree.map(_to_float32, addend), row

    # No loop: XLA:CPU compiles convolutions inside loops to slower code.
    if parts == 1:
        total, row = call(jnp.int32(0))
        return total, jax.tree.map(lambda leaf: leaf[None], row)

    def add(total: PyTree, number: Array) -> tuple[PyTree, PyTree]:
        addend, row = call(number)
        return jax.tree.map(jnp.add, total, addend), row

    # Shapes only: a first part outside the loop would be compiled twice.
    shapes = jax.eval_shape(call, jnp.int32(0))[0]
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return lax.scan(add, zero, jnp.arange(parts, dtype=jnp.int32))


def _take_part(leaf: Array, parts: int, number: Any, axis: int) -> Array:
    """Examples `number`, `number + parts`, ... of an array."""
    # Strided, so that a batch sharded over devices needs no communication; and sliced inside the
    # loop, since all parts in a row would be a second copy of the batch.
    shape = (*leaf.shape[:axis], leaf.shape[axis] // parts, parts, *leaf.shape[axis + 1 :])
    return lax.dynamic_index_in_dim(leaf.reshape(shape), number, axis + 1, keepdims=False)


def _to_float32(leaf: Array) -> Array:
    # Sums of many bfloat16 addends would stop growing.
    narrow = jnp.issubdtype(leaf.dtype, jnp.floating) and jnp.finfo(leaf.dtype).bits < 32
    return leaf.astype(jnp.float32) if narrow else leaf
