"""Null, normal or noise: what a spike feature is worth. The rule is ours.

A spike feature is the mean spike map of one channel, over examples: a firing rate at each place.
The paper tells three kinds of them apart: normal ones light up where the object is, noise is alight
nearly everywhere, null nowhere. It gives no criterion, and neither does its released code; so

    null     mean rate over the map < null_rate
    noise    rate > noise_rate at a share of the places that is at least noise_area
    normal   all others

Why so: what makes noise is not a high mean, which a bright object has as well, but a high rate of
the *background*. With `noise_area = 1/2` the criterion says that the median place fires more often
than not; as long as the object covers less than half of the map, the median place is background.
A larger area is stricter, and needed where objects fill the frame. Neurons that have no place (of a
linear layer) are maps of one place: noise is then a rate above `noise_rate`.
"""

from __future__ import annotations

import dataclasses

import numpy as np

__all__ = ["CLASSES", "Thresholds", "classify", "shares"]

CLASSES = ("null", "normal", "noise")
"""What the numbers 0, 1 and 2 of `classify` stand for."""


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """When a spike feature is null and when it is noise; rates are spikes per timestep.

    Attributes:
        null_rate: Below this mean rate it is null.
        noise_rate: A place with a higher rate than this is busy.
        noise_area: With at least this share of busy places it is noise.

    Raises:
        ValueError: A number is outside (0, 1], or so chosen that null and noise overlap.
    """

    null_rate: float = 1e-3
    noise_rate: float = 0.5
    noise_area: float = 0.5

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if not 0 < value <= 1:
                raise ValueError(f"{name} lies in (0, 1], got {value}")
        if self.null_rate > self.noise_rate * self.noise_area:
            raise ValueError(
                f"a map could be null and noise at once: null_rate, {self.null_rate}, may not be "
                f"above noise_rate * noise_area, {self.noise_rate * self.noise_area:g}"
            )


def classify(
    maps: np.ndarray,
    *,
    thresholds: Thresholds = Thresholds(),  # noqa: B008 (frozen)
) -> np.ndarray:
    """Which class each map belongs to.

    Args:
        maps: `[..., P, C]`, firing rates in [0, 1] at `P` places of each of `C` channels.
        thresholds: The rule's.

    Returns:
        `[..., C]` int8, places in `CLASSES`.

    Example:
        >>> classify(np.array([[0.0, 0.9, 0.9], [0.0, 0.0, 0.8], [0.0, 0.0, 1.0]]))
        array([0, 1, 2], dtype=int8)
    """
    maps = np.asarray(maps)
    null = maps.mean(-2) < thresholds.null_rate
    noise = (maps > thresholds.noise_rate).mean(-2) >= thresholds.noise_area
    return np.where(null, 0, np.where(noise, 2, 1)).astype(np.int8)


def shares(classes: np.ndarray) -> dict[str, float]:
    """The share of each class, by name; they sum to 1."""
    return {name: float((classes == number).mean()) for number, name in enumerate(CLASSES)}
