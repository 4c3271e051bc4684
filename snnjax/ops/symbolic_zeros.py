"""Symbolic zeros: gradients that are not needed and cotangents that are zero, known while tracing.

`jax.custom_vjp` passes both to a rule with `symbolic_zeros=True`. A loop that carries or stacks
gradients can then leave out those that are not needed, and does not read zeros from memory.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero

from snnjax.ops.trees import partition
from snnjax.typing import PyTree

__all__ = ["GradientMask", "drop", "gradient_mask", "materialize", "primal_values"]


# Static: the mask is part of the residuals' structure, so no array of it is kept.
@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class GradientMask:
    """Mask of the leaves that need a gradient, in order, made by `gradient_mask`."""

    leaves: tuple[bool, ...]

    def select(self, tree: PyTree) -> PyTree:
        """Replaces the leaves that need no gradient by None."""
        leaves, structure = jax.tree.flatten(tree)
        pairs = zip(leaves, self.leaves, strict=True)
        return structure.unflatten([leaf if needed else None for leaf, needed in pairs])

    def split(self, tree: PyTree) -> tuple[PyTree, PyTree]:
        """Splits a tree into the inexact leaves that need a gradient and all other leaves."""
        needed = self.select(partition(tree)[0])
        return needed, jax.tree.map(lambda a, b: a if b is None else None, tree, needed)


def gradient_mask(primals: PyTree) -> GradientMask:
    """Mask of the primals of a forward rule that need a gradient."""
    return GradientMask(tuple(p.perturbed for p in jax.tree.leaves(primals, is_leaf=_is_primal)))


def primal_values(primals: PyTree) -> PyTree:
    """Arrays of the primals of a forward rule."""
    return jax.tree.map(lambda p: p.value, primals, is_leaf=_is_primal)


def materialize(cotangents: PyTree) -> PyTree:
    """Replaces symbolic zeros by arrays of zeros."""
    return jax.tree.map(_materialize, cotangents, is_leaf=_is_zero)


def drop(cotangents: PyTree) -> PyTree:
    """Replaces symbolic zeros by None, so that no loop carries or scans over them."""
    return jax.tree.map(lambda x: None if _is_zero(x) else x, cotangents, is_leaf=_is_zero)


def _materialize(leaf: Any) -> Any:
    return jnp.zeros(leaf.shape, leaf.dtype) if _is_zero(leaf) else leaf


def _is_primal(node: Any) -> bool:
    return isinstance(node, CustomVJPPrimal)


def _is_zero(node: Any) -> bool:
    return isinstance(node, SymbolicZero)
