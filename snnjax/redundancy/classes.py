"""Classification of spike features as null, normal or noise. The rule is ours.

A spike feature is the spike map of one channel, averaged over examples: a firing rate per position.
The paper distinguishes three kinds: normal features fire at the object, noise features nearly
everywhere, null features nowhere. Neither the paper nor its released code gives a criterion; ours:

    null     mean rate over the map < null_rate
    noise    rate > noise_rate on at least a fraction noise_area of the positions
    normal   all others

A bright object has a high mean rate too; noise is distinguished by a high rate of the *background*.
With `noise_area = 1/2` the criterion says that the median position fires more often than not, and
the median position is background as long as the object covers less than half of the map. A larger
area is stricter, and needed where objects fill the frame. Neurons without a position (of a linear
layer) are maps of one position: noise is then a rate above `noise_rate`.
"""

from __future__ import annotations

import dataclasses

import numpy as np

__all__ = ["CLASSES", "Thresholds", "classify", "shares"]

CLASSES = ("null", "normal", "noise")
"""Names of the classes 0, 1 and 2 of `classify`."""


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """Thresholds of the classes null and noise; rates are spikes per timestep.

        null     mean rate over the map < null_rate
        noise    rate > noise_rate on at least a fraction noise_area of the positions
        normal   all others

    Attributes:
        null_rate: Mean rate below which a feature is null.
        noise_rate: Rate above which a position is busy.
        noise_area: Fraction of busy positions from which a feature is noise.

    Raises:
        ValueError: A threshold is outside (0, 1], or null and noise overlap.
    """

    null_rate: float = 1e-3
    noise_rate: float = 0.5
    noise_area: float = 0.5

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if not 0 < value <= 1:
                raise ValueError(f"{name} lies in (0, 1], got {value}")
        # The mean of a noise map is at least noise_rate * noise_area.
        if self.null_rate > self.noise_rate * self.noise_area:
            raise ValueError(
                f"a map could be null and noise at once: lower null_rate, {self.null_rate}, to at "
                f"most noise_rate * noise_area, {self.noise_rate * self.noise_area:g}"
            )


def classify(
    maps: np.ndarray,
    *,
    thresholds: Thresholds = Thresholds(),  # noqa: B008 (frozen)
) -> np.ndarray:
    """Classifies spike maps as null, normal or noise.

    Args:
        maps: Firing rates in [0, 1] at P positions of C channels, `[..., P, C]`.
        thresholds: Thresholds of the classes.

    Returns:
        Indices in `CLASSES`, int8 `[..., C]`.

    Example:
        >>> classify(np.array([[0.0, 0.9, 0.9], [0.0, 0.0, 0.8], [0.0, 0.0, 1.0]]))
        array([0, 1, 2], dtype=int8)
    """
    maps = np.asarray(maps)
    null = maps.mean(-2) < thresholds.null_rate
    noise = (maps > thresholds.noise_rate).mean(-2) >= thresholds.noise_area
    # `Thresholds` excludes that a map is null and noise at once, so the order does not matter.
    return np.where(null, 0, np.where(noise, 2, 1)).astype(np.int8)


def shares(classes: np.ndarray) -> dict[str, float]:
    """Fraction of each class, by name; the fractions sum to 1."""
    return {name: float((classes == number).mean()) for number, name in enumerate(CLASSES)}
