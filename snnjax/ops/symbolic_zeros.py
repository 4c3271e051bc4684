"""Which gradients are wanted, and which cotangents are zero, where JAX knows it while tracing.

A rule of `jax.custom_vjp` with `symbolic_zeros=True` is told both. A loop that carries or stacks
gradients can then leave out those that nobody asked for, and need not read zeros from memory.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero

from snnjax.memory.trees import partition
from snnjax.typing import PyTree

__all__ = ["Wanted", "filled", "hollow", "perturbed", "values"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which leaves of a tree a gradient is wanted of, in order; made by `perturbed`."""

    leaves: tuple[bool, ...]

    def of(self, tree: PyTree) -> PyTree:
        """The tree with None in place of every leaf that is not wanted."""
        leaves, structure = jax.tree.flatten(tree)
        pairs = zip(leaves, self.leaves, strict=True)
        return structure.unflatten([leaf if wanted else None for leaf, wanted in pairs])

    def halves(self, tree: PyTree) -> tuple[PyTree, PyTree]:
        """The wanted ones among a tree's inexact leaves, and everything else."""
        wanted = self.of(partition(tree)[0])
        return wanted, jax.tree.map(lambda a, b: a if b is None else None, tree, wanted)


def perturbed(primals: PyTree) -> Wanted:
    """From the primals that a forward rule is given."""
    return Wanted(tuple(p.perturbed for p in jax.tree.leaves(primals, is_leaf=_is_primal)))


def values(primals: PyTree) -> PyTree:
    """The arrays in the primals that a forward rule is given."""
    return jax.tree.map(lambda p: p.value, primals, is_leaf=_is_primal)


def filled(cotangents: PyTree) -> PyTree:
    """Arrays of zeros in place of symbolic ones."""
    return jax.tree.map(_fill, cotangents, is_leaf=_is_zero)


def hollow(cotangents: PyTree) -> PyTree:
    """None in place of symbolic zeros: nothing to carry or to scan over."""
    return jax.tree.map(lambda x: None if _is_zero(x) else x, cotangents, is_leaf=_is_zero)


def _fill(leaf: Any) -> Any:
    return jnp.zeros(leaf.shape, leaf.dtype) if _is_zero(leaf) else leaf


def _is_primal(node: Any) -> bool:
    return isinstance(node, CustomVJPPrimal)


def _is_zero(node: Any) -> bool:
    return isinstance(node, SymbolicZero)
