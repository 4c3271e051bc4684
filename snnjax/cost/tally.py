"""Sums of what a network did, as whole numbers: batches add up.

    tally(batch 1) + tally(batch 2) = tally(both), but for the rule that a call is one batch

Everything here is NumPy and Python, so that sums are exact whatever their size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

__all__ = ["Connection", "Neurons", "Product", "Tally"]

Layer = TypeVar("Layer", "Connection", "Product", "Neurons")


@dataclasses.dataclass(frozen=True)
class Connection:
    """What one connection did, summed over examples and over the times that it ran.

    Attributes:
        runs: how often it runs per example: T, or 1 for what is computed once for all timesteps.
        effective_macs: products of what is not zero, where a call was not all in {-1, 0, 1}; a
            call is a timestep of a batch.
        effective_acs: the same where it was.
        dense: products there are, without those of zero padding.
        padded: products there are, with those of zero padding.
        active: inputs that are not zero.
        inputs: inputs.
        binary: whether all inputs were 0 or 1.
        constant: whether each example's inputs were the same every time.
        first: whether its inputs were the network's own frames.
    """

    runs: int
    effective_macs: int
    effective_acs: int
    dense: int
    padded: int
    active: int
    inputs: int
    binary: bool
    constant: bool
    first: bool

    @property
    def rate(self) -> float:
        """Share of its inputs that are not zero."""
        return self.active / self.inputs

    @property
    def static(self) -> bool:
        """Whether one computation does for all timesteps.

        Told by value, on the examples that were measured: the inputs of each are the same at every
        timestep (by checksum), and they are the frames themselves or real numbers. Spikes that
        repeat are not static: nothing says that they will.
        """
        return self.runs > 1 and self.constant and (self.first or not self.binary)

    @classmethod
    def of(cls, found: Any, real: np.ndarray, frames: np.ndarray) -> Connection:
        """Sums of `metrics.operations.Operations` over the examples that are no padding.

        Args:
            found: its arrays are `[runs, B]`.
            real: `[B]`, whether an example is none of padding.
            frames: `[T, B]`, checksums of the network's frames.
        """
        found = type(found)(*(np.asarray(part)[:, real] for part in found))
        whole = lambda part: int(part.sum(dtype=np.int64))  # noqa: E731
        calls = found.ternary.all(1)
        same = len(found.checksum) == len(frames)
        return cls(
            runs=len(found.effective),
            effective_macs=whole(found.effective[~calls]),
            effective_acs=whole(found.effective[calls]),
            dense=whole(found.dense),
            padded=whole(found.padded),
            active=whole(found.active),
            inputs=whole(found.inputs),
            binary=bool(found.binary.all()),
            constant=bool((found.checksum == found.checksum[:1]).all()),
            first=same and bool((found.checksum == frames[:, real]).all()),
        )


@dataclasses.dataclass(frozen=True)
class Product:
    """Products of activations with each other, summed over examples and runs.

    Attributes:
        effective: of two numbers that are not zero.
        dense: all.
        binary: whether one factor of each is a spike.
    """

    effective: int
    dense: int
    binary: bool

    @classmethod
    def of(cls, found: Any, real: np.ndarray) -> Product:
        """Sums of `metrics.operations.Products` over the examples that are no padding."""
        whole = lambda part: int(np.asarray(part)[:, real].sum(dtype=np.int64))  # noqa: E731
        binary = bool(np.asarray(found.binary)[:, real].all())
        return cls(whole(found.effective), whole(found.dense), binary)


@dataclasses.dataclass(frozen=True)
class Neurons:
    """What a layer of neurons did, summed over examples and timesteps.

    Attributes:
        outputs: number of outputs.
        active: outputs that are not zero.
        updates: of membranes, see `membrane_updates`; None where that is not defined.
        spiking: whether all outputs were 0 or 1.
        stateful: whether it has a membrane.
    """

    outputs: int
    active: int
    updates: int | None
    spiking: bool
    stateful: bool


@dataclasses.dataclass(frozen=True)
class Tally:
    """What a network did.

    Attributes:
        examples: how many were measured.
        timesteps: T.
        connections: by the name of the layer, in the order of the network.
        products: the same.
        neurons: the same.
        parameter_bytes: of parameters.
        membrane_bytes: of the states of all neurons, for one example.
    """

    examples: int
    timesteps: int
    connections: Mapping[str, Connection]
    products: Mapping[str, Product]
    neurons: Mapping[str, Neurons]
    parameter_bytes: int
    membrane_bytes: int

    def __add__(self, other: Tally) -> Tally:
        """Both together, of one network.

        Raises:
            ValueError: they are of different networks or windows.
        """
        layers = ("connections", "products", "neurons")
        if self.timesteps != other.timesteps or any(
            set(getattr(self, kind)) != set(getattr(other, kind)) for kind in layers
        ):
            raise ValueError("only tallies of one network and one window length add up")
        return dataclasses.replace(
            self,
            examples=self.examples + other.examples,
            **{kind: _joined(getattr(self, kind), getattr(other, kind)) for kind in layers},
        )

    @property
    def rate(self) -> float:
        """Spikes per neuron and timestep, every neuron counting once; 0 without neurons."""
        spiking = [layer for layer in self.neurons.values() if layer.spiking]
        outputs = sum(layer.outputs for layer in spiking)
        return sum(layer.active for layer in spiking) / outputs if outputs else 0.0


def _joined(ours: Mapping[str, Layer], theirs: Mapping[str, Layer]) -> dict[str, Layer]:
    return {name: _both(layer, theirs[name]) for name, layer in ours.items()}


def _both(one: Layer, other: Layer) -> Layer:
    """Counts add up, what is said of all examples holds of both, `runs` stay."""
    values = {}
    for field in dataclasses.fields(one):
        pair = getattr(one, field.name), getattr(other, field.name)
        join: Callable[..., Any] = sum
        if isinstance(pair[0], bool):
            join = all
        elif None in pair or field.name == "runs":
            join = lambda pair: pair[0] if pair[0] == pair[1] else None  # noqa: E731
        values[field.name] = join(pair)
    return type(one)(**values)
