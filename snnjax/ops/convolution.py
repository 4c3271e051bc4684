"""Convolution whose gradient is as fast inside a loop as outside one.

    output[n, o, d] = sum_{t, c} inputs[n, o s + t - l, c] kernel[t, c, d]

with stride `s` and low padding `l`: `lax.conv_general_dilated`, channels last, and on a CPU shifted
products where it is depthwise (`depthwise`). The derivative is written by hand. Autodiff's form of
it, scanned over a stack of blocks or over time on a CPU, is tens of times slower than the same
layers unrolled; `convolution_gradients` says why and writes it otherwise.
`experiments/benchmarks/convolution_in_scan.py` measures how much. On other devices the derivative
is autodiff's own.

What a convolution is beside its numbers, and how its windows lie over the inputs.

With spatial indices `o` of the output and `t` of the kernel, stride `s` and low padding `l`,

    output[n, o, d] = sum_{t, c} inputs[n, o s + t - l, c] kernel[t, c, d]

Shapes are written for two spatial axes; one axis works the same.

Depthwise convolution as shifted products, which a CPU computes many times faster.

    output[n, o, c] = sum_t inputs[n, o s + t - l, c] kernel[t, 0, c]

One product and one sum of whole arrays per tap of the kernel. XLA:CPU's own grouped convolution is
naive: it takes 35 to 100 times as long forward (3x3, 128 images of 8x8x16 to 2x2x48), 7 to 40 times
for the gradient of the inputs.

The two gradients of a convolution in forms that stay fast inside a loop on a CPU.

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
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from snnjax.ops import one_trip
from snnjax.ops.rounding import is_narrow, narrow, vary_alike, wide, widen
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


def depthwise(inputs: Array, kernel: Array, geometry: Geometry) -> Array:
    """The convolution itself, taps added in order, in at least float32.

    It stands between two barriers: what is around it cannot be fused into it, so that a block that
    is run again rounds as it did.

    Args:
      inputs: `[N, H, W, C]`.
      kernel: `[h, w, 1, C]`.
      geometry: of the convolution.

    Returns:
      `[N, H', W', C]`, in the dtype of `inputs`.
    """
    dtype = inputs.dtype
    inputs, kernel = lax.optimization_barrier((inputs, kernel))
    weights = kernel.astype(wide(dtype)).reshape(-1, kernel.shape[-1])
    taps = zip(reads(inputs.astype(wide(dtype)), geometry), weights, strict=True)
    total = functools.reduce(operator.add, (read * weight for read, weight in taps))
    return lax.optimization_barrier(narrow(total, dtype))


def depthwise_input_gradient(cotangent: Array, kernel: Array, geometry: Geometry) -> Array:
    """Gradient of the inputs, `[N, H, W, C]`, of a cotangent `[N, H', W', C]`."""
    dtype = cotangent.dtype
    spaced, kernel = spread(cotangent.astype(wide(dtype)), geometry), kernel.astype(wide(dtype))
    total = jnp.zeros((len(cotangent), *geometry.size, cotangent.shape[-1]), wide(dtype))
    for tap in geometry.taps:
        first = (k - 1 - t for k, t in zip(geometry.window, tap, strict=True))
        index = (slice(f, f + n) for f, n in zip(first, geometry.size, strict=True))
        total = total + spaced[(slice(None), *index)] * kernel[tap][0]
    return narrow(total, dtype)


def depthwise_weight_gradient(inputs: Array, cotangent: Array, geometry: Geometry) -> Array:
    """Gradient of the kernel, `[h, w, 1, C]`: one sum of products per tap and channel."""
    axes = tuple(range(cotangent.ndim - 1))
    sums = [jnp.sum(read * cotangent, axes) for read in reads(inputs, geometry)]
    return jnp.stack(sums).reshape(*geometry.window, 1, -1)


class Geometry(NamedTuple):
    """What a convolution is beside its numbers; one entry per spatial axis, static and hashable."""

    size: tuple[int, ...]  # `(H, W)` of the inputs
    window: tuple[int, ...]  # `(h, w)` of the kernel
    outputs: tuple[int, ...]  # `(H', W')`
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]  # `(low, high)` per axis; negative crops
    groups: int

    @property
    def read(self) -> list[tuple[int, int]]:
        """The padding without what the last window leaves unread, by which `high` is smaller."""
        spatial = zip(self.size, self.window, self.outputs, self.strides, self.padding, strict=True)
        return [(low, (o - 1) * s + k - n - low) for n, k, o, s, (low, _) in spatial]

    @property
    def taps(self) -> Iterator[tuple[int, ...]]:
        """The positions in the kernel."""
        return itertools.product(*map(range, self.window))

    @property
    def pointwise(self) -> bool:
        """Whether the kernel is 1x1 over ungrouped channels: a matrix product."""
        return self.groups == 1 and math.prod(self.window) == 1

    def depthwise(self, channels: int, features: int) -> bool:
        """Whether every channel has a kernel of its own and one output."""
        return self.groups > 1 and channels == features == self.groups


def convolve(lhs: Array, rhs: Array, geometry: Geometry, **options) -> Array:
    """`lax.conv_general_dilated` in the canonical layout: NHWC, HWIO or NWC, WIO."""
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


def pad(values: Array, frame: list[tuple[int, int, int]]) -> Array:
    """Frames images with zeros: `(low, high, between)` per spatial axis; negative numbers crop."""
    return lax.pad(values, jnp.zeros((), values.dtype), [(0, 0, 0), *frame, (0, 0, 0)])


def reads(inputs: Array, geometry: Geometry) -> Iterator[Array]:
    """For every tap of the kernel, what it reads of the inputs: `[N, H', W', C]`."""
    padded = pad(inputs, [(low, high, 0) for low, high in geometry.read])
    strides, outputs = geometry.strides, geometry.outputs
    for tap in geometry.taps:
        ends = (t + (o - 1) * s + 1 for t, s, o in zip(tap, strides, outputs, strict=True))
        ends = (len(inputs), *ends, inputs.shape[-1])
        yield lax.slice(padded, (0, *tap, 0), ends, (1, *strides, 1))


def spread(values: Array, geometry: Geometry) -> Array:
    """Sets outputs `stride` apart and frames them: tap `t` reads the slice from `h - 1 - t`."""
    frame = []
    for k, s, (low, high) in zip(geometry.window, geometry.strides, geometry.read, strict=True):
        frame.append((k - 1 - low, k - 1 - high, s - 1))
    return pad(values, frame)


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
