"""Convolution whose gradient is as fast inside a loop as outside one.

    output[n, o, d] = sum_{t, c} inputs[n, o s + t - l, c] kernel[t, c, d]

with stride `s` and low padding `l`: `lax.conv_general_dilated`, channels last, and on a CPU shifted
products where it is depthwise (`depthwise`). The derivative is written by hand. Autodiff's form of
it, scanned over a stack of blocks or over time on a CPU, is tens of times slower than the same
layers unrolled; `convolution_gradients` says why and writes it otherwise.
`experiments/benchmarks/convolution_in_scan.py` measures how much. On other devices the derivative
is autodiff's own.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from snnjax.kernels import one_trip
from snnjax.nn.convolution_gradients import input_gradient, weight_gradient
from snnjax.nn.depthwise import depthwise
from snnjax.nn.geometry import Geometry, convolve, vary_alike
from snnjax.nn.narrow import is_narrow, narrow, widen
from snnjax.typing import Array


def convolution(
    inputs: Array,
    kernel: Array,
    *,
    strides: int | Sequence[int] = 1,
    padding: str | Sequence[tuple[int, int]] = "SAME",
    groups: int = 1,
) -> Array:
    """Convolves images or series with a kernel, channels last.

    For one shape and kind of device the forward pass is one form, so that a block that is run again
    makes the same spikes. The gradient equals autodiff's but for rounding. Reverse mode only:
    `jax.jvp` raises a TypeError (use `lax.conv_general_dilated` there).

    Args:
      inputs: `[N, H, W, C]`, or `[N, W, C]` for a series; time is folded into `N`.
      kernel: `[h, w, C / groups, D]`, or `[w, C / groups, D]`, in the dtype of `inputs`, or in a
        wider one: then it is rounded to theirs, and its gradient is not.
      strides: one for all spatial axes, or one per axis.
      padding: `"SAME"` (`H' = ceil(H / stride)`), `"VALID"`, or one `(low, high)` per spatial axis.
      groups: number of channel groups that do not mix; `C` makes a depthwise convolution.

    Returns:
      `[N, H', W', D]`, or `[N, W', D]`, in the dtype of `inputs`. Of bfloat16 and float16, sums are
      float32.

    Raises:
      ValueError: If ranks, dtypes, channels, strides or padding do not fit together, or the kernel
        is larger than the padded input.
    """
    geometry = geometry_of(inputs, kernel, strides=strides, padding=padding, groups=groups)
    inputs, kernel = vary_alike(inputs, kernel)
    return _convolution(inputs, kernel, geometry)


def geometry_of(
    inputs: Array,
    kernel: Array,
    *,
    strides: int | Sequence[int] = 1,
    padding: str | Sequence[tuple[int, int]] = "SAME",
    groups: int = 1,
) -> Geometry:
    """What `convolution` of these is beside its numbers; the same arguments and errors."""
    _check_operands(inputs, kernel, groups)
    size, window = inputs.shape[1:-1], kernel.shape[:-2]
    steps = _strides(strides, len(size))
    pads = _pads(padding, size, window, steps)
    spatial = zip(size, window, steps, pads, strict=True)
    outputs = tuple((n + low + high - k) // s + 1 for n, k, s, (low, high) in spatial)
    if min(outputs) < 1:
        raise ValueError(
            f"A kernel of {window} is larger than inputs of {size} padded by {pads}: use a "
            'smaller kernel, fewer strided layers before it, or padding="SAME".'
        )
    return Geometry(size, window, outputs, steps, pads, groups)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolution(inputs: Array, kernel: Array, geometry: Geometry) -> Array:
    kernel, by_hand = narrow(kernel, inputs.dtype), convolve
    if geometry.depthwise(inputs.shape[-1], kernel.shape[-1]):
        by_hand = depthwise
    elif is_narrow(inputs):
        by_hand = _widened
    if by_hand is convolve:
        return convolve(inputs, kernel, geometry)
    by_hand, by_library = (functools.partial(f, geometry=geometry) for f in (by_hand, convolve))
    return lax.platform_dependent(inputs, kernel, cpu=by_hand, default=by_library)


def _widened(inputs: Array, kernel: Array, geometry: Geometry) -> Array:
    """In float32, as a CPU does it anyway, and rounded where a replay rounds too."""
    return narrow(convolve(widen(inputs), widen(kernel), geometry), inputs.dtype)


def _forward(inputs: Array, kernel: Array, geometry: Geometry) -> tuple[Array, tuple[Array, Array]]:
    return _convolution(inputs, kernel, geometry), (inputs, kernel)


# Jitted for its cache: layers of one shape are traced once, and eager calls are not retraced.
@functools.partial(jax.jit, static_argnums=0, inline=True)
def _backward(
    geometry: Geometry, residuals: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    def by_hand(inputs: Array, kernel: Array, cotangent: Array) -> tuple[Array, Array]:
        # First one, then the other: the copies that the first needs are gone by then.
        weights_first = functools.partial(_weights_first, geometry)
        cotangent, weights = one_trip(weights_first, (cotangent, kernel), inputs)
        rounded = widen(narrow(kernel, inputs.dtype))
        gradient = input_gradient(widen(cotangent), rounded, geometry)
        return narrow(gradient, inputs.dtype), weights

    def by_autodiff(inputs: Array, kernel: Array, cotangent: Array) -> tuple[Array, Array]:
        # The libraries of other devices have routines of their own for this form.
        rounded = narrow(kernel, inputs.dtype)
        _, pull = jax.vjp(lambda x, k: convolve(x, k, geometry), inputs, rounded)
        gradient, weights = pull(cotangent)
        return gradient, weights.astype(kernel.dtype)

    inputs, kernel = residuals
    mesh = jax.sharding.get_abstract_mesh()
    form: Callable = by_hand
    if mesh.explicit_axes:  # the shardings within the form by hand are left to the compiler
        shardings = (jax.typeof(inputs).sharding, jax.typeof(kernel).sharding)
        form = jax.sharding.auto_axes(by_hand, axes=mesh.explicit_axes, out_sharding=shardings)
    return lax.platform_dependent(inputs, kernel, cotangent, cpu=form, default=by_autodiff)


def _weights_first(geometry: Geometry, carry: tuple[Array, Array], inputs: Array):
    """`(cotangent, kernel) -> (cotangent, gradient of the kernel)`, for `one_trip`."""
    cotangent, kernel = carry
    return cotangent, weight_gradient(inputs, cotangent, geometry, dtype=kernel.dtype)


_convolution.defvjp(_forward, _backward)


def _check_operands(inputs: Array, kernel: Array, groups: int) -> None:
    if inputs.ndim not in (3, 4):
        raise ValueError(
            f"inputs must be [N, H, W, C] or [N, W, C], not {inputs.shape}: fold time into the "
            "batch first, `inputs.reshape(-1, *inputs.shape[2:])`."
        )
    if kernel.ndim != inputs.ndim:
        raise ValueError(
            f"inputs {inputs.shape} need a kernel of {inputs.ndim} axes, its window and "
            f"[C / groups, D], not {kernel.shape}."
        )
    if not _go_together(inputs.dtype, kernel.dtype):
        raise ValueError(
            f"inputs are {inputs.dtype} and the kernel is {kernel.dtype}: cast both to one "
            "floating dtype, `inputs.astype(kernel.dtype)`."
        )
    if 0 in kernel.shape:
        raise ValueError(
            f"The kernel {kernel.shape} is empty: give every axis a size of at least 1."
        )
    channels, (inner, features) = inputs.shape[-1], kernel.shape[-2:]
    if groups < 1 or channels % groups or features % groups:
        raise ValueError(
            f"groups={groups} must divide the {channels} channels of the inputs and the {features} "
            "features of the kernel: choose a common divisor or change the widths."
        )
    if inner * groups != channels:
        raise ValueError(
            f"inputs of {channels} channels in {groups} groups need a kernel [..., "
            f"{channels // groups}, D], not {kernel.shape}: its axis -2 is channels / groups."
        )


def _go_together(inputs: Any, kernel: Any) -> bool:
    """Both floating, and the kernel the same or wider."""
    if not all(jnp.issubdtype(dtype, jnp.floating) for dtype in (inputs, kernel)):
        return False
    return inputs == kernel or jnp.finfo(kernel).bits > jnp.finfo(inputs).bits


def _strides(strides: int | Sequence[int], spatial_dims: int) -> tuple[int, ...]:
    if not isinstance(strides, Sequence):
        strides = (strides,) * spatial_dims
    steps = tuple(operator.index(s) for s in strides)
    if len(steps) != spatial_dims or min(steps) < 1:
        raise ValueError(
            f"strides={steps}: give one positive integer, or one for each of the {spatial_dims} "
            "spatial axes."
        )
    return steps


def _pads(
    padding: str | Sequence[tuple[int, int]],
    size: tuple[int, ...],
    window: tuple[int, ...],
    strides: tuple[int, ...],
) -> tuple[tuple[int, int], ...]:
    if padding == "VALID":
        return ((0, 0),) * len(size)
    if padding == "SAME":
        spatial = zip(size, window, strides, strict=True)
        totals = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in spatial]
        return tuple((total // 2, total - total // 2) for total in totals)
    pairs = () if isinstance(padding, str) else tuple(padding)
    if len(pairs) != len(size) or any(len(tuple(pair)) != 2 for pair in pairs):
        raise ValueError(
            f'padding={padding!r}: give "SAME", "VALID" or one (low, high) for each of the '
            f"{len(size)} spatial axes."
        )
    return tuple((operator.index(low), operator.index(high)) for low, high in pairs)
