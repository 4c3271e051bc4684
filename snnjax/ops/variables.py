"""Trees whose Flax variables may stand at several places, as those of a layer that is used twice.

JAX flattens a tree by places, so `jax.tree.map` makes two variables of one. The functions here map
each variable once: the first place names it, and every place of the result holds the same variable.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx

from snnjax.typing import PyTree

__all__ = ["Structure", "flatten_with_path", "map_nodes"]


@dataclasses.dataclass(frozen=True)
class Structure:
    """Structure of a tree in which places may share a variable; hashable.

    Attributes:
        places: structure of the tree, with a leaf per place of a variable.
        numbers: number of the variable at each place.
        variables: structure of each variable.
    """

    places: Any
    numbers: tuple[int, ...]
    variables: tuple[Any, ...]

    def unflatten(self, leaves: Sequence[Any]) -> PyTree:
        """The tree of these leaves, in the order of `flatten_with_path`."""
        rest = iter(leaves)
        variables = [
            jax.tree.unflatten(structure, [next(rest) for _ in range(structure.num_leaves)])
            for structure in self.variables
        ]
        return jax.tree.unflatten(self.places, [variables[number] for number in self.numbers])


def flatten_with_path(tree: PyTree) -> tuple[list[tuple[Any, Any]], Structure]:
    """Paths and leaves of a tree, those of a shared variable at its first place only.

    Args:
        tree: any pytree.

    Returns:
        Pairs of path and leaf, and the structure whose `unflatten` restores the tree.
    """
    nodes, places = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_variable)
    pairs, structures, numbers, known = [], [], [], {}
    for path, node in nodes:
        # Plain arrays are never tied: two places of one array are two parameters in Flax, too.
        if not _is_variable(node) or id(node) not in known:
            known[id(node)] = len(structures)
            inner, structure = jax.tree_util.tree_flatten_with_path(node)
            pairs += [((*path, *rest), leaf) for rest, leaf in inner]
            structures.append(structure)
            numbers.append(len(structures) - 1)
        else:
            numbers.append(known[id(node)])
    return pairs, Structure(places, tuple(numbers), tuple(structures))


def map_nodes(
    convert: Callable[[Any], Any], tree: PyTree, *, select: Callable[[Any], bool]
) -> PyTree:
    """The tree with `convert(node)` in place of every selected node.

    A node at several places is converted once. Other variables are those of `tree`. Variables that
    stand at several places of `tree` are one variable in the result, too.

    Args:
        convert: function of a node.
        tree: any pytree.
        select: True for the nodes to convert; they are not searched for further ones.

    Raises:
        ValueError: two nodes share a variable and convert it differently.
    """
    results: dict[int, Any] = {}

    def place(node: Any) -> Any:
        if not select(node):
            return node
        if id(node) not in results:
            results[id(node)] = convert(node)
        return results[id(node)]

    leaf = lambda node: _is_variable(node) or select(node)  # noqa: E731
    return _tie(tree, jax.tree.map(place, tree, is_leaf=leaf))


def _tie(before: PyTree, after: PyTree) -> PyTree:
    """`after` with one variable at all paths that share a variable in `before`."""
    groups: dict[int, list[Any]] = {}
    for path, node in jax.tree_util.tree_leaves_with_path(before, is_leaf=_is_variable):
        if _is_variable(node):
            groups.setdefault(id(node), []).append(path)
    nodes, places = jax.tree_util.tree_flatten_with_path(after, is_leaf=_is_variable)
    known = {path: node for path, node in nodes if _is_variable(node)}
    # A converted node may have other variables at other paths: only paths that remain are tied.
    remaining = ([path for path in paths if path in known] for paths in groups.values())
    first = {path: known[paths[0]] for paths in remaining for path in paths}
    tied = []
    for path, node in nodes:
        other = first.get(path, node)
        if _is_variable(node) and _shapes(node) != _shapes(other):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise ValueError(
                f"the variable {name} is used at several places, which would store it in different "
                f"formats ({_shapes(node)} and {_shapes(other)}): give the layers there the same "
                "conversion, or variables of their own"
            )
        tied.append(other)
    return jax.tree.unflatten(places, tied)


def _shapes(node: Any) -> Any:
    return jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), jax.tree.leaves(node))


def _is_variable(node: Any) -> bool:
    return isinstance(node, nnx.Variable)
