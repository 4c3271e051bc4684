"""Packed storage of a model: exact bytes to keep and to ship, and restoration to run it.

    stored = store(network, Kernels(Quantizer(4)))
    stored.footprint()                  # Footprint(weights=..., scales=..., unquantized=...)
    restore(stored)(frames, state, training=False)       # the network with rounded weights

`Stored` is a pytree of packed arrays, so a compiled function can take it as an argument and unpack
inside: between calls only the packed form is in memory. Any pytree can be stored. Running
statistics are not part of a network; store them with it: `store((network, statistics), plan)`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax

from snnjax.quantization.fixed_point import QFormat
from snnjax.quantization.plans import Plan, named_leaves, refuse_empty
from snnjax.quantization.quantizer import Quantized, Quantizer
from snnjax.quantization.words import Packed
from snnjax.typing import Key, PyTree

__all__ = ["Footprint", "Stored", "restore", "store"]


class Footprint(NamedTuple):
    """Bytes of a stored model, summed over its arrays.

    Attributes:
        weights: Bytes of packed codes.
        scales: Bytes of the scales of the codes.
        unquantized: Bytes of arrays in full precision, such as biases and normalisation.
    """

    weights: int
    scales: int
    unquantized: int

    @property
    def total(self) -> int:
        """Bytes of all arrays."""
        return self.weights + self.scales + self.unquantized


# Only the packed arrays are traced; names and structure are part of the pytree's structure.
@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["arrays"], meta_fields=["names", "structure"]
)
@dataclasses.dataclass(frozen=True)
class Stored:
    """Model with packed arrays, made by `store`.

    Attributes:
        arrays: One entry per array of the model: `Quantized`, `Packed`, or the array itself.
        names: Names of the arrays, in the same order.
        structure: Structure of the model, see `ops.variables`.
    """

    arrays: tuple[Any, ...]
    names: tuple[str, ...]
    structure: Any

    @property
    def unquantized(self) -> dict[str, int]:
        """Bytes of each array in full precision, by name."""
        pairs = zip(self.names, self.arrays, strict=True)
        return {name: array.nbytes for name, array in pairs if not _is_packed(array)}

    def footprint(self) -> Footprint:
        """Bytes of all arrays, by kind."""
        codes = [array.codes if isinstance(array, Quantized) else array for array in self.arrays]
        weights = sum(part.nbytes for part in codes if isinstance(part, Packed))
        scales = sum(part.scale.nbytes for part in self.arrays if isinstance(part, Quantized))
        return Footprint(weights, scales, sum(self.unquantized.values()))


def store(model: PyTree, plan: Plan, *, key: Key | None = None) -> Stored:
    """Packs the planned arrays of a model.

    Args:
        model: Any pytree of arrays, such as a network, or a network with its statistics.
        plan: Choice of a format for each array, see `quantization.plans`.
        key: Random key of formats that round stochastically, folded with the number of each array.

    Returns:
        The packed model; `restore` of it equals `quantize(model, plan, key=key)`.

    Raises:
        ValueError: The plan chooses no array, or stochastic rounding without a key.
    """
    named, structure = named_leaves(model)
    formats = [plan(name, leaf) for name, leaf in named]
    refuse_empty(plan, formats)
    arrays = []
    # The keys are those of `quantize`, so that both round alike.
    for number, ((_, leaf), format) in enumerate(zip(named, formats, strict=True)):
        leaf_key = None if key is None else jax.random.fold_in(key, number)
        arrays.append(_pack_leaf(leaf, format, leaf_key))
    return Stored(tuple(arrays), tuple(name for name, _ in named), structure)


def restore(stored: Stored) -> PyTree:
    """Unpacks a stored model to floating-point arrays on their grids."""
    leaves = [array.values() if _is_packed(array) else array for array in stored.arrays]
    return stored.structure.unflatten(leaves)


def _pack_leaf(leaf: Any, format: Quantizer | QFormat | None, key: Key | None) -> Any:
    if format is None:
        return leaf
    # A `QFormat` has a fixed grid; a `Quantizer` stores its fitted scales, too.
    if isinstance(format, QFormat):
        return Packed.from_values(leaf, format, key=key)
    return format.store(leaf)


def _is_packed(array: Any) -> bool:
    return isinstance(array, Quantized | Packed)
