"""The two gradients of a convolution in forms that stay fast inside a loop on a CPU.

With spatial indices `o` of the output and `t` of the kernel, stride `s` and low padding `l`,

    output[n, o, d] = sum_{t, c} inputs[n, o s + t - l, c] kernel[t, c, d]

    input gradient     sum_{o, t : o s + t - l = u, d} cotangent[n, o, d] kernel[t, c, d]    at u
    weight gradient    sum_{n, o} inputs[n, o s + t - l, c] cotangent[n, o, d]               at t

XLA:CPU rewrites convolutions to the one layout that its fast routine reads (batch, space, features;
the kernel as space, in, out) only outside loops. Autodiff writes both gradients with other layouts,
so inside `lax.scan` they fall to a naive path, tens of times slower. Here every convolution is
written in that layout to begin with, and where another form beats any convolution, as that form:
a matrix product for a 1x1 kernel, shifted products for a depthwise one.

Shapes are written for two spatial axes; one axis works the same.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax

from snnjax.nn.depthwise import depthwise_input_gradient, depthwise_weight_gradient
from snnjax.nn.geometry import Geometry, convolve, pad, reads, spread, vary_alike, wide
from snnjax.typing import Array

# Up to so many groups a convolution per group beats one grouped convolution (2 to 4 times).
_SPLIT_GROUPS = 16
# Elements of the inputs in one block of images: small copies, and they stay in the cache of a core.
_BLOCK = 2**16
# But so many images at least: in a weight gradient they are what is summed over, as channels are.
_LEAST = 8


def input_gradient(cotangent: Array, kernel: Array, geometry: Geometry) -> Array:
    """Gradient of a convolution with respect to its inputs.

    Rows of the padded input fall into `stride` phases, and the outputs reach each phase through
    every `stride`-th tap only: each phase is one small stride-1 convolution of the cotangent with
    the flipped, transposed taps, and no zero is ever multiplied. With stride 1 there is one phase.

    Args:
      cotangent: `[N, H', W', D]`, gradient with respect to the outputs.
      kernel: `[h, w, C / groups, D]`.
      geometry: of the convolution.

    Returns:
      `[N, H, W, C]`.
    """
    features, groups = kernel.shape[-1], geometry.groups
    if geometry.depthwise(kernel.shape[-2] * groups, features):
        return depthwise_input_gradient(cotangent, kernel, geometry)
    if 1 < groups <= _SPLIT_GROUPS:
        return _by_group(input_gradient, cotangent, kernel, geometry)
    if geometry.pointwise:
        matrix = kernel.reshape(kernel.shape[-2:])
        return spread(jnp.tensordot(cotangent, matrix, (-1, 1)), geometry)
    return _input_gradient_by_phases(cotangent, kernel, geometry)


def weight_gradient(
    inputs: Array, cotangent: Array, geometry: Geometry, *, dtype: Any = None
) -> Array:
    """Gradient of a convolution with respect to its kernel.

    It is itself a convolution, in which channels act as images, images as input features and the
    cotangent as a kernel as large as the outputs; a stride becomes a dilation of that kernel. It is
    summed, in at least float32, over blocks of images that fit the cache: up to 3.5 times faster
    than in one piece, and the transposed copies are as small as a block. Every block takes evenly
    spaced images, so that images that are sharded over devices can stay where they are.

    Args:
      inputs: `[N, H, W, C]`.
      cotangent: `[N, H', W', D]`, gradient with respect to the outputs.
      geometry: of the convolution.
      dtype: of the result; None is that of `inputs`.

    Returns:
      `[h, w, C / groups, D]`.
    """
    channels, features, groups = inputs.shape[-1], cotangent.shape[-1], geometry.groups
    dtype = inputs.dtype if dtype is None else dtype
    if geometry.depthwise(channels, features):
        form = depthwise_weight_gradient
    elif 1 < groups <= _SPLIT_GROUPS:
        by_one = functools.partial(weight_gradient, dtype=dtype)
        return _by_group(by_one, inputs, cotangent, geometry)
    elif geometry.pointwise:
        form = _pointwise_weight_gradient
    else:
        form = _weight_gradient_by_convolution
    shape = (*geometry.window, channels // groups, features)
    return _sum_over_images(form, inputs, cotangent, geometry, shape).astype(dtype)


def _by_group(gradient: Callable, left: Array, right: Array, geometry: Geometry) -> Array:
    parts = (jnp.split(a, geometry.groups, -1) for a in (left, right))
    alone = geometry._replace(groups=1)
    return jnp.concatenate([gradient(a, b, alone) for a, b in zip(*parts, strict=True)], -1)


def _input_gradient_by_phases(cotangent: Array, kernel: Array, geometry: Geometry) -> Array:
    """Row `m s + r` of the padded input takes tap `q s + r` of output `m - q`.

    Only rows `m` that hold inputs are computed, from `firsts` to before `ends`.
    """
    size, strides, groups = geometry.size, geometry.strides, geometry.groups
    inner, features = kernel.shape[-2] * groups, kernel.shape[-1] // groups
    lows = [low for low, _ in geometry.padding]
    firsts = [low // s for low, s in zip(lows, strides, strict=True)]
    ends = [-(-(n + low) // s) for n, low, s in zip(size, lows, strides, strict=True)]
    rows = [end - first for first, end in zip(firsts, ends, strict=True)]
    phases = []
    for phase in itertools.product(*map(range, strides)):
        taps = kernel[tuple(slice(r, None, s) for r, s in zip(phase, strides, strict=True))]
        window = taps.shape[:-2]
        if not taps.size:  # the kernel is smaller than the stride: no window reads this phase
            phases.append(jnp.zeros((len(cotangent), *rows, inner), cotangent.dtype))
            continue
        taps = jnp.flip(taps, range(len(window)))
        taps = taps.reshape(*window, -1, groups, features)
        taps = jnp.moveaxis(taps, -3, -1).swapaxes(-3, -2).reshape(*window, features, inner)
        spatial = zip(window, firsts, ends, geometry.outputs, strict=True)
        pads = [(q - 1 - first, end - o) for q, first, end, o in spatial]
        alone = geometry._replace(strides=(1,) * len(pads), padding=pads)
        phases.append(convolve(cotangent, taps, alone))
    whole = _weave(phases, strides)
    begins = (low % s for low, s in zip(lows, strides, strict=True))
    crop = (slice(begin, begin + n) for begin, n in zip(begins, size, strict=True))
    return whole[(slice(None), *crop)]


def _weave(phases: list[Array], strides: tuple[int, ...]) -> Array:
    """Rows of one phase lie a stride apart: puts those of all phases back in line."""
    if len(phases) == 1:
        return phases[0]
    images, *rows, channels = phases[0].shape
    whole = jnp.stack(phases, 1).reshape(images, *strides, *rows, channels)
    axes = range(1, 1 + len(rows))
    order = [axis for phase in axes for axis in (phase + len(rows), phase)]
    whole = whole.transpose(0, *order, whole.ndim - 1)
    return whole.reshape(images, *(m * s for m, s in zip(rows, strides, strict=True)), channels)


def _pointwise_weight_gradient(inputs: Array, cotangent: Array, geometry: Geometry) -> Array:
    """`inputs^T cotangent` over all images and positions."""
    (read,) = reads(inputs, geometry)
    rows, columns = (a.reshape(-1, a.shape[-1]) for a in (read, cotangent))
    product = jnp.tensordot(rows, columns, (0, 0))
    return product.reshape(*geometry.window, *product.shape)


def _weight_gradient_by_convolution(inputs: Array, cotangent: Array, geometry: Geometry) -> Array:
    """Channels of a group act as images; the images of every group as its input features."""
    pads = geometry.read
    # XLA swaps the operands of a convolution whose kernel is the larger one, into other labels.
    if math.prod(geometry.outputs) > math.prod(geometry.size):
        inputs, pads = pad(inputs, [(*pair, 0) for pair in pads]), [(0, 0)] * len(pads)
    images, *size, channels = inputs.shape
    lhs = jnp.moveaxis(inputs.reshape(images, *size, geometry.groups, -1), (-1, 0), (0, -1))
    lhs = lhs.reshape(channels // geometry.groups, *size, -1)
    rhs = jnp.moveaxis(cotangent, 0, -2)
    # A promise that these are not folded into other labels; jax 0.10.2 and 0.12.0.1 do not try.
    lhs, rhs = lax.optimization_barrier((lhs, rhs))
    alone = geometry._replace(strides=(1,) * len(size), padding=pads)
    return jnp.moveaxis(convolve(lhs, rhs, alone, rhs_dilation=geometry.strides), 0, -2)


def _sum_over_images(
    form: Callable[[Array, Array, Geometry], Array],
    inputs: Array,
    cotangent: Array,
    geometry: Geometry,
    shape: tuple[int, ...],
) -> Array:
    """Sums a form of the weight gradient over blocks of images of about `_BLOCK` elements."""
    dtype, images = wide(inputs.dtype), len(inputs)
    most = max(_LEAST, _BLOCK // max(1, math.prod(inputs.shape[1:])))
    # Blocks of one size, or one block: XLA would copy the images for a ragged remainder.
    fitting = (b for b in range(4, min(most, images) + 1) if images % b == 0)
    block = max(fitting, default=images)
    if block == images:
        return form(inputs.astype(dtype), cotangent.astype(dtype), geometry)
    pairs = tuple(a.reshape(block, -1, *a.shape[1:]) for a in (inputs, cotangent))

    def add(total: Array, index: Array) -> tuple[Array, None]:
        x, c = (lax.dynamic_index_in_dim(a, index, 1, keepdims=False) for a in pairs)
        return total + form(x.astype(dtype), c.astype(dtype), geometry), None

    zero, _ = vary_alike(jnp.zeros(shape, dtype), inputs)
    return lax.scan(add, zero, jnp.arange(images // block))[0]
