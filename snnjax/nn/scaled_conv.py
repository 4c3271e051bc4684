"""Convolution with scaled weight standardisation: normalised weights in place of activations.

    w' = gain * (w - mean(w)) / sqrt(var(w) + 1e-6) / sqrt(fan_in)
    y  = conv(x, w') + bias

`mean`, (biased) `var` and `gain` are per output channel, over the `fan_in = h w C / groups` weights
that feed it. Nothing depends on the batch, so a replay sees the same map.

Reference: Brock, De, Smith, "Characterizing signal propagation to close the performance gap in
unnormalized ResNets", 2021, arXiv:2101.08692.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import memory, metrics
from snnjax.nn.initialization import he_normal
from snnjax.nn.synapses import Fold
from snnjax.nn.taps import convolution_operations
from snnjax.ops.convolution import convolution
from snnjax.ops.rounding import add_bias, promote, widen
from snnjax.typing import Array

__all__ = ["ScaledStdConv", "standardize"]

_EPSILON = 1e-6


class ScaledKernel(nnx.Module):
    """A convolution `[N, H, W, C] -> [N, H', W', C']` by its standardised kernel."""

    follows_inputs: ClassVar[bool] = True

    def __init__(self, shape, *, strides, kernel_init, rngs):
        self.strides = strides
        self.padding = tuple((size // 2, size // 2) for size in shape[:-2])
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
        # The gain; weight decay skips parameters called scale.
        self.scale = nnx.Param(jnp.ones(shape[-1], jnp.float32))
        self.bias = nnx.Param(jnp.zeros(shape[-1], jnp.float32))

    def __call__(self, inputs: Array) -> Array:
        kernel = promote(self.standardized_kernel(), inputs.dtype)
        outputs = convolution(inputs, kernel, strides=self.strides, padding=self.padding)
        return add_bias(outputs, self.bias[...], inputs.dtype)

    def standardized_kernel(self) -> Array:
        """The standardised kernel; mean and variance are computed in float32."""
        return standardize(widen(self.kernel[...]), self.scale[...])

    def operations(self, inputs: Array) -> metrics.operations.Operations:
        """Synaptic operations on `[T, B, H, W, C]`, of the standardised weights."""
        options = {"strides": self.strides, "padding": self.padding}
        return convolution_operations(inputs, self.standardized_kernel(), **options)


def ScaledStdConv(
    inputs: int,
    outputs: int,
    *,
    kernel: int = 3,
    rngs: nnx.Rngs,
    strides: int = 1,
    kernel_init: Callable[..., Array] = he_normal,
    pack: bool | memory.Storage = False,
) -> Fold:
    """`[T, B, H, W, inputs] -> [T, B, ceil(H / strides), ceil(W / strides), outputs]`, with bias.

    `kernel**2 * inputs * outputs + 2 * outputs` parameters. Padded by half the kernel on each side.

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: odd size of the square kernel.
        rngs: for the kernel.
        strides: step of both spatial axes.
        kernel_init: `(key, shape, dtype) -> kernel`; its mean and scale do not matter.
        pack: how to keep the inputs for the backward pass, see `Fold`.

    Raises:
        ValueError: the kernel's size is even.
    """
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"a kernel padded by half its size has an odd size, got {kernel}")
    shape = (kernel, kernel, inputs, outputs)
    module = ScaledKernel(shape, strides=strides, kernel_init=kernel_init, rngs=rngs)
    return Fold(module, name="scaled_conv", pack=pack)


def standardize(kernel: Array, gain: Array) -> Array:
    """Standardised kernel, of mean 0 and variance `gain^2 / fan_in` per output.

    Args:
        kernel: `[..., C, D]`.
        gain: `[D]`.
    """
    axes = tuple(range(kernel.ndim - 1))
    fan_in = math.prod(kernel.shape[:-1])
    mean, var = kernel.mean(axes), kernel.var(axes)
    return (kernel - mean) * (gain * jax.lax.rsqrt(var + _EPSILON) / math.sqrt(fan_in))
