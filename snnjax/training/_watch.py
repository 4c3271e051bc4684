"""Watch for NaN and infinities in inputs, targets and membranes, by example and layer.

NaN exceeds no threshold, so a neuron is silent for ever after one current of NaN: loss and gradient
stay finite and mean nothing. Steps therefore also read inputs and targets, and each membrane once,
after the last timestep. A `Watch` holds the number of the first such example for each place; those
of parts and devices are combined by a minimum.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from snnjax import data, nn
from snnjax.nn.contract import NonFinite, layer_name
from snnjax.nn.taps import example_axes, in_order, nonfinite_examples
from snnjax.typing import Array, PyTree

__all__ = [
    "Fault",
    "Place",
    "Watch",
    "data_places",
    "example_name",
    "neuron_places",
    "tree_place",
    "watch",
]

_NONE = np.iinfo(np.int32).max
_DATA = ("inputs", "targets")

Place: TypeAlias = tuple[str, Array, "int | None"]
"""Name, array, and axis of the examples; None if all examples share the array."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """First fault of a batch.

    Attributes:
        example: Number of the example in the batch.
        place: `"inputs"`, `"targets"`, another array of the state, or the name of a layer.
    """

    example: int
    place: str

    @property
    def in_data(self) -> bool:
        """True if the data are at fault, not the network."""
        return self.place in _DATA

    def describe(self, batch: str) -> str:
        """Sentence on the fault; `batch` names the batch and the example."""
        if self.in_data:
            return f"the {self.place} of {batch} hold NaN or an infinity"
        if self.place in ("parameters", "statistics"):
            return f"the {self.place} of the network hold NaN or an infinity"
        return f"membranes of layer {self.place} end with NaN or an infinity in {batch}"


@functools.partial(jax.tree_util.register_dataclass, data_fields=["first"], meta_fields=["places"])
@dataclasses.dataclass(frozen=True)
class Watch:
    """Number of the first example that is not finite, by place.

    Attributes:
        first: int32, one number per place; the largest int32 where all examples are finite.
        places: Names of the places.
    """

    first: Array
    # Static: names travel with the metrics of a compiled step and need no second trace.
    places: tuple[str, ...]

    @property
    def clean(self) -> Array:
        """True if everything is finite."""
        return jnp.all(self.first == _NONE)

    def renumber(self, stride: Any, offset: Any) -> Watch:
        """Numbers of the whole batch, `offset + stride * n`, from those of a part."""
        moved = jnp.where(self.first == _NONE, _NONE, offset + stride * self.first)
        return dataclasses.replace(self, first=moved)

    def join(self) -> Watch:
        """Watch of a batch from rows `[parts, places]`."""
        return dataclasses.replace(self, first=self.first.min(0))

    def across(self, axes: tuple[str, ...], batch: int) -> Watch:
        """Watch of the batch of all devices along mesh axes, each with `batch` neighbours of it."""
        if not axes:
            return self
        own = self.renumber(1, lax.axis_index(axes) * batch)
        return dataclasses.replace(own, first=lax.pmin(own.first, axes))

    def fault(self) -> Fault | None:
        """First fault, on the host: data before layers, layers in their order; None without one."""
        named = dict(zip(self.places, np.asarray(self.first).tolist(), strict=True))
        found = {place: example for place, example in named.items() if example != _NONE}
        # Everything behind a faulty input is faulty, too.
        order = [*(place for place in _DATA if place in found), *in_order(found)]
        return Fault(found[order[0]], order[0]) if order else None


def example_name(fault: Fault, batch: int, loader: data.Loader | None, split: str) -> str:
    """Name of the example of a fault, by its batch and by its number in the data set.

    Args:
        fault: Fault in the batch.
        batch: Number of the batch.
        loader: Loader of the batch; None leaves the second number out.
        split: Name of the split, "training" or "test".
    """
    name = f"example {fault.example} of batch {batch}"
    if loader is None:
        return name
    number = int(loader.indices(batch)[0][fault.example])
    return f"{name} (number {number} of the {split} examples)"


def watch(places: Iterable[Place], batch: int, *, weights: Array | None = None) -> Watch:
    """Watch over some arrays.

    Args:
        places: Arrays with their names; arrays of one name count as one place.
        batch: Number of examples.
        weights: `[B]`; examples of weight 0 are padding and not watched. None watches all.
    """
    marks: dict[str, Array] = {}
    for name, array, axis in places:
        # Stacks give marks and no arrays.
        mark = array if array.dtype == bool else nonfinite_examples(array, axis, batch)
        marks[name] = marks[name] | mark if name in marks else mark
    rows = jnp.stack(list(marks.values()))
    if weights is not None:
        rows = rows & (weights > 0)
    first = jnp.where(rows, jnp.arange(batch, dtype=jnp.int32), _NONE).min(1)
    return Watch(first, tuple(marks))


def data_places(batch: Any, frames: Array) -> Iterator[Place]:
    """Inputs and targets of a batch, and its frames `[T, B, ...]`."""
    # Integers have no NaN, and a code of spikes turns one into silence before the frames.
    if jnp.issubdtype(batch.inputs.dtype, jnp.inexact):
        yield "inputs", batch.inputs, 0
    yield "inputs", frames, 1
    if jnp.issubdtype(batch.labels.dtype, jnp.inexact):
        yield "targets", batch.labels, 0


def tree_place(name: str, tree: PyTree) -> Iterator[Place]:
    """Floating arrays of a tree that all examples share."""
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            yield name, leaf, None


def neuron_places(network: nn.Network, batch: int, aux: nn.Aux) -> Iterator[Place]:
    """Last states of the neurons of a network by layer.

    Args:
        network: The network.
        batch: Number of examples.
        aux: `Aux` of its call.
    """
    shape = (batch, *network.input_shape)
    axes = example_axes(network.body, shape, aux.state)
    # In layer order stacks report by themselves: reading their states here would keep them all.
    names = list(_names(network.body, aux.state, stacks=network.order == "time"))
    for name, leaf, axis in zip(names, jax.tree.leaves(aux.state), axes, strict=True):
        if name is not None:
            yield name, leaf, axis
    for name, entry in aux.diagnostics.items():
        if isinstance(entry, NonFinite):
            yield name.removesuffix("/neurons"), entry.examples, 0


def _names(layer: Any, state: PyTree, name: str = "", *, stacks: bool) -> Iterator[str | None]:
    """Name of the layer of each array in a state; None in stacks, unless they are wanted."""
    parts: list[tuple[str, Any, PyTree]] = []
    if isinstance(layer, nn.Sequential):
        numbered = enumerate(zip(layer.layers, state, strict=True))
        parts = [(layer_name(part, i), part, own) for i, (part, own) in numbered]
    elif isinstance(layer, nn.Residual):
        parts = list(
            zip(("branch", "shortcut"), (layer.branch, layer.shortcut), state, strict=True)
        )
    elif isinstance(layer, nn.Quantized):
        parts = [("", layer.layer, state)]
    if parts:
        for part, inner, own in parts:
            yield from _names(inner, own, f"{name}/{part}".strip("/"), stacks=stacks)
        return
    reported = isinstance(layer, nn.Stacked | nn.Reversible) and not stacks
    yield from [None if reported else name] * len(jax.tree.leaves(state))
