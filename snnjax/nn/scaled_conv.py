"""Convolution with scaled weight standardisation: normalised weights in place of activations.

    w' = gain * (w - mean(w)) / sqrt(var(w) + 1e-6) / sqrt(fan_in)
    y  = conv(x, w') + bias

`mean` and (biased) `var` run over the `fan_in = h w C / groups` weights of one output channel;
`gain` is learned per output channel. Nothing depends on the batch, so there are no statistics.

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
from snnjax.nn._checks import check_rngs
from snnjax.nn.synapses import Fold, he_normal
from snnjax.nn.taps import convolution_operations
from snnjax.ops.arguments import check_counts
from snnjax.ops.convolution import convolution
from snnjax.ops.rounding import add_bias, promote, widen
from snnjax.typing import Array

__all__ = ["ScaledStdConv", "standardize"]

_EPSILON = 1e-6


class ScaledKernel(nnx.Module):
    """Convolution `[N, H, W, C] -> [N, H', W', C']` with a standardised kernel."""

    follows_inputs: ClassVar[bool] = True

    def __init__(self, shape, *, strides, kernel_init, rngs):
        self.strides = strides
        self.padding = tuple((size // 2, size // 2) for size in shape[:-2])
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
        # The gain is named scale, since weight decay skips parameters of that name.
        self.scale = nnx.Param(jnp.ones(shape[-1], jnp.float32))
        self.bias = nnx.Param(jnp.zeros(shape[-1], jnp.float32))

    def __call__(self, inputs: Array) -> Array:
        kernel = promote(self.standardized_kernel(), inputs.dtype)
        outputs = convolution(inputs, kernel, strides=self.strides, padding=self.padding)
        return add_bias(outputs, self.bias[...], inputs.dtype)

    def standardized_kernel(self) -> Array:
        """Standardised kernel; mean and variance are computed in float32."""
        # Parameters may be stored in bfloat16, whose 8 bits are too few for a variance.
        return standardize(widen(self.kernel[...]), self.scale[...])

    def operations(self, inputs: Array) -> metrics.operations.Operations:
        """Synaptic operations of inputs `[T, B, H, W, C]` with the standardised kernel."""
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
    pack: bool | memory.packing.Storage = False,
) -> Fold:
    """Convolution with scaled weight standardisation, at every timestep.

        w' = gain * (w - mean(w)) / sqrt(var(w) + 1e-6) / sqrt(fan_in),    y = conv(x, w') + bias

    `[T, B, H, W, inputs] -> [T, B, ceil(H / strides), ceil(W / strides), outputs]`, padded by half
    the kernel on each side; `kernel**2 * inputs * outputs + 2 * outputs` parameters.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        kernel: odd size of the square kernel.
        rngs: random streams of the kernel.
        strides: stride of both spatial axes.
        kernel_init: `(key, shape, dtype) -> kernel`; standardisation cancels its mean and scale.
        pack: storage of the inputs for the backward pass, see `Fold`.

    Raises:
        ValueError: an even kernel size.

    Reference:
        Brock, De, Smith, "Characterizing signal propagation to close the performance gap in
        unnormalized ResNets", 2021, arXiv:2101.08692.
    """
    check_counts("nn.ScaledStdConv", inputs=inputs, outputs=outputs, kernel=kernel, strides=strides)
    check_rngs("nn.ScaledStdConv", rngs)
    if kernel % 2 == 0:
        raise ValueError(f"the kernel size must be odd, since padding is half of it, got {kernel}")
    shape = (kernel, kernel, inputs, outputs)
    module = ScaledKernel(shape, strides=strides, kernel_init=kernel_init, rngs=rngs)
    return Fold(module, name="scaled_conv", pack=pack)


def standardize(kernel: Array, gain: Array) -> Array:
    """Standardised kernel, with mean 0 and variance `gain^2 / fan_in` per output channel.

    Args:
        kernel: `[..., C, D]`.
        gain: factor per output channel, `[D]`.
    """
    axes = tuple(range(kernel.ndim - 1))
    fan_in = math.prod(kernel.shape[:-1])
    # Every call standardises anew: the raw kernel is the parameter.
    mean, var = kernel.mean(axes), kernel.var(axes)
    return (kernel - mean) * (gain * jax.lax.rsqrt(var + _EPSILON) / math.sqrt(fan_in))
