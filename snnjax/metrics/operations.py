"""Counts of operations: products of connections and of attention, updates of membranes.

A connection is a linear map: all-to-all along the last axis, or a convolution. For one example at
one timestep with inputs `x` and weights `w`,

    effective   sum over the products of the map of [x != 0] [w != 0]
    dense       number of products; products with zero padding do not count, so that outputs at the
                border have fewer

Since a connection is linear, each input takes part in one product per nonzero weight on its way to
an output, its fan-out, independent of the other inputs:

    fan_out[i]  = number of pairs (w, output) with w != 0 that read input i
    effective   = sum over i of [x_i != 0] fan_out[i],          dense = sum over i of all its pairs

The fan-out is computed once for all timesteps and examples, without running a convolution. Counts
are exact, `uint32`; NeuroBench sums in float32, which rounds above 2^24. Attention multiplies
activations with each other, which NeuroBench does not count: `Products` are reported apart.

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

from snnjax.ops.padding import mask, match_axes
from snnjax.typing import Array

__all__ = [
    "Operations",
    "Products",
    "attention_products",
    "checksum",
    "dense_operations",
    "fan_out",
    "membrane_updates",
    "multiplications",
    "neuron_operations",
    "synaptic_operations",
]

Pads = Sequence[tuple[int, int]]

_LIMIT = 2**32  # counts are uint32

# Model -> reset -> operations per update of one membrane, from NeuroBench's released code.
_NEURON_OPERATIONS = {
    "leaky": {"subtract": 4, "zero": 4},
    "synaptic": {"subtract": 6, "zero": 8},
    "lapicque": {"subtract": 11, "zero": 11},
    "alpha": {"subtract": 18, "zero": 24},
}


class Operations(NamedTuple):
    """Operations of one connection, arrays `[T, B]` with one row per timestep at which it ran.

    Attributes:
        effective: Products of a nonzero input and a nonzero weight, uint32.
        dense: All products, without those of zero padding, uint32.
        padded: All products, with those of zero padding, as profilers count them, uint32.
        active: Nonzero inputs, uint32.
        inputs: Inputs, uint32.
        ternary: True if all inputs are -1, 0 or 1.
        binary: True if all inputs are 0 or 1.
        checksum: Checksum of the inputs, uint32: equal for equal inputs, and for different ones
            with a probability of 2^-32.
    """

    effective: Array
    dense: Array
    padded: Array
    active: Array
    inputs: Array
    ternary: Array
    binary: Array
    checksum: Array


class Products(NamedTuple):
    """Products of a layer between activations, arrays `[T, B]` with one row per timestep.

    Attributes:
        effective: Products of two nonzero numbers, uint32.
        dense: All products, uint32.
        binary: True if one factor of each product is a spike, so that no multiplication is needed.
    """

    effective: Array
    dense: Array
    binary: Array


def synaptic_operations(
    inputs: Array,
    kernel: Array,
    *,
    strides: Sequence[int] = (),
    padding: Pads = (),
    groups: int = 1,
) -> Operations:
    """Counts the operations of a connection, see the top of this module.

    The bias is never counted. Nothing here is differentiated.

    Args:
        inputs: `[T, B, ..., C]`; the connection applies along the last axis, or to all axes of
            space.
        kernel: `[C, D]`, all-to-all, or `[*window, C / groups, D]`, a convolution.
        strides: Strides of a convolution, one per spatial axis.
        padding: Padding of a convolution, `(low, high)` per spatial axis.
        groups: Channel groups of a convolution; `C` makes it depthwise.

    Returns:
        The counts.

    Raises:
        ValueError: If one example has 2^32 or more products at one timestep.
    """
    return _operations(inputs, kernel, tuple(strides), tuple(padding), groups)


# Jitted for its cache: layers of equal shape are traced once.
@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _operations(inputs: Array, kernel: Array, strides: Any, padding: Any, groups: int):
    space = inputs.shape[2:-1] if kernel.ndim > 2 else ()
    places = 1 if space else math.prod(inputs.shape[2:-1])
    options = {"strides": strides, "padding": padding, "groups": groups}
    dense = places * dense_operations(kernel.shape, size=space, strides=strides, padding=padding)
    outputs = math.prod(_outputs(space, kernel.shape, strides, padding))
    padded = places * outputs * math.prod(kernel.shape)
    # Shapes are static, so this is raised when a layer is traced, before any count overflows.
    if padded >= _LIMIT:
        raise ValueError(
            f"{padded:.3g} products of one example at one timestep are more than the 2^32 that are "
            "counted here: measure smaller frames, or fewer channels"
        )
    fan = jnp.broadcast_to(fan_out(kernel, size=space, **options), inputs.shape[2:])
    effective, active, real, signed, checksum = _sums(inputs, fan)
    constant = lambda number: jnp.full(inputs.shape[:2], number, jnp.uint32)  # noqa: E731
    return Operations(
        effective=effective,
        dense=constant(dense),
        padded=constant(padded),
        active=active,
        inputs=constant(math.prod(inputs.shape[2:])),
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
    """Number of products with a nonzero weight for each input.

    Args:
        kernel: `[C, D]`, or `[*window, C / groups, D]` with the following.
        size: Size of the inputs, one number per spatial axis.
        strides: Strides, one per spatial axis.
        padding: `(low, high)` per spatial axis.
        groups: Number of channel groups.

    Returns:
        `[*size, C]`, uint32.
    """
    *window, inner, features = kernel.shape
    nonzero = (kernel != 0).reshape(*window, inner, groups, features // groups)
    # Counts by position in the window and input channel; channels are in the order of their groups.
    counts = jnp.moveaxis(jnp.sum(nonzero, -1, dtype=jnp.float32), -1, -2)
    if window:
        # Small whole numbers are exact in float32, and one matrix product replaces a loop.
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
    """Number of products of a connection, for one example at one timestep and position.

    Args:
        shape: Shape of the kernel, `[C, D]` or `[*window, C / groups, D]`.
        size: Size of the inputs, one number per spatial axis.
        strides: Strides, one per spatial axis.
        padding: `(low, high)` per spatial axis.

    Returns:
        The number, without products with zero padding.
    """
    reaches = _reaches(size, shape, strides, padding)
    return math.prod(int(reach.sum()) for reach in reaches) * math.prod(shape[-2:])


def attention_products(q: Array, k: Array, v: Array) -> Products:
    """Products of `(q k^T) v` per head, in the cheaper order of evaluation.

        d <= N:  q (k^T v)      sum over heads, n of |k_n| |v_n|,   then of [q_nc] |(k^T v)_c|
        d > N:   (q k^T) v      sum over heads, c of |q_c| |k_c|,   then of [(q k^T)_nm] |v_m|

    where `|a|` is the number of nonzero entries. The dense number is `2 N d min(N, d)` per head.
    The fixed scale of the product is not counted, since it can be folded into a threshold.

    Args:
        q: `[T, B, N, heads, d]`.
        k: `[T, B, N, heads, d]`.
        v: `[T, B, N, heads, d]`.

    Returns:
        `[T, B]`; binary if q, k and v are spikes: a product is then an addition where it is 1.
    """
    *rows, tokens, heads, size = q.shape
    number = 2 * heads * tokens * size * min(tokens, size)
    spikes = [jnp.all((a == 0) | (a == 1), (-3, -2, -1)) for a in (q, k, v)]
    nonzero = [(a != 0).astype(jnp.float32) for a in (q, k, v)]
    return Products(
        effective=_effective(*nonzero, by_token=size <= tokens).astype(jnp.uint32),
        dense=jnp.full(rows, number, jnp.uint32),
        binary=spikes[0] & spikes[1] & spikes[2],
    )


def multiplications(number: int, shape: Sequence[int]) -> Products:
    """A fixed number of real multiplications per example, independent of the values.

    Args:
        number: Multiplications for one example and timestep.
        shape: `[T, B]`.

    Returns:
        The counts; `binary` is False.
    """
    count = jnp.full(tuple(shape), number, jnp.uint32)
    return Products(count, count, jnp.zeros(tuple(shape), bool))


def membrane_updates(membrane: Array, *, lengths: Array | None = None) -> Array:
    """Number of membrane updates: timesteps at which a membrane potential changes.

        N + sum over t >= 1, i of [v[t, i] != v[t-1, i]],    N neurons, all updated at t = 0

    Args:
        membrane: `[T, B, ...]`, after the reset.
        lengths: `[B]` integers, valid timesteps of padded sequences; None is all T.

    Returns:
        `[B]`, uint32.
    """
    axes = (0, *range(2, membrane.ndim))
    changes = membrane[1:] != membrane[:-1]
    if lengths is not None:
        changes &= match_axes(mask(lengths, len(membrane))[1:], changes)
    moved = jnp.sum(changes, axes, dtype=jnp.uint32)
    # np.uint32: a Python int of 2^31 or more overflows JAX's default int32.
    return moved + np.uint32(np.prod(membrane.shape[2:], dtype=np.int64))


def neuron_operations(updates: float, *, model: str = "leaky", reset: str = "subtract") -> float:
    """Operations of neurons, a fixed number per membrane update.

    Args:
        updates: Number of updates, see `membrane_updates`; the number of neurons times timesteps
            gives dense operations.
        model: `"leaky"` (4), `"synaptic"` (6 or 8), `"lapicque"` (11), `"alpha"` (18 or 24).
        reset: `"subtract"` or `"zero"`.

    Returns:
        Operations.

    Raises:
        ValueError: If the model or the reset is unknown: NeuroBench defines no others.
    """
    if model not in _NEURON_OPERATIONS or reset not in _NEURON_OPERATIONS[model]:
        raise ValueError(
            f"neuron operations are defined for {', '.join(_NEURON_OPERATIONS)} with reset "
            f"subtract or zero, not for {model!r} with {reset!r}: leave them out for such neurons"
        )
    return updates * _NEURON_OPERATIONS[model][reset]


def _outputs(size: Sequence[int], shape: Sequence[int], strides: Sequence[int], padding: Pads):
    spatial = zip(size, shape[:-2], strides, padding, strict=True)
    return [(n + low + high - k) // s + 1 for n, k, s, (low, high) in spatial]


def _reaches(
    size: Sequence[int], shape: Sequence[int], strides: Sequence[int], padding: Pads
) -> list[np.ndarray]:
    """Masks `[size, window]` per spatial axis: True if a window position reads an input."""
    masks = []
    outputs = _outputs(size, shape, strides, padding)
    for n, k, s, (low, _), last in zip(size, shape[:-2], strides, padding, outputs, strict=True):
        output = np.arange(n)[:, None] + low - np.arange(k)[None, :]  # output index times stride
        masks.append((output % s == 0) & (output >= 0) & (output < last * s))
    return masks


def _sums(inputs: Array, fan: Array) -> Sequence[Array]:
    """Sums over inputs, `[T, B]` each: products, nonzero, neither 0 nor +-1, -1, and a checksum."""
    # One reduction of all five compiles five times as fast as five reductions.
    flat = inputs.reshape(*inputs.shape[:2], -1).astype(jnp.float32)
    active, fan = flat != 0, fan.reshape(-1)
    real, signed = active & (jnp.abs(flat) != 1), flat == -1
    columns = [jnp.where(active, fan, 0), active, real, signed, _mixed(flat)]
    zeros = [np.uint32(0)] * len(columns)
    add = lambda a, b: [x + y for x, y in zip(a, b, strict=True)]  # noqa: E731
    return jax.lax.reduce([c.astype(jnp.uint32) for c in columns], zeros, add, (2,))


def checksum(inputs: Array) -> Array:
    """Checksum of arrays `[T, B, ...]`, as in `Operations`; unchanged by a reshape of `...`."""
    flat = inputs.reshape(*inputs.shape[:2], -1).astype(jnp.float32)
    return jnp.sum(_mixed(flat), -1, dtype=jnp.uint32)


def _mixed(flat: Array) -> Array:
    """Hash of each element with its position; the sum over elements is the checksum."""
    # -0.0 equals 0.0 and must have the same bits.
    bits = jax.lax.bitcast_convert_type(jnp.where(flat == 0, 0, flat), jnp.uint32)
    place = jnp.arange(bits.shape[-1], dtype=jnp.uint32)
    # Odd multipliers and xor-shifts of a 32-bit finalizer: every input bit changes half the output.
    mixed = bits * np.uint32(0x9E3779B1) + place * np.uint32(0x85EBCA6B)
    for factor in (0x7FEB352D, 0x846CA68B):
        mixed = (mixed ^ (mixed >> np.uint32(15))) * np.uint32(factor)
    return mixed ^ (mixed >> np.uint32(16))


def _effective(q: Array, k: Array, v: Array, *, by_token: bool) -> Array:
    """Effective products of nonzero masks, uint32."""
    # The einsums decide only between zero and nonzero; the counts are summed as integers, since
    # float32 sums round above 2^24.
    if by_token:
        inner = jnp.einsum("...nhc,...nhd->...hcd", k, v, precision="highest") > 0.5
        first = _whole(k).sum(-1) * _whole(v).sum(-1)  # [..., N, heads]
        second = _whole(q).sum(-3) * _whole(inner).sum(-1)  # [..., heads, d]
    else:
        scores = jnp.einsum("...nhc,...mhc->...hnm", q, k, precision="highest") > 0.5
        first = _whole(q).sum(-3) * _whole(k).sum(-3)
        second = _whole(scores).sum(-2) * jnp.swapaxes(_whole(v).sum(-1), -1, -2)
    axes = (-2, -1)
    return jnp.sum(first, axes, dtype=jnp.uint32) + jnp.sum(second, axes, dtype=jnp.uint32)


def _whole(values: Array) -> Array:
    return values.astype(jnp.uint32)
