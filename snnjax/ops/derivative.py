"""Derivatives by definition: of a value that has none by itself, and of one that must not be taken.

    with_derivative(value, x, slope)    y = value,    dy := slope(x) dx,    at every order
    refuse_derivative(x, reason)        y = x,        and an error where a derivative needs dy

Both are primitives. `jax.custom_jvp` states a derivative too, but JAX forgets the rule of a
function that it has partially evaluated, as reverse mode does in `lax.scan` and `jax.checkpoint`: a
second derivative there would take a spike for a constant. The rules of a primitive stay with it.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from snnjax.ops.rounding import match_varying
from snnjax.typing import Array, PyTree

__all__ = ["in_kernel", "refuse_derivative", "refuse_second_derivative", "with_derivative"]


def with_derivative(
    value: Array, x: Array, *, slope: Callable[[Array], Array] | None = None
) -> Array:
    """Returns a value with the derivative of another array.

        y = value,    dy := slope(x) dx

    The compiled program contains neither `x` nor the slope until a derivative reads them.

    Args:
        value: Value of the result; its own derivative is ignored.
        x: Array of the same shape and dtype.
        slope: Differentiable elementwise function, whose derivatives are the higher ones of the
            result; a comparable function, not a lambda. None is 1.
    """
    value, x = match_varying(jnp.asarray(value), jnp.asarray(x))
    if _IN_KERNEL.get():
        return _kernel_rule(slope, value, x)
    return _with_derivative.bind(value, x, slope=slope)


@contextlib.contextmanager
def in_kernel() -> Iterator[None]:
    """Context of a Pallas kernel, where `with_derivative` holds at the first order only."""
    token = _IN_KERNEL.set(True)
    try:
        yield
    finally:
        _IN_KERNEL.reset(token)


# Pallas compiles no primitive but those of JAX.
_IN_KERNEL = contextvars.ContextVar("in_kernel", default=False)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _kernel_rule(slope: Any, value: Array, x: Array) -> Array:
    del slope, x
    return value


@_kernel_rule.defjvp
def _kernel_jvp(slope, primals, tangents):
    (value, x), (_, dx) = primals, tangents
    return value, dx if slope is None else slope(x) * dx


def refuse_second_derivative(tree: PyTree, reason: str) -> PyTree:
    """Arguments of the forward pass of a derivative rule, whose derivative would be the second."""
    return jax.tree.map(lambda x: refuse_derivative(x, reason=reason), tree)


def refuse_derivative(x: Array, *, reason: str, order: int = 1) -> Array:
    """Returns an array of which no derivative of an order, and none above it, can be taken.

    Args:
        x: Any array.
        reason: Text of the error, with its cure.
        order: Lowest order refused. A derivative rule (`jax.custom_vjp`) runs its forward pass
            undifferentiated, so that the second derivative of its function is the first one there.

    Raises:
        TypeError: Such a derivative was requested (raised while differentiating).
    """
    return _refuse_derivative.bind(x, reason=reason, order=order)


_with_derivative = Primitive("with_derivative")
_with_derivative.def_impl(lambda value, x, *, slope: value)
# The compiler drops an operand that nobody reads.
mlir.register_lowering(_with_derivative, lambda ctx, value, x, *, slope: [value])


@_with_derivative.def_abstract_eval
def _abstract(value, x, *, slope):
    del slope
    if (value.shape, value.dtype) != (x.shape, x.dtype):
        raise TypeError(
            "a value and its derivative have one shape and dtype, got "
            f"{value.str_short()} and {x.str_short()}"
        )
    return value.update(weak_type=False)


def _jvp(primals, tangents, *, slope):
    (value, x), (_, dx) = primals, tangents
    # The primitive again, not the value: the next derivative must find the rule, too.
    y = _with_derivative.bind(value, x, slope=slope)
    if isinstance(dx, ad.Zero):
        return y, ad.Zero(jax.typeof(y).to_tangent_aval())
    return y, dx if slope is None else slope(x) * dx


ad.primitive_jvps[_with_derivative] = _jvp


def _batch(arrays, axes, *, slope):
    (size,) = {a.shape[i] for a, i in zip(arrays, axes, strict=True) if i is not None}
    if axes[0] != axes[1]:
        arrays = [
            jnp.broadcast_to(a, (size, *a.shape)) if i is None else jnp.moveaxis(a, i, 0)
            for a, i in zip(arrays, axes, strict=True)
        ]
        axes = (0, 0)
    return _with_derivative.bind(*arrays, slope=slope), axes[0]


batching.primitive_batchers[_with_derivative] = _batch

_refuse_derivative = Primitive("refuse_derivative")
_refuse_derivative.def_impl(lambda x, **_: x)
_refuse_derivative.def_abstract_eval(lambda x, **_: x)
mlir.register_lowering(_refuse_derivative, lambda ctx, x, **_: [x])
batching.defvectorized(_refuse_derivative)


def _refusing_jvp(primals: Any, tangents: Any, *, reason: str, order: int):
    (x,), (dx,) = primals, tangents
    if isinstance(dx, ad.Zero):
        return _refuse_derivative.bind(x, reason=reason, order=order), dx
    if order == 1:
        raise TypeError(reason)
    return _refuse_derivative.bind(x, reason=reason, order=order - 1), dx


ad.primitive_jvps[_refuse_derivative] = _refusing_jvp
