"""Rounding to two-byte floats that a replay repeats bit for bit; products summed in float32."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from snnjax.typing import Array

__all__ = [
    "add_bias",
    "at_least",
    "is_narrow",
    "narrow",
    "product",
    "vary_alike",
    "wide",
    "widen",
]


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


def is_narrow(array: Any) -> bool:
    """Whether it is floating with fewer than 32 bits."""
    floating = jnp.issubdtype(array.dtype, jnp.floating)
    return bool(floating and jnp.finfo(array.dtype).bits < 32)


def widen(x: Array) -> Array:
    """The same numbers in at least float32; others than narrow floats stay as they are."""
    return x.astype(wide(x.dtype)) if is_narrow(x) else x


def narrow(x: Array, dtype: Any) -> Array:
    """Rounds to a dtype, to the nearest number that it has and among two to the even one.

    Args:
        x: any floating array.
        dtype: of the result; at least 32 bits are a plain cast. Beyond the largest float16, 65504,
            lies infinity.
    """
    info = jnp.finfo(dtype)
    if info.bits >= 32:
        return x.astype(dtype)
    # With float32's exponents, as the shorter ones would flush the smallest float16 to zero: those
    # below 2^-14 are rounded twice, here and by the cast.
    rounded = lax.reduce_precision(widen(x), exponent_bits=8, mantissa_bits=info.nmant)
    return rounded.astype(dtype)


def product(inputs: Array, kernel: Array) -> Array:
    """`inputs @ kernel` with operands in the dtype of the inputs, summed in at least float32.

    The derivative keeps the inputs as they are; its own products have operands of that dtype too,
    and the kernel's gradient is not rounded.

    Args:
        inputs: `[..., I]`, any floating dtype.
        kernel: `[I, O]`, of any; rounded to that of the inputs.

    Returns:
        `[..., O]`, in at least float32.
    """
    inputs, kernel = vary_alike(inputs, kernel)
    return _product(inputs, kernel)


@jax.custom_vjp
def _product(inputs: Array, kernel: Array) -> Array:
    return _dot(inputs, narrow(kernel, inputs.dtype), -1, 0)


def _product_backward(kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    inputs, kernel = kept
    g = narrow(g, inputs.dtype)
    g_inputs = _dot(g, narrow(kernel, inputs.dtype), -1, 1)
    rows, columns = (a.reshape(-1, a.shape[-1]) for a in (inputs, g))
    return narrow(g_inputs, inputs.dtype), _dot(rows, columns, 0, 0).astype(kernel.dtype)


_product.defvjp(lambda inputs, kernel: (_product(inputs, kernel), (inputs, kernel)),
                _product_backward)  # fmt: skip


def _dot(a: Array, b: Array, left: int, right: int) -> Array:
    axes = ((left % a.ndim,), (right,))
    return lax.dot_general(a, b, (axes, ((), ())), preferred_element_type=wide(a.dtype))


def at_least(kernel: Array, dtype: Any) -> Array:
    """A kernel, cast where it has fewer bits than what it is multiplied with."""
    return kernel if jnp.finfo(kernel.dtype).bits > jnp.finfo(dtype).bits else kernel.astype(dtype)


def add_bias(outputs: Array, bias: Array | None, dtype: Any) -> Array:
    """`outputs + bias`, added in at least float32 and rounded once, to a dtype."""
    if bias is None:
        return narrow(outputs, dtype)
    total = widen(outputs)
    return narrow(total + bias.astype(total.dtype), dtype)
