"""What a convolution is beside its numbers, and how its windows lie over the inputs.

With spatial indices `o` of the output and `t` of the kernel, stride `s` and low padding `l`,

    output[n, o, d] = sum_{t, c} inputs[n, o s + t - l, c] kernel[t, c, d]

Shapes are written for two spatial axes; one axis works the same.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from snnjax.typing import Array


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


def vary_alike(*arrays: Array) -> list[Array]:
    """Within `jax.shard_map`, lets every array vary over all mesh axes over which one of them does.

    A derivative by hand and the carry of a scan need it; autodiff does it unasked.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return list(arrays)
    varying = [jax.typeof(a).manual_axis_type.varying for a in arrays]
    every = frozenset().union(*varying)
    missing = (tuple(every - names) for names in varying)
    pairs = zip(arrays, missing, strict=True)
    return [lax.pcast(a, names, to="varying") if names else a for a, names in pairs]


def wide(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype to accumulate in: at least float32."""
    return jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else dtype


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
