"""Homeostasis: every neuron shall win sometimes, and no neuron by large weights alone.

    threshold        theta += theta_plus at each spike;  theta <- exp(-duration / tau) theta
    weights          w[:, j] <- w[:, j] total / sum_i w[i, j]

`theta` is the offset above the neuron's fixed threshold, and it decays once per presentation: with
`tau = 1e7 ms` the loss of one step of 0.5 ms is 5e-8 of it, less than float32 can subtract. Kept
as 20 mV plus the offset, as the original has it, each step would round it to nothing or to twice
as much.

Reference: P. U. Diehl, M. Cook, "Unsupervised learning of digit recognition using
spike-timing-dependent plasticity", 2015.
"""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp

from snnjax.typing import Array

__all__ = ["AdaptiveThreshold", "normalize", "normalized"]


@dataclasses.dataclass(frozen=True)
class AdaptiveThreshold:
    """Raises the threshold of neurons that fire.

    Args:
        increment: per spike, mV.
        tau: time constant of its decay, ms.
    """

    increment: float = 0.05
    tau: float = 1e7

    def raised(self, theta: Array, fired: Array) -> Array:
        """After one timestep: `theta + increment` of the neurons that fired, `[N]`."""
        return jnp.where(fired, theta + self.increment, theta)

    def decayed(self, theta: Array, duration: float) -> Array:
        """After a presentation of so many ms."""
        return math.exp(-duration / self.tau) * theta


def normalized(column: Array, total: float) -> Array:
    """The weights of one neuron, `[n]`, scaled to sum to `total`; all zeros stay zeros."""
    found = column.sum()
    return column * (total / jnp.where(found > 0, found, 1))


def normalize(weights: Array, total: float) -> Array:
    """Weights `[n, N]` with every column scaled to sum to `total`; all zeros stay zeros."""
    found = weights.sum(0)
    return weights * (total / jnp.where(found > 0, found, 1))
