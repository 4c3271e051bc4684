"""Rounding to two-byte floats, repeatable bit for bit, and products accumulated in float32.

XLA may keep a narrow float in float32 inside a fusion, so a plain cast rounds where fusions end: at
one place in the forward pass and at another in its replay. `narrow` rounds explicitly, so both
passes compute the same numbers.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from snnjax.typing import Array, PyTree

__all__ = [
    "accumulation_dtype",
    "add_bias",
    "is_narrow",
    "match_varying",
    "narrow",
    "product",
    "promote",
    "refuse_narrow",
    "wide_array",
    "widen",
    "widen_to",
]


def match_varying(*arrays: Array) -> list[Array]:
    """Marks arrays within `jax.shard_map` as varying over the union of their mesh axes."""
    # Autodiff inserts these casts itself; a custom derivative and the carry of a scan need them.
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return list(arrays)
    varying = [jax.typeof(a).manual_axis_type.varying for a in arrays]
    every = frozenset().union(*varying)
    missing = (tuple(every - names) for names in varying)
    pairs = zip(arrays, missing, strict=True)
    return [lax.pcast(a, names, to="varying") if names else a for a, names in pairs]


def accumulation_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """Dtype in which to accumulate values of a floating dtype: float32 or wider."""
    return jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else dtype


def is_narrow(array: Any) -> bool:
    """True if the dtype of an array is floating with fewer than 32 bits."""
    floating = jnp.issubdtype(array.dtype, jnp.floating)
    return bool(floating and jnp.finfo(array.dtype).bits < 32)


def refuse_narrow(state: Any) -> None:
    """Refuses a state that is to be reconstructed from a later one and has too few bits for it.

    Raises:
        ValueError: A leaf is floating with fewer than 32 bits.
    """
    for leaf in jax.tree.leaves(state):
        dtype = jnp.result_type(leaf)
        if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32:
            raise ValueError(
                f"a state in {dtype} cannot be undone, since every step back adds a rounding "
                "error that moves spikes: keep states in float32 (nn.with_precision does), or use "
                "memory.recompute(every)"
            )


def widen(x: Array) -> Array:
    """Casts narrow floats to float32 and leaves all other arrays unchanged."""
    return x.astype(accumulation_dtype(x.dtype)) if is_narrow(x) else x


def wide_array(value: Any) -> Array:
    """A number as a float32 array; an array in its own dtype, at least float32."""
    is_number = isinstance(value, int | float)
    return jnp.asarray(value, jnp.float32) if is_number else widen(jnp.asarray(value))


def widen_to(tree: PyTree, dtype: Any) -> PyTree:
    """Casts floating arrays with fewer bits than a dtype to it; numbers stay numbers.

    A dtype that is not floating changes nothing.

    States at rest and parameters are float32; a scan over float64 currents needs them in float64.
    """
    bits = jnp.finfo(dtype).bits if jnp.issubdtype(dtype, jnp.floating) else 0

    def widened(leaf: Any) -> Any:
        own = getattr(leaf, "dtype", None)
        narrower = own is not None and jnp.issubdtype(own, jnp.floating)
        return leaf.astype(dtype) if narrower and jnp.finfo(own).bits < bits else leaf

    return jax.tree.map(widened, tree)


def narrow(x: Array, dtype: Any) -> Array:
    """Rounds to a floating dtype, to nearest with ties to even.

    Args:
        x: Floating array.
        dtype: Dtype of the result; 32 bits or more are a plain cast. Values beyond the largest
            float16, 65504, become infinite.
    """
    info = jnp.finfo(dtype)
    if info.bits >= 32:
        return x.astype(dtype)
    # XLA must not elide `reduce_precision`, as it may a pair of casts. It keeps the exponents of
    # float32, since those of float16 would flush its subnormals to zero: values below 2^-14 are
    # rounded twice, here and by the cast.
    rounded = lax.reduce_precision(widen(x), exponent_bits=8, mantissa_bits=info.nmant)
    return rounded.astype(dtype)


def product(inputs: Array, kernel: Array) -> Array:
    """Computes `inputs @ kernel` in the dtype of the inputs, accumulated in at least float32.

    The residual is the inputs in their own dtype. The products of the derivative have operands of
    that dtype too, and the gradient of the kernel is not rounded.

    Args:
        inputs: Inputs `[..., I]`, any floating dtype.
        kernel: Kernel `[I, O]`, any floating dtype; rounded to that of the inputs.

    Returns:
        Outputs `[..., O]`, in at least float32.
    """
    inputs, kernel = match_varying(inputs, kernel)
    return _product(inputs, kernel)


@jax.custom_vjp
def _product(inputs: Array, kernel: Array) -> Array:
    return _product_forward(inputs, kernel)[0]


def _product_forward(inputs: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _dot(inputs, narrow(kernel, inputs.dtype), -1, 0), (inputs, kernel)


def _product_backward(residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    inputs, kernel = residuals
    g = narrow(g, inputs.dtype)
    g_inputs = _dot(g, narrow(kernel, inputs.dtype), -1, 1)
    rows, columns = (a.reshape(-1, a.shape[-1]) for a in (inputs, g))
    return narrow(g_inputs, inputs.dtype), _dot(rows, columns, 0, 0).astype(kernel.dtype)


# The rule does not call the function itself, which forward mode over the gradient would refuse.
_product.defvjp(_product_forward, _product_backward)


def _dot(a: Array, b: Array, left: int, right: int) -> Array:
    axes = ((left % a.ndim,), (right,))
    wide = accumulation_dtype(a.dtype)
    return lax.dot_general(a, b, (axes, ((), ())), preferred_element_type=wide)


def promote(kernel: Array, dtype: Any) -> Array:
    """Casts a kernel to a dtype unless the kernel has more bits."""
    return kernel if jnp.finfo(kernel.dtype).bits > jnp.finfo(dtype).bits else kernel.astype(dtype)


def add_bias(outputs: Array, bias: Array | None, dtype: Any) -> Array:
    """Adds a bias in at least float32 and rounds the sum once, to a dtype."""
    if bias is None:
        return narrow(outputs, dtype)
    total = widen(outputs)
    return narrow(total + bias.astype(total.dtype), dtype)
