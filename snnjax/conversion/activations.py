"""Activations of a network that is to become a spiking one, as functions and as layers.

A neuron that fires at most once per timestep has rates in [0, 1]: its source needs an activation
with an upper bound. `threshold_relu` has one, `qcfs` moreover the steps of a rate over few
timesteps.

    relu                     max(x, 0)
    threshold_relu           clip(x, 0, threshold)
    shifted_threshold_relu   clip(x - threshold / (2 T), 0, threshold)
    qcfs                     threshold floor(L clip(x / threshold, 0, 1) + 1/2) / L

The layers stand where a model takes a neuron, `models.vgg(neuron=lambda: conversion.QCFS(...))`:

    layer = conversion.QCFS(levels=4)            [T, B, ...] -> [T, B, ...]

Gradients at the bounds are pinned: rates and rounded numbers lie exactly on them, and the functions
of `jax.numpy` halve the gradient there.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax.nn.contract import Aux, Call, MemoryRequest, Placed, State, no_state, same_shape
from snnjax.nn.taps import neuron_taps
from snnjax.ops.arguments import as_floating, check_choice, check_counts, check_numbers
from snnjax.ops.rounding import narrow, widen
from snnjax.typing import Array

__all__ = [
    "Activation",
    "QCFS",
    "ReLU",
    "ThresholdReLU",
    "qcfs",
    "shifted_threshold_relu",
    "threshold_relu",
]

_GRADIENTS = ("clipped", "wide")


def threshold_relu(x: Array, threshold: Array | float) -> Array:
    """ReLU with an upper bound, `clip(x, 0, threshold)`.

        dy/dx          1 on the closed interval [0, threshold], else 0
        dy/dthreshold  1 above, else 0

    Args:
        x: floating array of any shape.
        threshold: positive bound, a number or an array that broadcasts against `x`.

    Returns:
        Array of the shape and dtype of `x`.

    Reference:
        Deng, Gu, "Optimal Conversion of Conventional Artificial Neural Networks to Spiking Neural
        Networks", 2021, arXiv:2103.00476.
    """
    bound = jnp.broadcast_to(jnp.asarray(threshold, x.dtype), x.shape)
    # `jnp.clip` has half a gradient on the bounds, where bounded activations lie.
    return jnp.where(x < 0, 0, jnp.where(x > bound, bound, x))


def shifted_threshold_relu(x: Array, threshold: Array | float, timesteps: int) -> Array:
    """`threshold_relu` of inputs moved by half a step of the rate.

        y = clip(x - threshold / (2 T), 0, threshold)

    A rate over T timesteps rounds down in steps of `threshold / T`: without a shift in the spiking
    network, half a step is lost on average, which this source learns to expect.

    Args:
        x: floating array of any shape.
        threshold: positive bound, a number or an array that broadcasts against `x`.
        timesteps: number T of timesteps of the spiking network.

    Reference:
        Deng, Gu, "Optimal Conversion of Conventional Artificial Neural Networks to Spiking Neural
        Networks", 2021, arXiv:2103.00476.
    """
    bound = jnp.asarray(threshold, x.dtype)
    return threshold_relu(x - bound / (2 * timesteps), bound)


def qcfs(x: Array, threshold: Array | float, levels: int, *, gradient: str = "clipped") -> Array:
    """Quantisation clip-floor-shift: a clipped ReLU, rounded to `levels` steps.

        z = clip(x / threshold, 0, 1),    q = floor(levels z + 1/2) / levels,    y = threshold q

    The gradient passes straight through the rounding:

                         below 0    0 <= x / threshold <= 1    above 1
        dy/dx               0                  1                  0
        dy/dthreshold       0                q - z                1

    A neuron that starts at half its threshold and resets by subtraction has exactly this rate after
    `levels` timesteps of a constant current.

    Args:
        x: floating array of any shape.
        threshold: positive bound, a number or an array that broadcasts against `x`.
        levels: number L of steps above zero.
        gradient: `"clipped"`, the above; `"wide"` clips after rounding, as earlier released code
            does: dy/dx is 1 where -1/(2L) <= x / threshold < 1 + 1/(2L), and dy/dthreshold there
            q - x / threshold. Values are the same.

    Returns:
        Array of the shape and dtype of `x`.

    Reference:
        Bu, Fang, Ding, Dai, Yu, Huang, "Optimal ANN-SNN Conversion for High-accuracy and
        Ultra-low-latency Spiking Neural Networks", 2022, arXiv:2303.04347.
    """
    check_counts("conversion.qcfs", levels=levels)
    check_choice("conversion.qcfs", choices=_GRADIENTS, gradient=gradient)
    wide = widen(x)
    y = _qcfs(wide, jnp.asarray(threshold).astype(wide.dtype), levels, gradient)
    return narrow(y, x.dtype)


# A rule for tangents: JAX transposes it, so the function has both modes.
@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _qcfs(x, threshold, levels, gradient):
    del gradient
    return threshold * _quantize(x / threshold, levels)


@_qcfs.defjvp
def _qcfs_jvp(levels, gradient, primals, tangents):
    x, threshold = primals
    ratio = x / threshold
    q = _quantize(ratio, levels)
    reach = 0 if gradient == "clipped" else 1 / (2 * levels)
    above = ratio > 1 if gradient == "clipped" else ratio >= 1 + reach
    inside = (ratio >= -reach) & ~above
    slope = jnp.where(inside, q - ratio, q)
    dx, dthreshold = tangents
    return threshold * q, jnp.where(inside, dx, 0) + slope * dthreshold


def _quantize(ratio, levels):
    # Clipped first: the floor of an infinity divided by `levels` would stay one.
    return jnp.floor(jnp.clip(ratio, 0, 1) * levels + 0.5) / levels


class Activation(nnx.Module):
    """Layer of an elementwise function, `y[t] = function(x[t])`, that becomes neurons.

    An activation of your own inherits from it, has the method `function`, and by `bound` names the
    threshold of the neurons that take its place.
    """

    name = "activation"

    def function(self, x: Array) -> Array:
        """The function, `[T, B, ...] -> [T, B, ...]`, elementwise in x."""
        raise NotImplementedError(f"{type(self).__name__} has no method `function`")

    def bound(self) -> Any:
        """Upper bound of the outputs, the neurons' threshold; None without one: calibrate."""
        return None

    def shift(self) -> float:
        """Distance by which the function is moved to the right, a lost current of the neurons."""
        return 0.0

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Takes no part of a strategy; a sequence may be cut behind it, as behind neurons."""
        del request
        return Placed(self, role="neurons")

    initial_state, infer_shape = no_state, same_shape

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Applies the function; the taps of neurons give inputs and outputs."""
        inputs = as_floating(f"conversion.{type(self).__name__}", inputs)
        outputs = self.function(inputs)
        # Under the names of neurons, calibration and diagnosis find both networks' layers alike.
        seen = neuron_taps(call.taps, outputs, currents=inputs, params=None)
        return outputs, Aux(taps={"": seen} if seen else {})


