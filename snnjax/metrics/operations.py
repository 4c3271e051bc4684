"""Synaptic operations: how often a connection multiplies, or adds, for what it is given.

A connection is a linear map: all to all along the last axis, or a convolution. With `x` its inputs
and `w` its weights, of one example at one timestep,

    effective   sum over the products of the map of [x != 0] [w != 0]
    dense       the number of products, where an output at the border has fewer of them: what zero
                padding would be multiplied with is no product

A connection is linear, so each input element takes part in as many products as it has weights that
are not zero on its way to an output, its fan-out, whatever the others are:

    fan_out[i]  = number of pairs (w, output) with w != 0 that read input i
    effective   = sum over i of [x_i != 0] fan_out[i],          dense = sum over i of all its pairs

The fan-out is made once for all timesteps and examples, without running a convolution. Counts are
whole numbers, `uint32`, and exact; the tool that defines them sums in float32, which rounds above
2^24.

Reference: Yik et al., "The neurobench framework for benchmarking neuromorphic computing algorithms
and systems", Nature Communications 2025, arXiv:2304.04640; the rules are those of its released code
(v2.3.0).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from snnjax.typing import Array

__all__ = ["Operations", "checksum", "dense_operations", "fan_out", "synaptic_operations"]

Pads = Sequence[tuple[int, int]]

_LIMIT = 2**32


class Operations(NamedTuple):
    """What one connection did, `[T, B]` each: one row per time that it ran.

    Attributes:
        effective: products of an input and a weight that are both not zero, uint32.
        dense: products that there are, uint32, without those of zero padding.
        padded: the same with those of zero padding, as profilers count them, uint32.
        active: inputs that are not zero, uint32.
        inputs: inputs, uint32.
        ternary: whether all inputs are -1, 0 or 1.
        binary: whether all inputs are 0 or 1.
        checksum: of the inputs, uint32: equal where they are, and once in four billion elsewhere.
    """

    effective: Array
    dense: Array
    padded: Array
    active: Array
    inputs: Array
    ternary: Array
    binary: Array
    checksum: Array


def synaptic_operations(
    inputs: Array,
    kernel: Array,
    *,
    strides: Sequence[int] = (),
    padding: Pads = (),
    groups: int = 1,
) -> Operations:
    """Counts what a connection does with its inputs; see the top of this file.

    The bias is never counted. Nothing here is differentiated.

    Args:
        inputs: `[T, B, ..., C]`, all of which pass the same connection.
        kernel: `[C, D]`, all to all, or `[*window, C / groups, D]`, a convolution.
        strides: of a convolution, one per spatial axis.
        padding: of a convolution, `(low, high)` per spatial axis.
        groups: of a convolution; `C` is a depthwise one.

    Raises:
        ValueError: one example has 2^32 products or more at one timestep.
    """
    return _operations(inputs, kernel, tuple(strides), tuple(padding), groups)


# Jitted for its cache: layers of one shape are traced once.
@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _operations(inputs: Array, kernel: Array, strides: Any, padding: Any, groups: int):
    space = inputs.shape[2:-1] if kernel.ndim > 2 else ()
    places = 1 if space else math.prod(inputs.shape[2:-1])
    options = {"strides": strides, "padding": padding, "groups": groups}
    dense = places * dense_operations(kernel.shape, size=space, strides=strides, padding=padding)
    outputs = math.prod(_outputs(space, kernel.shape, strides, padding))
    padded = places * outputs * math.prod(kernel.shape)
    if padded >= _LIMIT:
        raise ValueError(
            f"{padded:.3g} products of one example at one timestep are more than the 2^32 that are "
            "counted here: measure smaller frames, or fewer channels"
        )
    fan = jnp.broadcast_to(fan_out(kernel, size=space, **options), inputs.shape[2:])
    effective, active, real, signed, checksum = _sums(inputs, fan)
    everywhere = lambda number: jnp.full(inputs.shape[:2], number, jnp.uint32)  # noqa: E731
    return Operations(
        effective=effective,
        dense=everywhere(dense),
        padded=everywhere(padded),
        active=active,
        inputs=everywhere(math.prod(inputs.shape[2:])),
        ternary=real == 0,
        binary=(real == 0) & (signed == 0),
        checksum=checksum,
    )


def fan_out(
    kernel: Array,
    *,
    size: Sequence[int] = (),
    strides: Sequence[int] = (),
    padding: Pads = (),
    groups: int = 1,
) -> Array:
    """How many products with a weight that is not zero each input takes part in.

    Args:
        kernel: `[C, D]`, or `[*window, C / groups, D]` with the following.
        size: of the inputs, one per spatial axis.
        strides: one per spatial axis.
        padding: `(low, high)` per spatial axis.
        groups: channel groups that do not mix.

    Returns:
        `[*size, C]`, uint32.
    """
    *window, inner, features = kernel.shape
    there = (kernel != 0).reshape(*window, inner, groups, features // groups)
    # By place in the window and input channel; channels are in the order of their groups.
    counts = jnp.moveaxis(jnp.sum(there, -1, dtype=jnp.float32), -1, -2)
    if window:
        # Small whole numbers, exact in float32: one product, where integers would take a loop.
        reach = functools.reduce(np.kron, _reaches(size, kernel.shape, strides, padding))
        counts = counts.reshape(math.prod(window), inner * groups)
        counts = jnp.matmul(reach.astype(np.float32), counts, precision="highest")
    return counts.reshape(*size, inner * groups).astype(jnp.uint32)


def dense_operations(
    shape: Sequence[int],
    *,
    size: Sequence[int] = (),
    strides: Sequence[int] = (),
    padding: Pads = (),
) -> int:
    """The products of a connection, for one example at one timestep and one place of its inputs.

    Args:
        shape: of the kernel, `[C, D]` or `[*window, C / groups, D]`.
        size: as for `fan_out`, and the following.
        strides: one per spatial axis.
        padding: `(low, high)` per spatial axis.
    """
    reaches = _reaches(size, shape, strides, padding)
    return math.prod(int(reach.sum()) for reach in reaches) * math.prod(shape[-2:])


def _outputs(size: Sequence[int], shape: Sequence[int], strides: Sequence[int], padding: Pads):
    spatial = zip(size, shape[:-2], strides, padding, strict=True)
    return [(n + low + high - k) // s + 1 for n, k, s, (low, high) in spatial]


def _reaches(
    size: Sequence[int], shape: Sequence[int], strides: Sequence[int], padding: Pads
) -> list[np.ndarray]:
    """Per spatial axis `[size, window]`: whether an input is read at a place of the window."""
    found = []
    outputs = _outputs(size, shape, strides, padding)
    for n, k, s, (low, _), last in zip(size, shape[:-2], strides, padding, outputs, strict=True):
        output = np.arange(n)[:, None] + low - np.arange(k)[None, :]  # times the stride
        found.append((output % s == 0) & (output >= 0) & (output < last * s))
    return found


def _sums(inputs: Array, fan: Array) -> Sequence[Array]:
    """`[T, B]` each: products, inputs that are not 0, not in {-1, 0, 1}, -1, and a checksum.

    One reduction of all five: as five it would take a compiler as many times as long.
    """
    flat = inputs.reshape(*inputs.shape[:2], -1).astype(jnp.float32)
    active, fan = flat != 0, fan.reshape(-1)
    real, signed = active & (jnp.abs(flat) != 1), flat == -1
    columns = [jnp.where(active, fan, 0), active, real, signed, _mixed(flat)]
    zeros = [np.uint32(0)] * len(columns)
    add = lambda a, b: [x + y for x, y in zip(a, b, strict=True)]  # noqa: E731
    return jax.lax.reduce([c.astype(jnp.uint32) for c in columns], zeros, add, (2,))


def checksum(inputs: Array) -> Array:
    """The checksum of `Operations`, for arrays `[T, B, ...]`; a reshape of `...` keeps it."""
    flat = inputs.reshape(*inputs.shape[:2], -1).astype(jnp.float32)
    return jnp.sum(_mixed(flat), -1, dtype=jnp.uint32)


def _mixed(flat: Array) -> Array:
    """Every element mixed with its place, to be added up to a checksum."""
    bits = jax.lax.bitcast_convert_type(jnp.where(flat == 0, 0, flat), jnp.uint32)
    place = jnp.arange(bits.shape[-1], dtype=jnp.uint32)
    mixed = bits * np.uint32(0x9E3779B1) + place * np.uint32(0x85EBCA6B)
    for factor in (0x7FEB352D, 0x846CA68B):
        mixed = (mixed ^ (mixed >> np.uint32(15))) * np.uint32(factor)
    return mixed ^ (mixed >> np.uint32(16))
