"""Homeostasis: adaptive thresholds and weight normalisation, so that every neuron wins sometimes.

    threshold        theta += theta_plus at each spike;  theta <- (theta + base) f - base,
                     f = exp(-duration / tau)
    weights          w[:, j] <- w[:, j] total / sum_i w[i, j]

`theta` is the offset above the neuron's threshold at the start. In the released code of Diehl and
Cook that threshold includes `base`, 20 mV of an adaptive threshold that decays as a whole; the
network of BindsNET has none. Normalisation keeps a neuron from winning
by large weights alone.

Reference: P. U. Diehl, M. Cook, "Unsupervised learning of digit recognition using
spike-timing-dependent plasticity", 2015.
"""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp

from snnjax.typing import Array

__all__ = ["AdaptiveThreshold", "normalize_column", "normalize_columns"]


@dataclasses.dataclass(frozen=True)
class AdaptiveThreshold:
    """Threshold offset that rises with each spike and decays slowly.

    Args:
        increment: Rise per spike, mV.
        tau: Time constant of the decay, ms.
        base: Part of the threshold at the start that decays like the offset, mV; theta falls
            towards `-base`.
    """

    increment: float = 0.05
    tau: float = 1e7
    base: float = 0.0

    def increase(self, theta: Array, fired: Array) -> Array:
        """Offsets after one timestep: `theta + increment` where a neuron fired, `[N]`, mV."""
        return jnp.where(fired, theta + self.increment, theta)

    def decay(self, theta: Array, duration: float) -> Array:
        """Offsets after a presentation of `duration` ms, `[N]`, mV."""
        # Once per presentation: with tau = 1e7 ms a step of 0.5 ms loses 5e-8 of theta, less than
        # float32 resolves. The original keeps 20 mV plus theta, where each step would round the
        # loss to zero or to twice its size.
        share = -duration / self.tau
        # `expm1` keeps the small loss of the base, which a difference of two factors would round.
        return math.exp(share) * theta + self.base * math.expm1(share)


def normalize_column(column: Array, total: float) -> Array:
    """Scales the weights of one neuron, `[n]`, to sum to `total`; all zeros stay zeros."""
    weight_sum = column.sum()
    return column * (total / jnp.where(weight_sum > 0, weight_sum, 1))


def normalize_columns(weights: Array, total: float) -> Array:
    """Scales every column of `[n, N]` to sum to `total`; a column of zeros stays zero."""
    weight_sums = weights.sum(0)
    return weights * (total / jnp.where(weight_sums > 0, weight_sums, 1))
