"""Floating-point operations of a computation, counted from its trace.

    dot product, convolution     2 per multiply-add
    any other operation          1 per element of its output

XLA's own count visits the body of a loop once; this one multiplies by the length of every scan. The
count compares strategies, it is not a time: a replayed forward pass appears as its operations.
Nothing is compiled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Var

__all__ = ["count", "count_operations", "inner_jaxprs"]


def count_operations(function: Callable[..., Any], *args: Any) -> float:
    """Floating-point operations of `function(*args)`.

    Args:
        function: Function to trace; a condition counts its most expensive branch, a while loop one
            trip.
        *args: Arguments, arrays or `jax.ShapeDtypeStruct`s.

    Example:
        extra = count_operations(jax.grad(recomputed), x) - count_operations(jax.grad(stored), x)
    """
    return count(jax.make_jaxpr(function)(*args))


def count(traced: ClosedJaxpr) -> float:
    """Floating-point operations of a trace from `jax.make_jaxpr` or `jax.jit(...).trace`."""
    return _count(traced.jaxpr)


def _count(jaxpr: Jaxpr) -> float:
    total, live = 0.0, {v for v in jaxpr.outvars if isinstance(v, Var)}
    # Backwards, to skip equations whose results are unused: XLA does not compute them.
    for equation in reversed(jaxpr.eqns):
        if live.intersection(equation.outvars) or equation.effects:
            live.update(v for v in equation.invars if isinstance(v, Var))
            total += _equation(equation)
    return total


def _equation(equation: Any) -> float:
    name, parameters = equation.primitive.name, equation.params
    inner = [_count(jaxpr) for jaxpr in inner_jaxprs(parameters)]
    if name == "cond":
        return max(inner)
    if inner:
        return parameters["length"] * inner[0] if name == "scan" else sum(inner)
    outputs = sum(_size(v) for v in equation.outvars)
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2 * outputs * math.prod(shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        features = kernel[parameters["dimension_numbers"].rhs_spec[0]]
        return 2 * outputs * math.prod(kernel) / features
    return outputs


def inner_jaxprs(parameters: dict[str, Any]) -> Iterator[Jaxpr]:
    """Computations inside an operation, such as the body of a loop."""
    # Derivative rules are functions, not jaxprs, so they are not counted.
    for value in parameters.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item


def _size(variable: Any) -> int:
    return math.prod(getattr(variable.aval, "shape", ()))
