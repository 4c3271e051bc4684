"""Partition of pytrees: inexact leaves, which have a gradient, and integers, booleans and keys.

`jax.custom_vjp` and `jax.vjp` need the two separately. Each half has None in place of the leaves of
the other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from snnjax.typing import PyTree

__all__ = [
    "add_trees",
    "combine",
    "inexact_cotangents",
    "nan_unless",
    "partition",
    "partition_by_use",
    "sum_partial",
    "value_and_pullback",
    "zeros_like",
]


def partition(tree: PyTree) -> tuple[PyTree, PyTree]:
    """Splits a tree into its inexact leaves and its other leaves."""
    inexact = jax.tree.map(lambda leaf: leaf if _is_inexact(leaf) else None, tree)
    others = jax.tree.map(lambda leaf: None if _is_inexact(leaf) else leaf, tree)
    return inexact, others


def combine(inexact: PyTree, others: PyTree) -> PyTree:
    """Joins the two halves of `partition`."""
    return jax.tree.map(lambda a, b: b if a is None else a, inexact, others, is_leaf=_is_none)


def partition_by_use(function: Callable[..., Any], *args: PyTree) -> tuple[Any, Any]:
    """Splits the arguments of a function into the leaves that it uses and the other leaves."""
    # By the trace: its variables tell exactly which leaves an equation or an output reads.
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    used = {id(v) for equation in jaxpr.eqns for v in equation.invars}
    used |= {id(v) for v in jaxpr.outvars}
    leaves, tree = jax.tree.flatten(args)

    def half(in_use):
        pairs = zip(leaves, jaxpr.invars, strict=True)
        return jax.tree.unflatten(
            tree, [leaf if (id(v) in used) is in_use else None for leaf, v in pairs]
        )

    return half(True), half(False)


def value_and_pullback(
    function: Callable[..., Any], *args: PyTree, cotangents: PyTree
) -> tuple[Any, tuple[PyTree, ...]]:
    """Computes outputs and gradients by `jax.vjp` with respect to the inexact leaves.

    Args:
        function: Function of pytrees.
        *args: Arguments; integers, booleans and keys among them are constant.
        cotangents: Cotangents of the outputs. None is a zero, passed on as a symbolic zero to rules
            that ask for it; cotangents of integer outputs are ignored.

    Returns:
        The outputs, and one tree of gradients per argument, None for its other leaves.
    """
    halves = [partition(arg) for arg in args]
    fixed = [others for _, others in halves]

    def inner(*inexact):
        outputs = function(*(combine(s, r) for s, r in zip(inexact, fixed, strict=True)))
        present = inexact_cotangents(outputs, cotangents)
        # Outputs without a cotangent are dropped inside: `jax.vjp` then sees a symbolic zero, where
        # an explicit array of zeros would be computed with.
        pulled = jax.tree.map(
            lambda g, y: g if g is None else y, present, outputs, is_leaf=_is_none
        )
        return pulled, (outputs, present)

    _, pull, (outputs, present) = jax.vjp(inner, *(s for s, _ in halves), has_aux=True)
    return outputs, pull(present)


def inexact_cotangents(outputs: PyTree, cotangents: PyTree) -> PyTree:
    """Cotangents of the inexact leaves of `outputs`, None for the others (float0 in JAX)."""
    return jax.tree.map(
        lambda leaf, g: None if leaf is None else g,
        partition(outputs)[0],
        cotangents,
        is_leaf=_is_none,
    )


def zeros_like(tree: PyTree) -> PyTree:
    """Zeros of the shapes and dtypes of a tree."""
    return jax.tree.map(jnp.zeros_like, tree)


def add_trees(a: PyTree, b: PyTree) -> PyTree:
    """Adds two trees of equal structure."""
    return jax.tree.map(jnp.add, a, b)


def sum_partial(like: PyTree, *trees: PyTree) -> PyTree:
    """Sums trees that may lack leaves of `like`; zeros for leaves that all of them lack."""

    def total(leaf, *parts):
        if leaf is None:
            return None
        parts = [part for part in parts if part is not None]
        return functools.reduce(jnp.add, parts) if parts else jnp.zeros_like(leaf)

    return jax.tree.map(total, like, *trees, is_leaf=_is_none)


def nan_unless(valid: Any, tree: PyTree) -> PyTree:
    """The tree, or NaN in place of its floating leaves where a traced condition fails.

    A program cannot raise, and a gradient of NaN stops a training run where a wrong one does not.

    Args:
        valid: Boolean scalar; None is True.
        tree: Any pytree.
    """
    if valid is None:
        return tree
    return jax.tree.map(
        lambda leaf: jnp.where(valid, leaf, jnp.nan) if _is_inexact(leaf) else leaf, tree
    )


def _is_inexact(leaf: Any) -> bool:
    # `result_type` also takes plain numbers, which have no dtype.
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def _is_none(leaf: Any) -> bool:
    return leaf is None
