"""Distributions of potentials, counted in bins that are fixed beforehand, so that counts add up.

    bin(x) = floor(n (x - threshold) / unit) + n (1 - lowest)          unit: the mean threshold

Bins are counted from each neuron's own threshold: whatever the thresholds of a layer are, the
counts of bins from `n (1 - lowest)` on are exactly the values at or above them.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from snnjax.typing import Array

__all__ = ["Bins", "Histogram", "count"]


@dataclasses.dataclass(frozen=True)
class Bins:
    """Bins of equal width; the first and the last one hold what lies beyond them, too.

    Attributes:
        lowest: Where they begin, in thresholds.
        highest: Where they end, in thresholds.
        per_threshold: Bins from 0 to the threshold, `n`.

    Raises:
        ValueError: The threshold, 1, does not lie between them.
    """

    lowest: int = -9
    highest: int = 11
    per_threshold: int = 10

    def __post_init__(self):
        if not self.lowest < 1 < self.highest or self.per_threshold < 1:
            raise ValueError(
                f"bins from {self.lowest} to {self.highest} thresholds, {self.per_threshold} to "
                "each: the threshold itself, 1, lies inside, and there is at least 1 bin to each"
            )

    @property
    def below(self) -> int:
        """How many bins lie below the threshold."""
        return (1 - self.lowest) * self.per_threshold

    def __len__(self) -> int:
        return (self.highest - self.lowest) * self.per_threshold


@dataclasses.dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of potentials.

    Attributes:
        counts: `[len(bins)]` int64.
        bins: Where they were counted.
        threshold: The layer's mean threshold, in the unit of the potentials; None where its neurons
            have none that is known, and then the bins are in units of 1.
    """

    counts: np.ndarray
    bins: Bins
    threshold: float | None

    @property
    def edges(self) -> np.ndarray:
        """`[len(bins) + 1]`, in the unit of the potentials (for the mean threshold)."""
        steps = np.arange(len(self.bins) + 1) - self.bins.below
        return (1 + steps / self.bins.per_threshold) * (self.threshold or 1.0)

    @property
    def above(self) -> float | None:
        """The share of values at or above the threshold of their neuron; None without one."""
        if self.threshold is None:
            return None
        return float(self.counts[self.bins.below :].sum() / self.counts.sum())


def count(values: Array, threshold: Array, unit: Array, weights: Array, bins: Bins) -> Array:
    """Counts of one batch, int32 `[len(bins)]`; what is not a number counts as low.

    Args:
        values: `[T, B, ...]`.
        threshold: broadcast against them.
        unit: positive, a scalar.
        weights: `[B]`; examples of weight 0 are padding and not counted.
        bins: where to count.
    """
    steps = jnp.floor((values - threshold) * (bins.per_threshold / unit)) + bins.below
    inside = jnp.nan_to_num(jnp.clip(steps, 0, len(bins) - 1)).astype(jnp.int32)
    # Padding goes to a bin of its own behind the others: a mask of this size would cost as much.
    padding = (weights == 0).reshape(-1, *(1,) * (values.ndim - 2))
    places = jnp.where(padding, len(bins), inside).ravel()
    return jnp.zeros(len(bins) + 1, jnp.int32).at[places].add(1)[:-1]
