"""Tally of a network's operations: exact integer sums that add over batches.

    tally(batch 1) + tally(batch 2) = tally(both), except that a call is one batch

Everything here is NumPy and Python, so sums of any size are exact.
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
    """Operations of one connection, summed over examples and runs.

    Attributes:
        runs: Runs per example: T, or 1 for a computation shared by all timesteps.
        effective_macs: Products of nonzero factors in calls with inputs outside {-1, 0, 1}; a call
            is one timestep of a batch.
        effective_acs: Products of nonzero factors in calls with all inputs in {-1, 0, 1}.
        dense: All products, without those of zero padding.
        padded: All products, including those of zero padding.
        active: Number of nonzero inputs.
        inputs: Number of inputs.
        binary: True if all inputs were 0 or 1.
        constant: True if the inputs of each example were equal in all runs.
        first: True if the inputs were the frames of the network.
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
        """Fraction of nonzero inputs."""
        return self.active / self.inputs

    @property
    def static(self) -> bool:
        """True if one computation serves all timesteps.

        Decided by value on the measured examples: the inputs of each are equal at every timestep
        (by checksum), and they are the frames themselves or real numbers.
        """
        # Spikes that repeat on these examples need not repeat on others.
        return self.runs > 1 and self.constant and (self.first or not self.binary)

    @classmethod
    def from_operations(cls, counts: Any, real: np.ndarray, frames: np.ndarray) -> Connection:
        """Sums `metrics.operations.Operations` over the examples, without padding.

        Args:
            counts: Operations with arrays `[runs, B]`.
            real: Mask of the examples that are not padding, `[B]`.
            frames: Checksums of the network's frames, `[T, B]`.
        """
        counts = type(counts)(*(np.asarray(part)[:, real] for part in counts))
        # The counts of an example are uint32; their sum over a batch may exceed 32 bits.
        total = lambda part: int(part.sum(dtype=np.int64))  # noqa: E731
        # NeuroBench decides per call, a timestep of the whole batch: one other value makes it all
        # MAC.
        accumulating = counts.ternary.all(1)
        # A connection that runs once is not compared: one checksum would broadcast over T frames.
        same_length = len(counts.checksum) == len(frames)
        return cls(
            runs=len(counts.effective),
            effective_macs=total(counts.effective[~accumulating]),
            effective_acs=total(counts.effective[accumulating]),
            dense=total(counts.dense),
            padded=total(counts.padded),
            active=total(counts.active),
            inputs=total(counts.inputs),
            binary=bool(counts.binary.all()),
            constant=bool((counts.checksum == counts.checksum[:1]).all()),
            first=same_length and bool((counts.checksum == frames[:, real]).all()),
        )


@dataclasses.dataclass(frozen=True)
class Product:
    """Products of activations with each other, summed over examples and runs.

    Attributes:
        effective: Products of two nonzero factors.
        dense: All products.
        binary: True if each product has a spike as a factor.
    """

    effective: int
    dense: int
    binary: bool

    @classmethod
    def from_products(cls, counts: Any, real: np.ndarray) -> Product:
        """Sums `metrics.operations.Products` over the examples of the mask `real` `[B]`."""
        total = lambda part: int(np.asarray(part)[:, real].sum(dtype=np.int64))  # noqa: E731
        binary = bool(np.asarray(counts.binary)[:, real].all())
        return cls(total(counts.effective), total(counts.dense), binary)


@dataclasses.dataclass(frozen=True)
class Neurons:
    """Activity of a layer of neurons, summed over examples and timesteps.

    Attributes:
        outputs: Number of outputs.
        active: Number of nonzero outputs.
        updates: Changes of membranes, see `metrics.operations`; None where undefined.
        spiking: True if all outputs were 0 or 1.
        stateful: True if the layer has a membrane.
    """

    outputs: int
    active: int
    updates: int | None
    spiking: bool
    stateful: bool


@dataclasses.dataclass(frozen=True)
class Tally:
    """Operations of a network on a set of examples; layers by name, in the order of the network.

    Attributes:
        examples: Number of examples.
        timesteps: Number of timesteps, T.
        connections: Operations of the connections.
        products: Products of activations, of attention and of neurons that weigh time.
        neurons: Activity of the neurons.
        parameter_bytes: Bytes of the parameters.
        membrane_bytes: Bytes of the states of all neurons, for one example.
    """

    examples: int
    timesteps: int
    connections: Mapping[str, Connection]
    products: Mapping[str, Product]
    neurons: Mapping[str, Neurons]
    parameter_bytes: int
    membrane_bytes: int

    def __add__(self, other: Tally) -> Tally:
        """Adds the counts of two sets of examples of one network.

        Raises:
            ValueError: Networks or numbers of timesteps differ.
        """
        layers = ("connections", "products", "neurons")
        if self.timesteps != other.timesteps or any(
            set(getattr(self, kind)) != set(getattr(other, kind)) for kind in layers
        ):
            raise ValueError("only tallies of one network and one window length add up")
        # Bytes are those of the network or of one example, so they do not add over examples.
        return dataclasses.replace(
            self,
            examples=self.examples + other.examples,
            **{kind: _add_layers(getattr(self, kind), getattr(other, kind)) for kind in layers},
        )

    @property
    def rate(self) -> float:
        """Spikes per spiking neuron and timestep; 0 without neurons."""
        spiking = [layer for layer in self.neurons.values() if layer.spiking]
        # Over all neurons: a mean of the layers' rates would weigh small layers like large ones.
        outputs = sum(layer.outputs for layer in spiking)
        return sum(layer.active for layer in spiking) / outputs if outputs else 0.0


def _add_layers(ours: Mapping[str, Layer], theirs: Mapping[str, Layer]) -> dict[str, Layer]:
    return {name: _add_layer(layer, theirs[name]) for name, layer in ours.items()}


def _add_layer(one: Layer, other: Layer) -> Layer:
    """Adds the counts of a layer; flags are combined with `and`."""
    values = {}
    for field in dataclasses.fields(one):
        pair = getattr(one, field.name), getattr(other, field.name)
        combine: Callable[..., Any] = sum
        # Flags first: a bool is an int and would be summed.
        if isinstance(pair[0], bool):
            combine = all
        # `runs` belongs to the network, and a count undefined on one side is undefined for both.
        elif None in pair or field.name == "runs":
            combine = lambda pair: pair[0] if pair[0] == pair[1] else None  # noqa: E731
        values[field.name] = combine(pair)
    return type(one)(**values)
