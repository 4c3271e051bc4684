"""How much a computation computes: floating-point operations, counted from its trace.

    dot product, convolution     2 per product that is summed
    any other operation          1 per element of its output

XLA's own count passes over a loop's body once; this one multiplies by the length of every scan. It
is a measure to compare strategies by, not a time: a forward pass that is run again shows as so many
operations more. Nothing is compiled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Var

__all__ = ["count", "operations", "parts"]


def operations(function: Callable[..., Any], *args: Any) -> float:
    """Floating-point operations of `function(*args)`.

    Args:
        function: what to trace; of branches the longer one counts, and of a while loop one trip.
        args: arrays, or `jax.ShapeDtypeStruct`s in their place.

    Example:
        extra = operations(jax.grad(recomputed), x) - operations(jax.grad(stored), x)
    """
    return count(jax.make_jaxpr(function)(*args))


def count(traced: ClosedJaxpr) -> float:
    """The same of what was traced already, by `jax.make_jaxpr` or `jax.jit(...).trace`."""
    return _count(traced.jaxpr)


def _count(jaxpr: Jaxpr) -> float:
    total, live = 0.0, {v for v in jaxpr.outvars if isinstance(v, Var)}
    for equation in reversed(jaxpr.eqns):  # what nobody looks at is not computed
        if live.intersection(equation.outvars) or equation.effects:
            live.update(v for v in equation.invars if isinstance(v, Var))
            total += _equation(equation)
    return total


def _equation(equation: Any) -> float:
    name, parameters = equation.primitive.name, equation.params
    inner = [_count(part) for part in parts(parameters)]
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


def parts(parameters: dict[str, Any]) -> Iterator[Jaxpr]:
    """The computations inside an operation; a derivative rule that is not run is not one."""
    for value in parameters.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item


def _size(variable: Any) -> int:
    return math.prod(getattr(variable.aval, "shape", ()))
