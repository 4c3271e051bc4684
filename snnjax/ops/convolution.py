"""Convolution with gradients that stay fast inside a loop on a CPU.

With spatial indices `o` of the output and `t` of the kernel, stride `s` and low padding `l`,

    output[n, o, d] = sum_{t, c} inputs[n, o s + t - l, c] kernel[t, c, d]

    input gradient     sum_{o, t : o s + t - l = u, d} cotangent[n, o, d] kernel[t, c, d]    at u
    weight gradient    sum_{n, o} inputs[n, o s + t - l, c] cotangent[n, o, d]               at t

XLA:CPU rewrites convolutions to the one layout of its fast routine (batch, space, features; the
kernel as space, in, out) only outside loops. Autodiff writes both gradients in other layouts, so
inside `lax.scan`, over a stack of blocks or over time, they fall to a naive path, tens of times
slower (`experiments/benchmarks/convolution_in_scan.py` measures it). Here the gradients are written
by hand, every convolution in that layout, or in a form faster than any convolution:

    1x1 kernel   a matrix product
    depthwise    shifted products: output[n, o, c] = sum_t inputs[n, o s + t - l, c] kernel[t, 0, c]

The depthwise form takes one product and one sum of whole arrays per tap. The naive grouped
convolution of XLA:CPU takes 35 to 100 times as long forward (3x3, 128 images of 8x8x16 to 2x2x48),
and 7 to 40 times for the input gradient. On other devices forward pass and gradients are those of
`lax.conv_general_dilated` and autodiff.

Shapes are written for two spatial axes; one axis works the same.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from snnjax.ops.isolate import one_trip
from snnjax.ops.rounding import accumulation_dtype, is_narrow, match_varying, narrow, widen
from snnjax.typing import Array

__all__ = [
    "Geometry",
    "convolution",
    "convolution_geometry",
    "convolve",
    "depthwise",
    "depthwise_input_gradient",
    "depthwise_weight_gradient",
    "dilate",
    "input_gradient",
    "pad",
    "padding_pairs",
    "tap_inputs",
    "weight_gradient",
]

# Up to this number of groups a convolution per group is 2 to 4 times faster than a grouped one.
_SPLIT_GROUPS = 16
# Input elements per block of images: the copies are small and stay in the cache of a core.
_BLOCK = 2**16
# Images per block at least: a weight gradient sums over them, and short sums are slow.
_MIN_BLOCK_IMAGES = 8


class Geometry(NamedTuple):
    """Static convolution geometry: sizes, window, strides, padding, groups; hashable.

    Attributes:
        size: Spatial size of the inputs, `(H, W)`.
        window: Spatial size of the kernel, `(h, w)`.
        outputs: Spatial size of the outputs, `(H', W')`.
        strides: Step per spatial axis.
        padding: Zeros `(low, high)` per spatial axis; negative numbers crop.
        groups: Number of channel groups.
    """

    size: tuple[int, ...]
    window: tuple[int, ...]
    outputs: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    groups: int

    @property
    def trimmed_padding(self) -> list[tuple[int, int]]:
        """Padding `(low, high)` up to the end of the last window."""
        # With strides the last window may end before the padded input does.
        spatial = zip(self.size, self.window, self.outputs, self.strides, self.padding, strict=True)
        return [(low, (o - 1) * s + k - n - low) for n, k, o, s, (low, _) in spatial]

    @property
    def taps(self) -> Iterator[tuple[int, ...]]:
        """Positions in the kernel."""
        return itertools.product(*map(range, self.window))

    @property
    def pointwise(self) -> bool:
        """True if the kernel is 1x1 and ungrouped: the convolution is a matrix product."""
        return self.groups == 1 and math.prod(self.window) == 1

    def depthwise(self, channels: int, features: int) -> bool:
        """True if every channel has its own kernel and one output."""
        return self.groups > 1 and channels == features == self.groups


def convolution(
    inputs: Array,
    kernel: Array,
    *,
    strides: int | Sequence[int] = 1,
    padding: str | int | Sequence[tuple[int, int]] = "SAME",
    groups: int = 1,
) -> Array:
    """Convolves images or series with a kernel, channels last.

        output[n, o, d] = sum_{t, c} inputs[n, o s + t - l, c] kernel[t, c, d]

    For one shape and kind of device the forward pass has one form, so that a replayed block makes
    the same spikes. The gradient equals that of autodiff up to rounding. Reverse mode only:
    `jax.jvp` raises a TypeError (use `lax.conv_general_dilated` there).

    Args:
        inputs: Images `[N, H, W, C]` or series `[N, W, C]`; time is folded into N.
        kernel: Kernel `[h, w, C / groups, D]` or `[w, C / groups, D]`, in the dtype of `inputs` or
            a wider one, which is rounded to it and whose gradient is not rounded.
        strides: Step, one for all spatial axes or one per axis.
        padding: `"SAME"` (`H' = ceil(H / stride)`), `"VALID"`, the number of rows and columns added
            on every side, or `(low, high)` per spatial axis.
        groups: Number of channel groups that do not mix; C makes a depthwise convolution.

    Returns:
        Outputs `[N, H', W', D]` or `[N, W', D]`, in the dtype of `inputs`; bfloat16 and float16 are
        summed in float32.

    Raises:
        ValueError: Ranks, dtypes, channels, strides or padding do not fit together, or the kernel
            is larger than the padded input.
    """
    geometry = convolution_geometry(inputs, kernel, strides=strides, padding=padding, groups=groups)
    inputs, kernel = match_varying(inputs, kernel)
    return _convolution(inputs, kernel, geometry)


def convolution_geometry(
    inputs: Array,
    kernel: Array,
    *,
    strides: int | Sequence[int] = 1,
    padding: str | int | Sequence[tuple[int, int]] = "SAME",
    groups: int = 1,
) -> Geometry:
    """Static geometry of a convolution, with the arguments and errors of `convolution`."""
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


def padding_pairs(
    padding: str | int | Sequence[tuple[int, int]], spatial_dims: int
) -> str | tuple[tuple[int, int], ...]:
    """Padding in its hashable form: `"SAME"`, `"VALID"` or one pair per spatial axis.

    Args:
        padding: `"SAME"` (at stride 2 an even size is padded at its end alone), `"VALID"`, the
            number of rows and columns added on every side (PyTorch's convention), or `(low, high)`
            per spatial axis; negative numbers crop.
        spatial_dims: Number of spatial axes.

    Raises:
        ValueError: Another string, another number of pairs, or entries that are no pairs of
            integers.
    """
    if isinstance(padding, str):
        pairs = padding if padding in ("SAME", "VALID") else None
    else:
        pairs = _pairs(padding, spatial_dims)
    if pairs is None:
        raise ValueError(
            f'padding={padding!r}: give "SAME", "VALID", one integer for every side, or one '
            f"(low, high) for each of the {spatial_dims} spatial axes."
        )
    return pairs


def _pairs(padding: Any, spatial_dims: int) -> tuple[tuple[int, int], ...] | None:
    """One pair of integers per spatial axis; None if `padding` has another form."""
    whole = lambda n: isinstance(n, int | np.integer) and not isinstance(n, bool)  # noqa: E731
    if whole(padding):
        return ((int(padding), int(padding)),) * spatial_dims
    # A pair of integers alone is refused: per axis in PyTorch, before and after elsewhere.
    listed = lambda p: isinstance(p, Sequence | np.ndarray)  # noqa: E731
    if not listed(padding) or len(padding) != spatial_dims:
        return None
    if not all(listed(p) and len(p) == 2 and all(map(whole, p)) for p in padding):
        return None
    return tuple((int(low), int(high)) for low, high in padding)


def input_gradient(cotangent: Array, kernel: Array, geometry: Geometry) -> Array:
    """Gradient of a convolution with respect to its inputs.

    The rows of the padded input fall into `stride` phases, and outputs reach each phase through
    every `stride`-th tap only. Each phase is one small stride-1 convolution of the cotangent with
    the flipped, transposed taps, and no zero is multiplied. With stride 1 there is one phase.

    Args:
        cotangent: Gradient with respect to the outputs, `[N, H', W', D]`.
        kernel: Kernel, `[h, w, C / groups, D]`.
        geometry: Geometry of the convolution.

    Returns:
        Gradient with respect to the inputs, `[N, H, W, C]`.
    """
    features, groups = kernel.shape[-1], geometry.groups
    if geometry.depthwise(kernel.shape[-2] * groups, features):
        return depthwise_input_gradient(cotangent, kernel, geometry)
    if 1 < groups <= _SPLIT_GROUPS:
        return _by_group(input_gradient, cotangent, kernel, geometry)
    if geometry.pointwise:
        matrix = kernel.reshape(kernel.shape[-2:])
        return dilate(jnp.tensordot(cotangent, matrix, (-1, 1)), geometry)
    return _input_gradient_by_phases(cotangent, kernel, geometry)


def weight_gradient(
    inputs: Array, cotangent: Array, geometry: Geometry, *, dtype: Any = None
) -> Array:
    """Gradient of a convolution with respect to its kernel.

    The gradient is itself a convolution, in which channels act as images, images as input features
    and the cotangent as a kernel of the size of the outputs; a stride becomes a dilation of that
    kernel. It is summed, in at least float32, over blocks of images that fit the cache: up to 3.5
    times faster than in one piece, with transposed copies of the size of a block.

    Args:
        inputs: Inputs, `[N, H, W, C]`.
        cotangent: Gradient with respect to the outputs, `[N, H', W', D]`.
        geometry: Geometry of the convolution.
        dtype: Dtype of the result; None is that of `inputs`.

    Returns:
        Gradient with respect to the kernel, `[h, w, C / groups, D]`.
    """
    channels, features, groups = inputs.shape[-1], cotangent.shape[-1], geometry.groups
    # The kernel may be wider than the inputs; its gradient keeps that precision.
    dtype = inputs.dtype if dtype is None else dtype
    if geometry.depthwise(channels, features):
        form = depthwise_weight_gradient
    elif 1 < groups <= _SPLIT_GROUPS:
        single = functools.partial(weight_gradient, dtype=dtype)
        return _by_group(single, inputs, cotangent, geometry)
    elif geometry.pointwise:
        form = _pointwise_weight_gradient
    else:
        form = _weight_gradient_by_convolution
    shape = (*geometry.window, channels // groups, features)
    return _sum_over_images(form, inputs, cotangent, geometry, shape).astype(dtype)


def depthwise(inputs: Array, kernel: Array, geometry: Geometry) -> Array:
    """Depthwise convolution as a sum of shifted products, in at least float32.

        output[n, o, c] = sum_t inputs[n, o s + t - l, c] kernel[t, 0, c],    taps added in order

    Args:
        inputs: Inputs, `[N, H, W, C]`.
        kernel: Kernel, `[h, w, 1, C]`.
        geometry: Geometry of the convolution.

    Returns:
        Outputs `[N, H', W', C]`, in the dtype of `inputs`.
    """
    dtype, wide = inputs.dtype, accumulation_dtype(inputs.dtype)
    # Two barriers: code around the products cannot be fused into them, so that a replay of a block
    # rounds as the first pass did.
    inputs, kernel = lax.optimization_barrier((inputs, kernel))
    weights = kernel.astype(wide).reshape(-1, kernel.shape[-1])
    taps = zip(tap_inputs(inputs.astype(wide), geometry), weights, strict=True)
    total = functools.reduce(operator.add, (read * weight for read, weight in taps))
    return lax.optimization_barrier(narrow(total, dtype))


def depthwise_input_gradient(cotangent: Array, kernel: Array, geometry: Geometry) -> Array:
    """Input gradient `[N, H, W, C]` of a depthwise convolution for cotangents `[N, H', W', C]`."""
    # All taps are summed in at least float32 and rounded once.
    dtype, wide = cotangent.dtype, accumulation_dtype(cotangent.dtype)
    dilated, kernel = dilate(cotangent.astype(wide), geometry), kernel.astype(wide)
    total = jnp.zeros((len(cotangent), *geometry.size, cotangent.shape[-1]), wide)
    for tap in geometry.taps:
        # In the dilated cotangent tap `t` reads from `h - 1 - t`, see `dilate`.
        first = (k - 1 - t for k, t in zip(geometry.window, tap, strict=True))
        index = (slice(f, f + n) for f, n in zip(first, geometry.size, strict=True))
        total = total + dilated[(slice(None), *index)] * kernel[tap][0]
    return narrow(total, dtype)


def depthwise_weight_gradient(inputs: Array, cotangent: Array, geometry: Geometry) -> Array:
    """Kernel gradient `[h, w, 1, C]` of a depthwise convolution: a sum of products per tap."""
    axes = tuple(range(cotangent.ndim - 1))
    sums = [jnp.sum(read * cotangent, axes) for read in tap_inputs(inputs, geometry)]
    return jnp.stack(sums).reshape(*geometry.window, 1, -1)


def convolve(lhs: Array, rhs: Array, geometry: Geometry, **options) -> Array:
    """Calls `lax.conv_general_dilated` in the canonical layout: NHWC, HWIO or NWC, WIO."""
    space = "HW"[-len(geometry.strides) :]
    return lax.conv_general_dilated(
        lhs,
        rhs,
        geometry.strides,
        geometry.padding,
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        feature_group_count=geometry.groups,
        **options,
    )


def tap_inputs(inputs: Array, geometry: Geometry) -> Iterator[Array]:
    """Inputs that each tap of the kernel multiplies, `[N, H', W', C]` per tap, in order."""
    padded = pad(inputs, [(low, high, 0) for low, high in geometry.trimmed_padding])
    strides, outputs = geometry.strides, geometry.outputs
    for tap in geometry.taps:
        ends = (t + (o - 1) * s + 1 for t, s, o in zip(tap, strides, outputs, strict=True))
        ends = (len(inputs), *ends, inputs.shape[-1])
        yield lax.slice(padded, (0, *tap, 0), ends, (1, *strides, 1))


def dilate(values: Array, geometry: Geometry) -> Array:
    """Dilates outputs by the stride and pads them: tap `t` reads the slice from `h - 1 - t`."""
    axes = zip(geometry.window, geometry.strides, geometry.trimmed_padding, strict=True)
    return pad(values, [(k - 1 - low, k - 1 - high, s - 1) for k, s, (low, high) in axes])


def pad(values: Array, padding: list[tuple[int, int, int]]) -> Array:
    """Pads images with zeros, `(low, high, interior)` per spatial axis; negative numbers crop."""
    return lax.pad(values, jnp.zeros((), values.dtype), [(0, 0, 0), *padding, (0, 0, 0)])


def _by_group(gradient: Callable, left: Array, right: Array, geometry: Geometry) -> Array:
    """Concatenates the gradients of the groups, each as an ungrouped convolution."""
    parts = (jnp.split(a, geometry.groups, -1) for a in (left, right))
    ungrouped = geometry._replace(groups=1)
    return jnp.concatenate([gradient(a, b, ungrouped) for a, b in zip(*parts, strict=True)], -1)


def _input_gradient_by_phases(cotangent: Array, kernel: Array, geometry: Geometry) -> Array:
    """Input gradient: row `m s + r` of the padded input takes tap `q s + r` of output `m - q`."""
    # Only rows `m` that hold inputs are computed, from `firsts` to before `ends`.
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
        if not taps.size:  # a kernel smaller than the stride: no window reads this phase
            phases.append(jnp.zeros((len(cotangent), *rows, inner), cotangent.dtype))
            continue
        taps = jnp.flip(taps, range(len(window)))
        taps = taps.reshape(*window, -1, groups, features)
        taps = jnp.moveaxis(taps, -3, -1).swapaxes(-3, -2).reshape(*window, features, inner)
        spatial = zip(window, firsts, ends, geometry.outputs, strict=True)
        pads = [(q - 1 - first, end - o) for q, first, end, o in spatial]
        unstrided = geometry._replace(strides=(1,) * len(pads), padding=pads)
        phases.append(convolve(cotangent, taps, unstrided))
    padded = _interleave(phases, strides)
    begins = (low % s for low, s in zip(lows, strides, strict=True))
    crop = (slice(begin, begin + n) for begin, n in zip(begins, size, strict=True))
    return padded[(slice(None), *crop)]


def _interleave(phases: list[Array], strides: tuple[int, ...]) -> Array:
    """Interleaves the rows of all phases; the rows of one phase are a stride apart."""
    if len(phases) == 1:
        return phases[0]
    images, *rows, channels = phases[0].shape
    # A transpose interleaves them without a scatter.
    stacked = jnp.stack(phases, 1).reshape(images, *strides, *rows, channels)
    axes = range(1, 1 + len(rows))
    order = [axis for phase in axes for axis in (phase + len(rows), phase)]
    stacked = stacked.transpose(0, *order, stacked.ndim - 1)
    return stacked.reshape(images, *(m * s for m, s in zip(rows, strides, strict=True)), channels)


def _pointwise_weight_gradient(inputs: Array, cotangent: Array, geometry: Geometry) -> Array:
    """`inputs^T cotangent` over all images and positions."""
    (read,) = tap_inputs(inputs, geometry)
    rows, columns = (a.reshape(-1, a.shape[-1]) for a in (read, cotangent))
    product = jnp.tensordot(rows, columns, (0, 0))
    return product.reshape(*geometry.window, *product.shape)


def _weight_gradient_by_convolution(inputs: Array, cotangent: Array, geometry: Geometry) -> Array:
    """Convolution in which channels of a group are images, and images are input features."""
    pads = geometry.trimmed_padding
    # XLA swaps the operands of a convolution if the kernel is the larger one, and so leaves the
    # fast layout: padding the inputs first makes them the larger operand.
    if math.prod(geometry.outputs) > math.prod(geometry.size):
        inputs, pads = pad(inputs, [(*pair, 0) for pair in pads]), [(0, 0)] * len(pads)
    images, *size, channels = inputs.shape
    lhs = jnp.moveaxis(inputs.reshape(images, *size, geometry.groups, -1), (-1, 0), (0, -1))
    lhs = lhs.reshape(channels // geometry.groups, *size, -1)
    rhs = jnp.moveaxis(cotangent, 0, -2)
    # Keeps XLA from folding the transposes into another layout of the convolution; jax 0.10.2 and
    # 0.12.0.1 do not try.
    lhs, rhs = lax.optimization_barrier((lhs, rhs))
    unstrided = geometry._replace(strides=(1,) * len(size), padding=pads)
    return jnp.moveaxis(convolve(lhs, rhs, unstrided, rhs_dilation=geometry.strides), 0, -2)


def _sum_over_images(
    form: Callable[[Array, Array, Geometry], Array],
    inputs: Array,
    cotangent: Array,
    geometry: Geometry,
    shape: tuple[int, ...],
) -> Array:
    """Sums a form of the weight gradient over blocks of images of about `_BLOCK` elements."""
    dtype, images = accumulation_dtype(inputs.dtype), len(inputs)
    limit = max(_MIN_BLOCK_IMAGES, _BLOCK // max(1, math.prod(inputs.shape[1:])))
    # Blocks of one size, or one block: XLA would copy the images for a ragged remainder.
    divisors = (b for b in range(4, min(limit, images) + 1) if images % b == 0)
    block = max(divisors, default=images)
    if block == images:
        return form(inputs.astype(dtype), cotangent.astype(dtype), geometry)
    # A block takes evenly spaced images, so that images sharded over devices stay on their device.
    pairs = tuple(a.reshape(block, -1, *a.shape[1:]) for a in (inputs, cotangent))

    def add_block(total: Array, index: Array) -> tuple[Array, None]:
        x, c = (lax.dynamic_index_in_dim(a, index, 1, keepdims=False) for a in pairs)
        # Cast per block: a wide copy of all images would be held for the whole scan.
        return total + form(x.astype(dtype), c.astype(dtype), geometry), None

    zero, _ = match_varying(jnp.zeros(shape, dtype), inputs)
    return lax.scan(add_block, zero, jnp.arange(images // block))[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolution(inputs: Array, kernel: Array, geometry: Geometry) -> Array:
    return _value(inputs, kernel, geometry)


def _value(inputs: Array, kernel: Array, geometry: Geometry) -> Array:
    # Rounded inside the custom rule, so that the gradient of a wider kernel is not rounded.
    kernel, cpu_form = narrow(kernel, inputs.dtype), convolve
    if geometry.depthwise(inputs.shape[-1], kernel.shape[-1]):
        cpu_form = depthwise
    elif is_narrow(inputs):
        cpu_form = _convolve_in_float32
    if cpu_form is convolve:
        return convolve(inputs, kernel, geometry)
    cpu_form, library = (functools.partial(f, geometry=geometry) for f in (cpu_form, convolve))
    return lax.platform_dependent(inputs, kernel, cpu=cpu_form, default=library)


def _convolve_in_float32(inputs: Array, kernel: Array, geometry: Geometry) -> Array:
    """Convolution of narrow floats in float32, rounded once."""
    # A CPU computes in float32 anyway but rounds where its fusions end; this way a replay rounds
    # alike.
    return narrow(convolve(widen(inputs), widen(kernel), geometry), inputs.dtype)


def _forward(inputs: Array, kernel: Array, geometry: Geometry) -> tuple[Array, tuple[Array, Array]]:
    # The kernel is kept as it came: its gradient has its dtype. The rule does not call the function
    # itself, which forward mode over the gradient would refuse.
    return _value(inputs, kernel, geometry), (inputs, kernel)


# Jitted for its cache: layers of one shape are traced once, and eager calls are not retraced.
@functools.partial(jax.jit, static_argnums=0, inline=True)
def _backward(
    geometry: Geometry, residuals: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    def by_hand(inputs: Array, kernel: Array, cotangent: Array) -> tuple[Array, Array]:
        # The weight gradient alone and first: its copies are freed before the input gradient
        # starts. XLA:CPU would run both at once and hold the copies of both.
        weights_first = functools.partial(_weights_first, geometry)
        cotangent, weights = one_trip(weights_first, (cotangent, kernel), inputs)
        rounded = widen(narrow(kernel, inputs.dtype))
        gradient = input_gradient(widen(cotangent), rounded, geometry)
        return narrow(gradient, inputs.dtype), weights

    def by_autodiff(inputs: Array, kernel: Array, cotangent: Array) -> tuple[Array, Array]:
        # The libraries of other devices have fast routines for these layouts.
        rounded = narrow(kernel, inputs.dtype)
        _, pull = jax.vjp(lambda x, k: convolve(x, k, geometry), inputs, rounded)
        gradient, weights = pull(cotangent)
        return gradient, weights.astype(kernel.dtype)

    inputs, kernel = residuals
    mesh = jax.sharding.get_abstract_mesh()
    form: Callable = by_hand
    if mesh.explicit_axes:
        # The reshapes of the form by hand have no explicit sharding rule: inside it the compiler
        # decides.
        shardings = (jax.typeof(inputs).sharding, jax.typeof(kernel).sharding)
        form = jax.sharding.auto_axes(by_hand, axes=mesh.explicit_axes, out_sharding=shardings)
    return lax.platform_dependent(inputs, kernel, cotangent, cpu=form, default=by_autodiff)


def _weights_first(geometry: Geometry, carry: tuple[Array, Array], inputs: Array):
    """Maps `(cotangent, kernel)` to `(cotangent, weight gradient)`, the carry of `one_trip`."""
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
            f"[C / groups, D], not {kernel.shape}: add or drop a window axis."
        )
    if not _are_compatible(inputs.dtype, kernel.dtype):
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


def _are_compatible(inputs: Any, kernel: Any) -> bool:
    """True if both dtypes are floating and the kernel has the same dtype or a wider one."""
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
    padding: str | int | Sequence[tuple[int, int]],
    size: tuple[int, ...],
    window: tuple[int, ...],
    strides: tuple[int, ...],
) -> tuple[tuple[int, int], ...]:
    padding = padding_pairs(padding, len(size))
    if padding == "VALID":
        return ((0, 0),) * len(size)
    if padding == "SAME":
        spatial = zip(size, window, strides, strict=True)
        totals = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in spatial]
        return tuple((total // 2, total - total // 2) for total in totals)
    return padding  # type: ignore[return-value]  # strings have returned above
