"""Spike functions: Heaviside step forward, surrogate derivative backward.

    s = 1 if u >= 0 else 0,   u = v - threshold          (`strict`: u > 0)
    ds/du := slope(u)         the surrogate derivative

The derivative of the Heaviside step is zero almost everywhere, so training replaces it (Neftci,
Mostafa and Zenke, "Surrogate Gradient Learning in Spiking Neural Networks", 2019,
arXiv:1901.09948). The rule is that of a primitive (`ops.derivative`): it holds in forward and
reverse mode and at every order, also inside scans. The second derivative is that of the slope, and
so on: those of `rectangular` and `straight_through` are 0 beyond the first.

Spike functions are frozen and comparable: equal arguments give equal, hashable objects, so that a
module holding one never retraces. A new one takes three lines:

    def cosine(u, width):
        return jnp.where(jnp.abs(u) < width, jnp.cos(jnp.pi * u / width / 2) ** 2 / width, 0.0)
    spike = Surrogate(cosine, (0.5,))
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from snnjax.ops.derivative import with_derivative
from snnjax.typing import Array

__all__ = [
    "Surrogate",
    "arctan",
    "exponential",
    "fast_sigmoid",
    "gaussian",
    "rectangular",
    "sigmoid",
    "straight_through",
    "strict",
    "triangle",
]


@dataclasses.dataclass(frozen=True)
class Surrogate:
    """A spike function `s = H(u)` with surrogate derivative `slope(u, *parameters)`.

    Attributes:
        slope: Surrogate derivative, a function of `u` and the parameters. Higher derivatives are
            those that JAX takes of it.
        parameters: Plain numbers, part of the object's identity.
        strict: Fire at `u > 0` instead of `u >= 0`.
    """

    slope: Callable[..., Array]
    parameters: tuple[float, ...] = ()
    strict: bool = False

    def __call__(self, u: Array) -> Array:
        """Spikes, 0 or 1 in the dtype of `u`, the membrane potential minus the threshold."""
        fired = (u > 0 if self.strict else u >= 0).astype(u.dtype)
        return with_derivative(fired, u, slope=self.derivative)

    def derivative(self, u: Array) -> Array:
        """Surrogate derivative at `u`, with the same shape and dtype."""
        # A slope may return a wider dtype; a tangent must have the dtype of its primal.
        return self.slope(u, *self.parameters).astype(u.dtype)


def strict(spike: Surrogate) -> Surrogate:
    """Variant of a spike function that fires only strictly above the threshold (`u > 0`)."""
    return dataclasses.replace(spike, strict=True)


def arctan(*, alpha: float = 2.0) -> Surrogate:
    """Slope `(alpha/2) / (1 + (pi/2 * alpha * u)^2)`, the derivative of a scaled arctangent.

    Args:
        alpha: Steepness; the slope at the threshold is `alpha / 2`.

    Raises:
        ValueError: If `alpha` is not positive.

    Reference:
        Fang, Yu, Chen, Masquelier, Huang, Tian, "Incorporating Learnable Membrane Time Constant to
        Enhance Learning of Spiking Neural Networks", 2021, arXiv:2007.05785.
    """
    return Surrogate(_arctan, (_positive("alpha", alpha),))


def sigmoid(*, alpha: float = 4.0) -> Surrogate:
    """Slope `alpha * sig(alpha u) * (1 - sig(alpha u))`, the derivative of the logistic function.

    Args:
        alpha: Steepness; the slope at the threshold is `alpha / 4`.

    Raises:
        ValueError: If `alpha` is not positive.
    """
    return Surrogate(_sigmoid, (_positive("alpha", alpha),))


def fast_sigmoid(*, alpha: float = 10.0) -> Surrogate:
    """Slope `1 / (1 + alpha * |u|)^2`, the derivative of the fast sigmoid used by SuperSpike.

    Args:
        alpha: Steepness; the slope at the threshold is 1.

    Raises:
        ValueError: If `alpha` is not positive.

    Reference:
        Zenke and Ganguli, "SuperSpike: Supervised Learning in Multilayer Spiking Neural Networks",
        2018, arXiv:1705.11146.
    """
    return Surrogate(_fast_sigmoid, (_positive("alpha", alpha),))


def triangle(*, alpha: float = 1.0) -> Surrogate:
    """Slope `max(0, alpha - alpha^2 |u|)`: a triangle of unit area (piecewise quadratic spike).

    Args:
        alpha: Height of the triangle; its half-width is `1 / alpha`.

    Raises:
        ValueError: If `alpha` is not positive.

    Reference:
        Esser et al., "Convolutional Networks for Fast, Energy-Efficient Neuromorphic Computing",
        2016, arXiv:1603.08270.
    """
    return Surrogate(_triangle, (_positive("alpha", alpha),))


def rectangular(*, width: float = 1.0) -> Surrogate:
    """Slope `1 / width` for `|u| <= width / 2`, else 0: a rectangle of unit area.

    Args:
        width: Width of the rectangle, in the unit of the membrane potential.

    Raises:
        ValueError: If `width` is not positive.

    Reference:
        Wu, Deng, Li, Zhu, Shi, "Spatio-Temporal Backpropagation for Training High-Performance
        Spiking Neural Networks", 2018, arXiv:1706.02609.
    """
    return Surrogate(_rectangular, (_positive("width", width),))


def gaussian(*, sigma: float = 0.5) -> Surrogate:
    """Slope `exp(-u^2 / (2 sigma^2)) / (sigma sqrt(2 pi))`: the normal density.

    Args:
        sigma: Standard deviation, in the unit of the membrane potential.

    Raises:
        ValueError: If `sigma` is not positive.
    """
    return Surrogate(_gaussian, (_positive("sigma", sigma),))


def exponential(*, height: float = 1.0, width: float = 1.0) -> Surrogate:
    """Slope `height * exp(-|u| / width)`, the rule of SLAYER.

    Args:
        height: Slope at the threshold; SLAYER has `rho / (tau_rho theta)`.
        width: Distance at which the slope falls to 1/e of it, in the unit of the membrane
            potential; SLAYER has `tau_rho theta`.

    Raises:
        ValueError: If `height` or `width` is not positive.

    Reference:
        Shrestha and Orchard, "SLAYER: Spike Layer Error Reassignment in Time", 2018,
        arXiv:1810.08646.
    """
    return Surrogate(_exponential, (_positive("height", height), _positive("width", width)))


def straight_through(*, low: float = -0.5, high: float = 0.5) -> Surrogate:
    """Slope 1 for `low <= u <= high`, else 0: the clipped straight-through estimator.

    With the defaults and a threshold of 0.5 it is `round(clip(v, 0, 1))` with a gradient of 1 on
    [0, 1], ends included.

    Args:
        low: Lower end of the interval, in the unit of the membrane potential.
        high: Upper end of the interval.

    Raises:
        ValueError: If `low` is not below `high`.

    Reference:
        Bengio, Leonard, Courville, "Estimating or Propagating Gradients Through Stochastic Neurons
        for Conditional Computation", 2013, arXiv:1308.3432.
    """
    if not low < high:
        raise ValueError(f"straight_through needs low < high, got {low} and {high}")
    return Surrogate(_straight_through, (float(low), float(high)))


def _positive(name: str, value: float) -> float:
    if isinstance(value, str) or not (math.isfinite(value) and value > 0):
        raise ValueError(f"a surrogate's {name} must be a positive number, got {value!r}")
    # Plain floats: an array is neither hashable nor comparable by `==`.
    return float(value)


def _arctan(u, alpha):
    return alpha / 2 / (1 + (math.pi / 2 * alpha * u) ** 2)


def _sigmoid(u, alpha):
    # sig(-x) instead of 1 - sig(x), which cancels to 0 for large x.
    return alpha * jax.nn.sigmoid(alpha * u) * jax.nn.sigmoid(-alpha * u)


def _fast_sigmoid(u, alpha):
    return 1 / (1 + alpha * jnp.abs(u)) ** 2


def _triangle(u, alpha):
    # where instead of maximum, whose derivative at the corners would be a half.
    return jnp.where(jnp.abs(u) < 1 / alpha, alpha - alpha**2 * jnp.abs(u), 0.0)


def _rectangular(u, width):
    return jnp.where(jnp.abs(u) <= width / 2, 1 / width, 0.0)


def _gaussian(u, sigma):
    return jnp.exp(-((u / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))


def _exponential(u, height, width):
    return height * jnp.exp(-jnp.abs(u) / width)


def _straight_through(u, low, high):
    return jnp.where((u >= low) & (u <= high), 1.0, 0.0)
