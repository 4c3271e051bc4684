"""From sums to what is looked at: rates, spike features, distributions, classes of each layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from snnjax import metrics
from snnjax.nn import in_order
from snnjax.redundancy.classes import Thresholds, classify, shares
from snnjax.redundancy.histogram import Bins, Histogram
from snnjax.redundancy.sums import Sums

__all__ = ["Layer", "Report", "report"]


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """One layer of neurons, over all examples.

    Attributes:
        features: `[T, ..., C]` float32, the mean spike map of every timestep and channel.
        classes: `[T, C]`, the class of each of them, see `classify`.
        channel_classes: `[C]`, the class of each channel's map over all timesteps.
        rate: Spikes per neuron and timestep.
        currents: Distribution of the input currents after attention, the paper's "membrane
            potential distribution".
        membrane: Distribution of the membrane potentials after the reset.
    """

    features: np.ndarray
    classes: np.ndarray
    channel_classes: np.ndarray
    rate: float
    currents: Histogram
    membrane: Histogram

    @property
    def neurons(self) -> int:
        """How many there are."""
        return int(np.prod(self.features.shape[1:]))

    @property
    def rates_over_time(self) -> np.ndarray:
        """`[T]`, spikes per neuron at each timestep."""
        return self.features.reshape(len(self.features), -1).mean(1, dtype=np.float64)

    @property
    def shares(self) -> dict[str, float]:
        """Shares of null, normal and noise among the features of all timesteps and channels."""
        return shares(self.classes)

    @property
    def channel_shares(self) -> dict[str, float]:
        """The same among the channels' maps over all timesteps."""
        return shares(self.channel_classes)


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
    """What was found in a network.

    Attributes:
        layers: By name, in the order of the network; those that spike.
        left_out: Names of layers whose outputs are no spikes.
        examples: How many were looked at.
    """

    layers: dict[str, Layer]
    left_out: tuple[str, ...]
    examples: int

    @property
    def rates(self) -> dict[str, float]:
        """Layer to spikes per neuron and timestep."""
        return {name: layer.rate for name, layer in self.layers.items()}

    @property
    def neurons(self) -> dict[str, int]:
        """Layer to how many neurons it has."""
        return {name: layer.neurons for name, layer in self.layers.items()}

    @property
    def nasfr(self) -> float:
        """Spikes per neuron and timestep of the network, see `metrics.nasfr`."""
        return metrics.nasfr(self.rates, self.neurons)


def report(
    sums: Mapping[str, Sums],
    *,
    thresholds: Thresholds = Thresholds(),  # noqa: B008 (frozen)
    bins: Bins = Bins(),  # noqa: B008 (frozen)
) -> Report:
    """What sums over a data set say.

    Args:
        sums: From `add`.
        thresholds: When a feature is null and when it is noise.
        bins: Those given to `measure`.

    Raises:
        ValueError: No layer spikes, or no example was counted.
    """
    spiking = {name: s for name, s in in_order(sums).items() if not s.analog}
    if not spiking:
        raise ValueError(
            f"no layer spikes (of {sorted(sums)}): there is nothing to find in a network without "
            "neurons whose outputs are 0 or 1"
        )
    examples = next(iter(spiking.values())).examples
    if not examples:
        raise ValueError("no example was counted: all of them had weight 0")
    layers = {name: _layer(s, thresholds, bins) for name, s in spiking.items()}
    return Report(layers, tuple(n for n in in_order(sums) if n not in spiking), examples)


def _layer(sums: Sums, thresholds: Thresholds, bins: Bins) -> Layer:
    timesteps, *_, channels = sums.spikes.shape
    counts = sums.spikes.reshape(timesteps, -1, channels)
    rates = counts / sums.examples
    threshold = float(sums.unit) if sums.threshold else None
    return Layer(
        features=(sums.spikes / sums.examples).astype(np.float32),
        classes=classify(rates, thresholds=thresholds),
        channel_classes=classify(rates.mean(0), thresholds=thresholds),
        # Divided once: exactly what counting all spikes gives.
        rate=int(counts.sum()) / (sums.examples * counts.size),
        currents=Histogram(sums.currents, bins, threshold),
        membrane=Histogram(sums.membrane, bins, threshold),
    )
