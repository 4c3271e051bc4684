"""Weights by their names, in a file that other tools can read: safetensors.

    body.layers.1.function.kernel    F32    [64, 8]
    statistics.2.mean                F32    [8]

A name is the path of an array in its tree, joined by dots. A network, an `nnx.State` of it and a
`training.TrainState` give an array the same name, and an artifact's weights have these names too,
so that what was written from one is read into another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from snnjax.export.errors import ArtifactError
from snnjax.export.tensors import pack, read_bytes, refuse_difference, unpack
from snnjax.typing import PyTree

__all__ = ["array_names", "load_weights", "save_weights"]

_JUDGING = ("params", "constants", "statistics")  # of a TrainState, which is of another room


def save_weights(path: str | Path, tree: PyTree) -> Path:
    """Writes the arrays of a tree by their names.

    Of a `training.TrainState` these are parameters, constants and running statistics: all that an
    answer depends on. Optimizer, counters and random keys stay in the run's checkpoints.

    Args:
        path: A file that is not there yet.
        tree: A network, an `nnx.State`, a `TrainState`, or any pytree of arrays.

    Returns:
        The path.

    Raises:
        ArtifactError: Something is there already; two arrays have one name; an array is of a type
            that the format does not know, such as a random key.

    Example:
        export.save_weights("weights.safetensors", state)
    """
    path = Path(path)
    if path.exists():
        raise ArtifactError(f"{path} is there already and is not overwritten: give another path")
    parts = _parts(tree)
    data = pack(dict(zip(array_names(parts), jax.tree.leaves(parts), strict=True)))
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name never means half a file.
    beside = path.with_name(f".{path.name}.part")
    beside.write_bytes(data)
    beside.rename(path)
    return path


def load_weights(path: str | Path, like: PyTree) -> PyTree:
    """Reads arrays into a tree of the same names, shapes and types, bit for bit.

    Args:
        path: A file by `save_weights`, or an artifact's `weights.safetensors`.
        like: A network, an `nnx.State`, a `TrainState`, or any pytree of arrays or of
            `jax.ShapeDtypeStruct`. Where a leaf lies on devices, the array goes there.

    Returns:
        The tree with arrays of the file in place of its own; the rest of a `TrainState` as it was.

    Raises:
        ArtifactError: The file cannot be read, or names, shapes or types differ; it says which.

    Example:
        network = export.load_weights("weights.safetensors", network)
    """
    path, parts = Path(path), _parts(like)
    here = dict(zip(array_names(parts), jax.tree.leaves(parts), strict=True))
    there = unpack(read_bytes(path), path)
    refuse_difference(there, here, f"the weights {path} do not fit")
    found = [_placed(there[name], leaf) for name, leaf in here.items()]
    parts = jax.tree.unflatten(jax.tree.structure(parts), found)
    if len(parts) == 1:
        return parts[0]
    params, constants, rest = parts
    return like._replace(params=params, constants=constants, **rest)


def array_names(parts: tuple[PyTree, ...]) -> list[str]:
    """The names of the leaves of some trees, in their order.

    Args:
        parts: Trees whose names stand side by side.

    Raises:
        ArtifactError: Two leaves have one name.
    """
    # The first step is the part's number; the last one may be that of a Flax variable.
    paths = [path[1:] for path, _ in jax.tree_util.tree_leaves_with_path(parts)]
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path in paths]
    names = [name.removesuffix(".value") for name in names]
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ArtifactError(f"two arrays are called {name!r}: rename an attribute or a key")
        seen.add(name)
    return names


def _parts(tree: PyTree) -> tuple[PyTree, ...]:
    if not set(_JUDGING) <= set(getattr(tree, "_fields", ())):
        return (tree,)
    return tree.params, tree.constants, {"statistics": tree.statistics}


def _placed(array: np.ndarray, like: Any) -> Any:
    if isinstance(like, np.ndarray):
        return array
    return jax.device_put(array, getattr(like, "sharding", None))
