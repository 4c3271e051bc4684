"""How a weight's own size scales its change: bounds that are hard or soft.

    additive            up 1                        down 1
    multiplicative      up (w_max - w) / w_max      down w / w_max
    power(mu)           up (w_max - w)^mu           down w^mu        mu = 0 is additive

Reference: R. Gütig, R. Aharonov, S. Rotter, H. Sompolinsky, "Learning input correlations through
nonlinear temporally asymmetric Hebbian plasticity", 2003 (`power`; theirs has `w_max = 1`).
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import jax.numpy as jnp

from snnjax.typing import Array

__all__ = ["Additive", "Multiplicative", "Power", "WeightDependence"]


class WeightDependence(Protocol):
    """Factors of potentiation and of depression; each `(weights, w_max) -> like weights`."""

    def up(self, weights: Array, w_max: float) -> Array:
        """Factor of potentiation, not negative."""
        ...

    def down(self, weights: Array, w_max: float) -> Array:
        """Factor of depression, not negative."""
        ...


@dataclasses.dataclass(frozen=True)
class Additive:
    """Changes do not depend on the weight; it is cut at its bounds."""

    def up(self, weights: Array, w_max: float) -> Array:
        """1."""
        del w_max
        return jnp.ones_like(weights)

    def down(self, weights: Array, w_max: float) -> Array:
        """1."""
        del w_max
        return jnp.ones_like(weights)


@dataclasses.dataclass(frozen=True)
class Power:
    """Changes vanish at the bounds as a power of the distance to them.

    Args:
        mu: 0 is additive, 1 goes with the distance itself; at least 0.
    """

    mu: float

    def __post_init__(self):
        if not self.mu >= 0:
            raise ValueError(f"mu is a power, at least 0, got {self.mu}: 1 is usual")

    def up(self, weights: Array, w_max: float) -> Array:
        """`(w_max - w)^mu`."""
        return jnp.maximum(w_max - weights, 0) ** self.mu

    def down(self, weights: Array, w_max: float) -> Array:
        """`w^mu`."""
        del w_max
        return jnp.maximum(weights, 0) ** self.mu


@dataclasses.dataclass(frozen=True)
class Multiplicative:
    """Changes go with the relative distance to the bound."""

    def up(self, weights: Array, w_max: float) -> Array:
        """`(w_max - w) / w_max`."""
        return jnp.maximum(w_max - weights, 0) / w_max

    def down(self, weights: Array, w_max: float) -> Array:
        """`w / w_max`."""
        return jnp.maximum(weights, 0) / w_max
