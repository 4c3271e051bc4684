"""Weights by name in a safetensors file, which other tools can read.

    body.layers.1.function.kernel    F32    [64, 8]
    statistics.2.mean                F32    [8]

The name of an array is its path in the tree, joined by dots. A network, its `nnx.State`, a
`training.TrainState` and an artifact give an array the same name, so that a file written from one
can be read into another.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from snnjax.export.tensors import ArtifactError, check_match, pack, read_bytes, unpack
from snnjax.typing import PyTree

if TYPE_CHECKING:
    from snnjax.ops.variables import Structure

__all__ = ["load_weights", "named_arrays", "save_weights"]

# Fields of a TrainState, known by name: this module must not import the training package.
_TRAIN_STATE = ("params", "constants", "statistics")


def save_weights(path: str | Path, tree: PyTree) -> Path:
    """Writes the arrays of a tree by name.

    For a `training.TrainState` these are parameters, constants and running statistics, on which the
    outputs depend. Optimizer state, counters and random keys remain in the run's checkpoints.

    Args:
        path: Path of a file that does not exist yet.
        tree: A network, an `nnx.State`, a `TrainState`, or any pytree of arrays.

    Returns:
        The path.

    Raises:
        ArtifactError: If the path exists, two arrays have one name, or the format does not support
            the dtype of an array, such as a random key.

    Example:
        export.save_weights("weights.safetensors", state)
    """
    path = Path(path)
    if path.exists():
        raise ArtifactError(f"{path} is there already and is not overwritten: give another path")
    parts = _parts(tree)
    data = pack(named_arrays(parts)[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    # Renamed once complete: a crash leaves no truncated file under the final name.
    partial = path.with_name(f".{path.name}.part")
    partial.write_bytes(data)
    partial.rename(path)
    return path


def load_weights(path: str | Path, like: PyTree) -> PyTree:
    """Reads arrays into a tree of the same names, shapes and dtypes, bit for bit.

    Args:
        path: A file written by `save_weights`, or an artifact's `weights.safetensors`.
        like: A network, an `nnx.State`, a `TrainState`, or any pytree of arrays or
            `jax.ShapeDtypeStruct`s. Arrays are placed with the sharding of its leaves.

    Returns:
        The tree with the arrays of the file; other fields of a `TrainState` are unchanged.

    Raises:
        ArtifactError: If the file cannot be read, or names, shapes or dtypes differ; the message
            lists them.

    Example:
        network = export.load_weights("weights.safetensors", network)
    """
    path = Path(path)
    leaves, structure = named_arrays(_parts(like))
    saved = unpack(read_bytes(path), path)
    check_match(saved, leaves, f"the weights {path} do not fit")
    arrays = [_put(saved[name], leaf) for name, leaf in leaves.items()]
    parts = structure.unflatten(arrays)
    if len(parts) == 1:
        return parts[0]
    params, constants, rest = parts
    return like._replace(params=params, constants=constants, **rest)


def named_arrays(parts: tuple[PyTree, ...]) -> tuple[dict[str, Any], Structure]:
    """Leaves of several trees by name, and the structure that restores the trees.

    A variable at several places has one entry, under the name of the first one.

    Args:
        parts: Trees whose names form one namespace.

    Raises:
        ArtifactError: If two leaves have the same name.
    """
    # An artifact runs where Flax is not installed.
    from snnjax.ops.variables import flatten_with_path

    # The first path entry is the index of the part; the last may be `value` of a Flax variable,
    # which an `nnx.State` and a module spell differently.
    pairs, structure = flatten_with_path(parts)
    arrays: dict[str, Any] = {}
    for path, leaf in pairs:
        name = jax.tree_util.keystr(path[1:], simple=True, separator=".").removesuffix(".value")
        if name in arrays:
            raise ArtifactError(f"two arrays are called {name!r}: rename an attribute or a key")
        arrays[name] = leaf
    return arrays, structure


def _parts(tree: PyTree) -> tuple[PyTree, ...]:
    if not set(_TRAIN_STATE) <= set(getattr(tree, "_fields", ())):
        return (tree,)
    return tree.params, tree.constants, {"statistics": tree.statistics}


def _put(array: np.ndarray, like: Any) -> Any:
    if isinstance(like, np.ndarray):
        # NumPy trees stay on the host.
        return array
    return jax.device_put(array, getattr(like, "sharding", None))
