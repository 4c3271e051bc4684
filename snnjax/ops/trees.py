"""Pytrees in two halves: leaves with a gradient, and integers, booleans and keys without one.

`jax.custom_vjp` and `jax.vjp` want them apart. A half has None where the other has its leaf.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from snnjax.typing import PyTree

__all__ = [
    "add",
    "combine",
    "partition",
    "partition_read",
    "pulled_back",
    "smooth_half",
    "sum_found",
    "zeros_like",
]


def partition(tree: PyTree) -> tuple[PyTree, PyTree]:
    """The inexact leaves of a tree, and the others."""
    smooth = jax.tree.map(lambda leaf: leaf if _inexact(leaf) else None, tree)
    rest = jax.tree.map(lambda leaf: None if _inexact(leaf) else leaf, tree)
    return smooth, rest


def combine(smooth: PyTree, rest: PyTree) -> PyTree:
    """The tree that `partition` took apart."""
    return jax.tree.map(lambda a, b: b if a is None else a, smooth, rest, is_leaf=_is_none)


def partition_read(function: Callable[..., Any], *args: PyTree) -> tuple[Any, Any]:
    """The leaves of its arguments that a function looks at, and the others: two half arguments."""
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    looked_at = {id(v) for equation in jaxpr.eqns for v in equation.invars}
    looked_at |= {id(v) for v in jaxpr.outvars}
    leaves, tree = jax.tree.flatten(args)

    def half(read):
        pairs = zip(leaves, jaxpr.invars, strict=True)
        return jax.tree.unflatten(
            tree, [leaf if (id(v) in looked_at) is read else None for leaf, v in pairs]
        )

    return half(True), half(False)


def pulled_back(
    function: Callable[..., Any], *args: PyTree, cotangents: PyTree
) -> tuple[Any, tuple[PyTree, ...]]:
    """Outputs and gradients at once, by `jax.vjp` with respect to the inexact leaves alone.

    Args:
        function: any function of pytrees.
        args: its arguments; integers, booleans and keys among them are held fixed.
        cotangents: of the outputs. None is zero, and a rule that asks for symbolic zeros is told
            so; what stands for an integer output is not looked at.

    Returns:
        The outputs, and one half tree of gradients per argument.
    """
    halves = [partition(arg) for arg in args]
    fixed = [rest for _, rest in halves]

    def inner(*smooth):
        outputs = function(*(combine(s, r) for s, r in zip(smooth, fixed, strict=True)))
        given = smooth_half(outputs, cotangents)
        wanted = jax.tree.map(lambda g, y: g if g is None else y, given, outputs, is_leaf=_is_none)
        return wanted, (outputs, given)

    _, pull, (outputs, given) = jax.vjp(inner, *(s for s, _ in halves), has_aux=True)
    return outputs, pull(given)


def smooth_half(like: PyTree, cotangents: PyTree) -> PyTree:
    """Cotangents of the inexact leaves of `like`, None for the others (which come as float0)."""
    return jax.tree.map(
        lambda leaf, g: None if leaf is None else g,
        partition(like)[0],
        cotangents,
        is_leaf=_is_none,
    )


def zeros_like(tree: PyTree) -> PyTree:
    """Zeros in place of every leaf."""
    return jax.tree.map(jnp.zeros_like, tree)


def add(a: PyTree, b: PyTree) -> PyTree:
    """The sum of two trees of one structure."""
    return jax.tree.map(jnp.add, a, b)


def sum_found(like: PyTree, *trees: PyTree) -> PyTree:
    """The sum of trees that may lack leaves of `like`; zeros where all of them do."""

    def total(leaf, *found):
        if leaf is None:
            return None
        found = [part for part in found if part is not None]
        return functools.reduce(jnp.add, found) if found else jnp.zeros_like(leaf)

    return jax.tree.map(total, like, *trees, is_leaf=_is_none)


def _inexact(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def _is_none(leaf: Any) -> bool:
    return leaf is None
