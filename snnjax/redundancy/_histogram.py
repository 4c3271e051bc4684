"""Histograms of potentials in fixed bins, so that counts of batches add up.

    bin(x) = floor(n (x - threshold) / unit) + n (1 - lowest)          unit: the mean threshold

Bins are relative to the threshold of each neuron: for any thresholds of a layer, the bins from
`n (1 - lowest)` on count exactly the values at or above threshold.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from snnjax.typing import Array

__all__ = ["Bins", "Histogram", "count"]


@dataclasses.dataclass(frozen=True)
class Bins:
    """Bins of equal width; the first and the last bin include all values beyond them.

    Attributes:
        lowest: Lower edge of the first bin, in thresholds.
        highest: Upper edge of the last bin, in thresholds.
        per_threshold: Number of bins from 0 to the threshold, `n`.

    Raises:
        ValueError: The threshold, 1, is not between `lowest` and `highest`.
    """

    lowest: int = -9
    highest: int = 11
    per_threshold: int = 10

    def __post_init__(self):
        if not self.lowest < 1 < self.highest or self.per_threshold < 1:
            raise ValueError(
                f"bins from {self.lowest} to {self.highest} thresholds, {self.per_threshold} per "
                "threshold: choose lowest < 1 < highest, so that the threshold itself lies inside, "
                "and per_threshold >= 1"
            )

    @property
    def below_threshold(self) -> int:
        """Number of bins below the threshold."""
        return (1 - self.lowest) * self.per_threshold

    def __len__(self) -> int:
        return (self.highest - self.lowest) * self.per_threshold


@dataclasses.dataclass(frozen=True, eq=False)
class Histogram:
    """Histogram of potentials.

    Attributes:
        counts: Counts per bin, int64 `[len(bins)]`.
        bins: Bins of the counts.
        threshold: Mean threshold of the layer, in units of the potentials; None if it is unknown,
            with bins in units of 1.
    """

    counts: np.ndarray
    bins: Bins
    threshold: float | None

    @property
    def edges(self) -> np.ndarray:
        """Bin edges for the mean threshold, in units of the potentials, `[len(bins) + 1]`."""
        steps = np.arange(len(self.bins) + 1) - self.bins.below_threshold
        return (1 + steps / self.bins.per_threshold) * (self.threshold or 1.0)

    @property
    def share_above(self) -> float | None:
        """Fraction of values at or above the threshold of their neuron; None without one."""
        if self.threshold is None:
            return None
        # Bins are relative to each neuron's threshold, so one edge separates all neurons.
        return float(self.counts[self.bins.below_threshold :].sum() / self.counts.sum())


def count(values: Array, threshold: Array, unit: Array, weights: Array, bins: Bins) -> Array:
    """Counts the values of one batch per bin; NaN counts in the first bin.

    Args:
        values: Potentials, `[T, B, ...]`.
        threshold: Thresholds, broadcast against `values`.
        unit: Mean threshold, positive, a scalar.
        weights: Weights of the examples, `[B]`; weight 0 is padding and not counted.
        bins: Bins of the counts.

    Returns:
        Counts, int32 `[len(bins)]`.
    """
    # The sign of a floating-point difference is exact, so a value at the threshold is never counted
    # below it, which subtracting after the division would not guarantee.
    steps = jnp.floor((values - threshold) * (bins.per_threshold / unit)) + bins.below_threshold
    # Clipped before the conversion: float to int is undefined beyond the range of int32, and for
    # NaN, which passes the clip.
    index = jnp.nan_to_num(jnp.clip(steps, 0, len(bins) - 1)).astype(jnp.int32)
    # Padding goes to an extra bin: a mask over all values would cost as much memory.
    padding = (weights == 0).reshape(-1, *(1,) * (values.ndim - 2))
    index = jnp.where(padding, len(bins), index).ravel()
    return jnp.zeros(len(bins) + 1, jnp.int32).at[index].add(1)[:-1]
