"""A model in packed arrays: what it takes to keep and to ship, byte for byte, and to run again.

    stored = store(network, Kernels(Quantizer(4)))
    stored.footprint()                              # Footprint(weights=..., scales=..., rest=...)
    restore(stored)(frames, state, training=False)  # the network again, its weights on their grid

`Stored` is a pytree of the packed arrays, so a compiled function may take it and unpack inside:
what the program is given, and what lies in memory between two calls, is the packed form. Any pytree
can be stored; a network's running statistics are no part of it, store them with it:
`store((network, statistics), plan)`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax

from snnjax.quantization.fixed_point import QFormat
from snnjax.quantization.plans import Plan, named_leaves, refuse_nothing
from snnjax.quantization.quantizer import Quantized, Quantizer
from snnjax.quantization.words import Packed
from snnjax.typing import Key, PyTree

__all__ = ["Footprint", "Stored", "restore", "store"]


class Footprint(NamedTuple):
    """Bytes of the arrays of a stored model, measured, not computed.

    Attributes:
        weights: packed codes.
        scales: of the codes.
        rest: arrays left as they were, such as biases and normalisation.
    """

    weights: int
    scales: int
    rest: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.scales + self.rest


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["arrays"], meta_fields=["names", "structure"]
)
@dataclasses.dataclass(frozen=True)
class Stored:
    """A model in packed arrays; made by `store`.

    Attributes:
        arrays: one per array of the model: `Quantized`, `Packed`, or the array itself.
        names: of the arrays, in the same order.
        structure: of the model.
    """

    arrays: tuple[Any, ...]
    names: tuple[str, ...]
    structure: Any

    @property
    def left(self) -> dict[str, int]:
        """Arrays that were left as they were: name to bytes."""
        pairs = zip(self.names, self.arrays, strict=True)
        return {name: array.nbytes for name, array in pairs if _is_left(array)}

    def footprint(self) -> Footprint:
        """Bytes of all its arrays."""
        codes = [array.codes if isinstance(array, Quantized) else array for array in self.arrays]
        weights = sum(part.nbytes for part in codes if isinstance(part, Packed))
        scales = sum(part.scale.nbytes for part in self.arrays if isinstance(part, Quantized))
        return Footprint(weights, scales, sum(self.left.values()))


def store(model: PyTree, plan: Plan, *, key: Key | None = None) -> Stored:
    """Packs the planned arrays of a model.

    Args:
        model: any pytree of arrays, such as a network, or one with its statistics.
        plan: which arrays, and how, see `quantization.plans`.
        key: for formats that round stochastically; every array draws its own numbers.

    Returns:
        The model in packed arrays; `restore` of it equals `quantized(model, plan, key=key)`.

    Raises:
        ValueError: the plan finds nothing to do; stochastic rounding without a key.
    """
    named, structure = named_leaves(model)
    ways = [plan(name, leaf) for name, leaf in named]
    refuse_nothing(plan, ways)
    arrays = []
    for number, ((_, leaf), way) in enumerate(zip(named, ways, strict=True)):
        own = None if key is None else jax.random.fold_in(key, number)
        arrays.append(_packed(leaf, way, own))
    return Stored(tuple(arrays), tuple(name for name, _ in named), structure)


def restore(stored: Stored) -> PyTree:
    """The model, its packed arrays back as floating-point numbers on their grids."""
    leaves = [a if _is_left(a) else a.values() for a in stored.arrays]
    return jax.tree.unflatten(stored.structure, leaves)


def _packed(leaf: Any, way: Quantizer | QFormat | None, key: Key | None) -> Any:
    if way is None:
        return leaf
    return Packed.of(leaf, way, key=key) if isinstance(way, QFormat) else way.store(leaf)


def _is_left(array: Any) -> bool:
    return not isinstance(array, Quantized | Packed)
