"""Report of a network's redundancy: rates, spike features, distributions and classes by layer.

Two reports are compared before and after a measure against redundancy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from snnjax import metrics
from snnjax.nn.taps import in_order
from snnjax.redundancy._histogram import Bins, Histogram
from snnjax.redundancy.classes import Thresholds, classify, shares
from snnjax.redundancy.sums import Sums

__all__ = ["Comparison", "Layer", "Report", "compare", "report"]


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """Results of one layer of neurons, over all examples.

    Attributes:
        features: Mean spike map of every timestep and channel, float32 `[T, ..., C]`.
        classes: Class of every feature, index in `CLASSES`, `[T, C]`.
        channel_classes: Class of each channel's map averaged over timesteps, `[C]`.
        rate: Spikes per neuron and timestep.
        currents: Histogram of the input currents after attention, the "membrane potential
            distribution" of the paper.
        membrane: Histogram of the membrane potentials after the reset.
    """

    features: np.ndarray
    classes: np.ndarray
    channel_classes: np.ndarray
    rate: float
    currents: Histogram
    membrane: Histogram

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return int(np.prod(self.features.shape[1:]))

    @property
    def rates_over_time(self) -> np.ndarray:
        """Spikes per neuron at each timestep, `[T]`."""
        # float64, because the mean runs over many float32 rates.
        return self.features.reshape(len(self.features), -1).mean(1, dtype=np.float64)

    @property
    def shares(self) -> dict[str, float]:
        """Fractions of null, normal and noise features, over all timesteps and channels."""
        return shares(self.classes)

    @property
    def channel_shares(self) -> dict[str, float]:
        """Fractions of null, normal and noise channels, by their maps averaged over timesteps."""
        return shares(self.channel_classes)


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
    """Redundancy of a network, made by `report`.

    Attributes:
        layers: Spiking layers by name, in the order of the network.
        analog_layers: Names of the layers whose outputs are not spikes; they are not reported.
        examples: Number of examples.
    """

    layers: dict[str, Layer]
    analog_layers: tuple[str, ...]
    examples: int

    @property
    def rates(self) -> dict[str, float]:
        """Spikes per neuron and timestep, by layer."""
        return {name: layer.rate for name, layer in self.layers.items()}

    @property
    def neurons(self) -> dict[str, int]:
        """Number of neurons, by layer."""
        return {name: layer.neurons for name, layer in self.layers.items()}

    @property
    def nasfr(self) -> float:
        """Network average spiking firing rate: spikes per neuron and timestep, `metrics.nasfr`."""
        return metrics.nasfr(self.rates, self.neurons)


def report(
    sums: Mapping[str, Sums],
    *,
    thresholds: Thresholds = Thresholds(),  # noqa: B008 (frozen)
    bins: Bins = Bins(),  # noqa: B008 (frozen)
) -> Report:
    """Evaluates the sums over a data set.

    Args:
        sums: Sums by layer, from `add`.
        thresholds: Thresholds of the classes null and noise.
        bins: Bins of the histograms, the same as for `measure`.

    Raises:
        ValueError: No layer spikes, or no example was counted.
    """
    spiking = {name: s for name, s in in_order(sums).items() if not s.analog}
    if not spiking:
        raise ValueError(
            f"no layer spikes (of {sorted(sums)}): redundancy is defined for neurons whose outputs "
            "are 0 or 1, use a network that has some"
        )
    # All layers counted the same examples.
    examples = next(iter(spiking.values())).examples
    if not examples:
        raise ValueError("no example was counted: all had weight 0, give real examples weight 1")
    layers = {name: _layer(s, thresholds, bins) for name, s in spiking.items()}
    return Report(layers, tuple(n for n in in_order(sums) if n not in spiking), examples)


def _layer(sums: Sums, thresholds: Thresholds, bins: Bins) -> Layer:
    timesteps, *_, channels = sums.spikes.shape
    counts = sums.spikes.reshape(timesteps, -1, channels)
    rates = counts / sums.examples
    # Without a threshold the bins are in units of 1, and a share above it is undefined.
    threshold = float(sums.unit) if sums.threshold else None
    return Layer(
        features=(sums.spikes / sums.examples).astype(np.float32),
        classes=classify(rates, thresholds=thresholds),
        channel_classes=classify(rates.mean(0), thresholds=thresholds),
        # Integers, divided once: the mean of the rates would round per position.
        rate=int(counts.sum()) / (sums.examples * counts.size),
        currents=Histogram(sums.currents, bins, threshold),
        membrane=Histogram(sums.membrane, bins, threshold),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """Result of `compare`.

    Attributes:
        pairs: Names of corresponding layers, `(before, after)`; empty if the two networks are built
            differently.
        nasfr_change: Change of the NASFR, %; negative for fewer spikes, None if there were none
            before.
    """

    pairs: tuple[tuple[str, str], ...]
    nasfr_change: float | None


def compare(before: Report, after: Report) -> Comparison:
    """Compares the firing of two networks.

        change = 100 (NASFR_after / NASFR_before - 1)

    Args:
        before: Report of the reference network.
        after: Report of the other network.
    """
    # By order and not by name: an attention layer in between shifts the numbers in the names and
    # leaves the neurons.
    same = list(before.neurons.values()) == list(after.neurons.values())
    pairs = tuple(zip(before.layers, after.layers, strict=True)) if same else ()
    change = 100 * (after.nasfr / before.nasfr - 1) if before.nasfr else None
    return Comparison(pairs, change)
