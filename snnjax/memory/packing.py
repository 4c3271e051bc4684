"""Packed residuals: spikes at one bit each, real values at two bytes or one.

    "spikes"      1 bit, and one byte      exact
    "bfloat16"    2 bytes                  |error| <= 2^-8 |x|
    "int8"        1 byte and one scale     |error| <= max|x| / 254

The derivative of a synapse with respect to its weights needs its inputs. `packed` keeps them in few
bits and unpacks them in the backward pass. It recomputes all other residuals of the function, so
wrap one synapse at a time: a linear map has no other residuals.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from snnjax.ops.arguments import is_traced
from snnjax.ops.derivative import refuse_derivative
from snnjax.ops.trees import combine, nan_unless, partition, value_and_pullback
from snnjax.typing import Array, PyTree

__all__ = [
    "ArraySpec",
    "PackedFunction",
    "Storage",
    "decode_spikes",
    "encode_spikes",
    "pack",
    "packed",
    "unpack",
    "unpack_straight_through",
]

Storage = Literal["spikes", "bfloat16", "int8"]
"""Storage of a kept array."""
_STORAGES = ("spikes", "bfloat16", "int8")
_NO_DERIVATIVE = (
    "packed inputs have no second derivative, since their bits have none: do not pack (pack=False, "
    "or a strategy without pack) where second derivatives are taken"
)


def pack(spikes: Array, *, order: int = 2) -> Array:
    """Packs spikes of any shape to bits, uint8 `[ceil(N / 8)]`; every nonzero value is a spike.

    Args:
        spikes: Spikes.
        order: Lowest order of the derivative that is refused, see `ops.derivative`: bits have none,
            so what is unpacked from them would be a constant.
    """
    spikes = refuse_derivative(spikes, reason=_NO_DERIVATIVE, order=order)
    # Flat: packing along one axis would pad each row to a multiple of 8.
    return jnp.packbits(spikes.reshape(-1) != 0)


def unpack(bits: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Unpacks bits from `pack` to spikes, 0 or 1, of the given shape and dtype."""
    return jnp.unpackbits(bits, count=math.prod(shape)).reshape(shape).astype(dtype)


def encode_spikes(spikes: Array, *, order: int = 2) -> tuple[Array, Array]:
    """Packs spikes for a derivative.

    Args:
        spikes: Spikes, 0 or 1.
        order: As for `pack`.

    Returns:
        The bits, and a boolean scalar, True if every entry is 0 or 1.

    Raises:
        TypeError: Integers, which may be counts.
        ValueError: An entry is neither 0 nor 1. Known outside of `jax.jit` only; inside, what
            `decode_spikes` returns is NaN.
    """
    if jnp.issubdtype(spikes.dtype, jnp.integer):
        raise TypeError(
            f"one bit per input keeps spikes, and {spikes.dtype} may hold counts: cast spikes to "
            "bool or float32, or do not pack (pack=False)"
        )
    binary = jnp.all((spikes == 0) | (spikes == 1))
    if not is_traced(binary) and not binary:
        raise ValueError(
            "one bit per input keeps spikes, and these inputs are not all 0 or 1: do not pack them "
            '(pack=False), or keep them in two bytes (pack="bfloat16")'
        )
    return pack(spikes, order=order), binary


def decode_spikes(kept: tuple[Array, Array], shape: tuple[int, ...], dtype: Any) -> Array:
    """Unpacks spikes from `encode_spikes`; NaN if they were not all 0 or 1, in a floating dtype."""
    bits, binary = kept
    return nan_unless(binary, unpack(bits, shape, dtype))


@jax.custom_vjp
def unpack_straight_through(bits: Array, spikes: Array) -> Array:
    """Unpacks spikes, `unpack(pack(spikes))`, with the gradient of the identity.

    Under `jax.checkpoint` a derivative then keeps the bits instead of the spikes:

        bits = pack(spikes)
        run = lambda bits, spikes: f(unpack_straight_through(bits, spikes))
        outputs = jax.checkpoint(run)(bits, spikes)

    Args:
        bits: Packed spikes, uint8 `[ceil(N / 8)]`.
        spikes: Spikes, whose shape and dtype are read and to which the gradient passes.
    """
    return unpack(bits, spikes.shape, spikes.dtype)


unpack_straight_through.defvjp(
    lambda bits, spikes: (unpack(bits, spikes.shape, spikes.dtype), None),
    lambda _, cotangent: (None, cotangent),
)