class ReLU(Activation):
    """Rectifier `max(x, 0)`, `[T, B, ...] -> [T, B, ...]`.

    Without an upper bound: the neurons that take its place get their thresholds by calibration.
    """

    name = "relu"

    def function(self, x: Array) -> Array:
        """`max(x, 0)`, with gradient 0 at 0."""
        return jax.nn.relu(x)


class ThresholdReLU(Activation):
    """Rectifier with a fixed upper bound, `[T, B, ...] -> [T, B, ...]`.

        y = clip(x - shift, 0, threshold)           shift = threshold / (2 timesteps), or 0

    Args:
        threshold: upper bound, the threshold of the neurons that take its place.
        timesteps: number T of timesteps for which the shift is trained; None for no shift. A
            converted network then needs no shift of its own (`shift=None`).

    Raises:
        ValueError: `threshold` is not positive.

    Reference:
        Deng, Gu, "Optimal Conversion of Conventional Artificial Neural Networks to Spiking Neural
        Networks", 2021, arXiv:2103.00476.
    """

    name = "thresholdrelu"

    def __init__(self, *, threshold: float = 1.0, timesteps: int | None = None):
        check_numbers("conversion.ThresholdReLU", above=0, threshold=threshold)
        if timesteps is not None:
            check_counts("conversion.ThresholdReLU", timesteps=timesteps)
        self.threshold, self.timesteps = threshold, timesteps

    def function(self, x: Array) -> Array:
        """`threshold_relu`, or `shifted_threshold_relu` with `timesteps`."""
        if self.timesteps is None:
            return threshold_relu(x, self.threshold)
        return shifted_threshold_relu(x, self.threshold, self.timesteps)

    def bound(self) -> float:
        """The threshold."""
        return self.threshold

    def shift(self) -> float:
        """Half a step of the rate, `threshold / (2 timesteps)`."""
        return 0.0 if self.timesteps is None else self.threshold / (2 * self.timesteps)


class QCFS(Activation):
    """Quantised activation with a trained threshold, `[T, B, ...] -> [T, B, ...]`; see `qcfs`.

        y = threshold floor(L clip(x / threshold, 0, 1) + 1/2) / L

    The threshold is a parameter, one per layer. The authors decay it with the weights:
    `training.optimizer.sgd` does with `decays=lambda params: True`, and not by default.

    Args:
        levels: number L of steps above zero, 4 for CIFAR and 8 for ImageNet in the released code.
        threshold: initial threshold.
        gradient: `"clipped"` or `"wide"`, see `qcfs`.

    Raises:
        ValueError: `levels` or `threshold` is not positive, or an unknown gradient.

    Reference:
        Bu, Fang, Ding, Dai, Yu, Huang, "Optimal ANN-SNN Conversion for High-accuracy and
        Ultra-low-latency Spiking Neural Networks", 2022, arXiv:2303.04347.
    """

    name = "qcfs"

    def __init__(self, *, levels: int = 4, threshold: float = 8.0, gradient: str = "clipped"):
        check_counts("conversion.QCFS", levels=levels)
        check_numbers("conversion.QCFS", above=0, threshold=threshold)
        check_choice("conversion.QCFS", choices=_GRADIENTS, gradient=gradient)
        self.levels, self.gradient = levels, gradient
        self.threshold = nnx.Param(jnp.asarray(threshold, jnp.float32))

    def function(self, x: Array) -> Array:
        """`qcfs` of the trained threshold."""
        return qcfs(x, self.threshold[...], self.levels, gradient=self.gradient)

    def bound(self) -> Array:
        """The trained threshold."""
        return self.threshold[...]
