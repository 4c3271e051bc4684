"""Weight dependence: factors by which the size of a weight scales its change.

    additive            up 1                        down 1
    multiplicative      up (w_max - w) / w_max      down w / w_max
    power(mu)           up (w_max - w)^mu           down w^mu        mu = 0 is additive

Additive changes give hard bounds, the others soft ones.

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
    """Protocol: factors of potentiation and depression, of the shape of the weights."""

    def up(self, weights: Array, w_max: float) -> Array:
        """Factor of potentiation, nonnegative."""
        ...

    def down(self, weights: Array, w_max: float) -> Array:
        """Factor of depression, nonnegative."""
        ...


@dataclasses.dataclass(frozen=True)
class Additive:
    """Constant factors: changes are independent of the weight, which is clipped at its bounds."""

    def up(self, weights: Array, w_max: float) -> Array:
        """Constant 1."""
        del w_max
        return jnp.ones_like(weights)

    def down(self, weights: Array, w_max: float) -> Array:
        """Constant 1."""
        del w_max
        return jnp.ones_like(weights)


@dataclasses.dataclass(frozen=True)
class Power:
    """Power law: changes vanish at a bound as a power of the distance to it.

    Args:
        mu: Exponent, at least 0; 0 is additive, 1 proportional to the distance.
    """

    mu: float

    def __post_init__(self):
        if not self.mu >= 0:  # NaN fails too
            raise ValueError(f"mu is an exponent, at least 0, got {self.mu}: use 1")

    def up(self, weights: Array, w_max: float) -> Array:
        """`(w_max - w)^mu`."""
        # Rounding may put a weight beyond its bound, and a negative base has no real power.
        return jnp.maximum(w_max - weights, 0) ** self.mu

    def down(self, weights: Array, w_max: float) -> Array:
        """`w^mu`."""
        del w_max
        return jnp.maximum(weights, 0) ** self.mu


@dataclasses.dataclass(frozen=True)
class Multiplicative:
    """Linear factors: changes are proportional to the relative distance to the bound."""

    def up(self, weights: Array, w_max: float) -> Array:
        """`(w_max - w) / w_max`."""
        # As for `Power`: beyond its bound a negative factor would reverse the change.
        return jnp.maximum(w_max - weights, 0) / w_max

    def down(self, weights: Array, w_max: float) -> Array:
        """`w / w_max`."""
        return jnp.maximum(weights, 0) / w_max