def packed(
    function: Callable[[PyTree, Array], Array], *, storage: Storage = "spikes"
) -> PackedFunction:
    """Wraps a function so that its derivative keeps the inputs in few bits.

        "spikes"      ceil(N / 8) + 1 bytes of N inputs instead of 4 N; exact
        "bfloat16"    2 N bytes, |error| <= 2^-8 |x|
        "int8"        N + 4 bytes, |error| <= max|x| / 254

    With `"spikes"` and inputs of 0 and 1, values and gradients are bit-equal to those of the
    function; with other inputs the gradient is NaN, and outside of `jax.jit` an error. With
    `"bfloat16"` and `"int8"` the values are exact and the derivative is taken at the rounded
    inputs: for a linear map the gradient of the inputs is exact, and that of the weights is the
    weighted sum of inputs with the error above.

    It works inside `lax.scan` and under every strategy of `snnjax.memory`, at the cost of packing
    and of recomputing the function's other residuals. Do not use it for forward-mode
    differentiation, for second derivatives (refused, except with `"bfloat16"`), nor real-valued
    storage around a threshold: a replay at a rounded input flips spikes.

    Args:
        function: Pure function `(params, inputs) -> outputs`: convolution, linear map, attention,
            pooling.
        storage: Storage of the inputs; `"spikes"` is for inputs of 0 and 1.

    Returns:
        The function of `(params, inputs)` with the packed derivative; equal arguments give equal
        functions.

    Raises:
        ValueError: The storage is unknown; when called, as for `encode_spikes`.
        TypeError: When called, as for `encode_spikes`.

    Reference:
        Huang, Fang, Hao, Ma, Tian, "Towards Lossless Memory-efficient Training of Spiking Neural
        Networks via Gradient Checkpointing and Spike Compression", ICLR 2026.
    """
    if storage not in _STORAGES:
        raise ValueError(f"storage must be one of {', '.join(_STORAGES)}, got {storage!r}")
    return PackedFunction(function, storage)


@dataclasses.dataclass(frozen=True)
class PackedFunction:
    """Function whose derivative keeps the inputs in few bits, made by `packed`."""

    function: Callable[[PyTree, Array], Array]
    storage: Storage = "spikes"

    def __call__(self, params: PyTree, inputs: Array) -> Array:
        """Calls the function."""
        inexact, others = partition(params)
        return _apply(self.function, self.storage, inexact, others, inputs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _apply(function, storage, inexact, others, inputs):
    del storage
    return function(combine(inexact, others), inputs)


def _apply_forward(function, storage, inexact, others, inputs):
    outputs = function(combine(inexact, others), inputs)
    # The code holds neither the number of spikes nor the dtype of the inputs.
    spec = ArraySpec.from_array(inputs)
    return outputs, (inexact, others, _encode(inputs, storage), spec)


def _apply_backward(function, storage, residuals, cotangents):
    inexact, others, code, spec = residuals
    inputs = _decode(code, storage, spec)
    # The whole function is differentiated at the decoded inputs: its other residuals are recomputed
    # here.
    args = combine(inexact, others), inputs
    _, (g_params, g_inputs) = value_and_pullback(function, *args, cotangents=cotangents)
    if storage == "spikes" and g_inputs is not None and not jax.tree.leaves(g_params):
        # NaN inputs need not reach this gradient: a maximum, for one, only compares them.
        g_inputs = nan_unless(code[1], g_inputs)
    return g_params, None, g_inputs


_apply.defvjp(_apply_forward, _apply_backward)


def _encode(inputs: Array, storage: Storage) -> Any:
    # Of order 1: a derivative rule runs its forward pass undifferentiated.
    if storage == "spikes":
        return encode_spikes(inputs, order=1)
    if storage == "bfloat16":
        return inputs.astype(jnp.bfloat16)
    inputs = refuse_derivative(inputs, reason=_NO_DERIVATIVE)
    scale = jnp.max(jnp.abs(inputs)) / 127
    # All zeros have the scale 0, which would make the levels NaN.
    levels = jnp.round(inputs / jnp.where(scale == 0, 1, scale))
    return levels.astype(jnp.int8), scale


def _decode(code: Any, storage: Storage, spec: ArraySpec) -> Array:
    if storage == "spikes":
        return decode_spikes(code, spec.shape, spec.dtype)
    if storage == "bfloat16":
        return code.astype(spec.dtype)
    levels, scale = code
    return levels.astype(spec.dtype) * scale


# Static: shape and dtype reach the backward pass in the structure of the residuals.
@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class ArraySpec:
    """Shape and dtype of an array, a static pytree node."""

    shape: tuple[int, ...]
    dtype: Any

    @classmethod
    def from_array(cls, array: Any) -> ArraySpec:
        """Shape and dtype of an array or a `jax.ShapeDtypeStruct`."""
        return cls(tuple(array.shape), array.dtype)
