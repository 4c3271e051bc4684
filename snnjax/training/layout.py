"""Which part of which array a device of a mesh holds: rules on the tree of parameters.

    rule(path, shape, mesh) -> PartitionSpec           path such as ".body.layers[1].kernel"

An experiment's `layout` is such a rule. Slots of the optimizer lie as their parameters do; all else
(statistics, constants, counters, keys) is on every device. The default, `by_shape`:

    model    the last axis, output channels, where the size divides it; else the one before it
    fsdp     the longest other axis that the size divides

of arrays that are large enough; what no axis fits stays whole on every device. A rule changes where
numbers are, never what they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from snnjax.training.errors import MeshError
from snnjax.typing import PyTree

__all__ = ["Rule", "by_name", "by_shape", "shardings"]

Rule: TypeAlias = Callable[[str, tuple[int, ...], Mesh], PartitionSpec]

_SMALLEST = 256


def by_shape(
    path: str, shape: tuple[int, ...], mesh: Mesh, *, smallest: int = _SMALLEST
) -> PartitionSpec:
    """The default rule.

    Args:
        path: Not looked at.
        shape: Of the array.
        mesh: With the axes `fsdp` and `model`.
        smallest: Arrays of fewer numbers stay whole: fetching their parts takes longer than they
            are worth.
    """
    del path
    places: list[str | None] = [None] * len(shape)
    size = 1
    for length in shape:
        size *= length
    if size < smallest:
        return PartitionSpec()
    if (model := mesh.shape.get("model", 1)) > 1 and len(shape) > 1:
        ends = (axis for axis in (len(shape) - 1, len(shape) - 2) if shape[axis] % model == 0)
        if (axis := next(ends, None)) is not None:
            places[axis] = "model"
    if (fsdp := mesh.shape.get("fsdp", 1)) > 1:
        free = [axis for axis in range(len(shape)) if not places[axis] and not shape[axis] % fsdp]
        if free:
            places[max(free, key=lambda axis: (shape[axis], axis))] = "fsdp"
    return PartitionSpec(*places)


def by_name(rules: Mapping[str, PartitionSpec], *, otherwise: Rule = by_shape) -> Rule:
    """A rule that looks at the path: the first pattern found in it decides.

    Args:
        rules: Regular expression to spec: `{"head.*kernel": PartitionSpec(None, "model")}`.
        otherwise: What decides where no pattern is found.
    """

    def rule(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
        for pattern, spec in rules.items():
            if re.search(pattern, path):
                return spec
        return otherwise(path, shape, mesh)

    return rule


def shardings(state: Any, mesh: Mesh, rule: Rule) -> Any:
    """Where every array of a `TrainState` lies, as a tree of `NamedSharding`.

    Args:
        state: Its `params` and `optimizer` are laid out; arrays or their shapes.
        mesh: From `make_mesh`.
        rule: Such as an experiment's `layout`.

    Raises:
        MeshError: The rule asks for what the array or the mesh cannot do.
    """
    everywhere = NamedSharding(mesh, PartitionSpec())
    whole = jax.tree.map(lambda leaf: everywhere, state)
    if mesh.size == 1:
        return whole
    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    specs = {path: (leaf.shape, _spec(path, leaf, mesh, rule)) for path, leaf in leaves}

    def like_its_parameter(path, leaf) -> NamedSharding:
        # An optimizer's tree holds trees like the parameters', so their paths end alike.
        for start in range(len(path)):
            found = specs.get(path[start:])
            if found and found[0] == leaf.shape:
                return NamedSharding(mesh, found[1])
        return everywhere

    def laid_out(tree: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(like_its_parameter, tree)

    return whole._replace(params=laid_out(state.params), optimizer=laid_out(state.optimizer))


def _spec(path: Any, leaf: Any, mesh: Mesh, rule: Rule) -> PartitionSpec:
    name = jax.tree_util.keystr(path)
    spec = rule(name, leaf.shape, mesh)
    try:
        NamedSharding(mesh, spec).shard_shape(leaf.shape)
    except ValueError as error:
        raise MeshError(
            f"the layout puts {name} {list(leaf.shape)} as {spec} on a mesh of "
            f"{dict(mesh.shape)}, which does not fit: {str(error).splitlines()[0]}"
        ) from error
    return spec
