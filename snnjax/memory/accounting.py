"""Accounting of a computation: bytes once compiled, residuals of its derivative, operations.

    total = arguments + outputs + temporaries - aliased
    dot product, convolution     2 operations per multiply-add
    any other operation          1 per element of its output

Nothing runs. The bytes are XLA's own memory analysis, deterministic for one version and device.
Operations are counted from the trace, without compilation: XLA's own count visits the body of a
loop once, this one multiplies by the length of every scan. The count compares strategies, it is not
a time: a replayed forward pass appears as its operations.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.ad_checkpoint
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Var

from snnjax.ops.programs import make_room

__all__ = [
    "MemoryUse",
    "Residual",
    "compiled_memory",
    "count",
    "count_operations",
    "device_peak",
    "inner_jaxprs",
    "measure",
    "residuals",
]


@dataclasses.dataclass(frozen=True)
class MemoryUse:
    """Bytes of a compiled computation on one device.

    Attributes:
        argument_bytes: Bytes of the inputs.
        output_bytes: Bytes of the outputs.
        temp_bytes: Bytes of temporaries at their peak.
        alias_bytes: Bytes of outputs that overwrite donated inputs.
        samples: Number of examples in the batch, or None.
    """

    argument_bytes: int
    output_bytes: int
    temp_bytes: int
    alias_bytes: int
    samples: int | None = None

    @property
    def total_bytes(self) -> int:
        """Bytes of arguments, outputs and temporaries, with aliased buffers counted once."""
        return self.argument_bytes + self.output_bytes + self.temp_bytes - self.alias_bytes

    @property
    def bytes_per_sample(self) -> float | None:
        """Total bytes per example, parameters included."""
        return None if self.samples is None else self.total_bytes / self.samples


@dataclasses.dataclass(frozen=True)
class Residual:
    """Array kept by the forward pass for the backward pass.

    Attributes:
        nbytes: Size in bytes.
        shape: Shape.
        dtype: Name of the dtype.
        source: Operation and source line of its origin.
    """

    nbytes: int
    shape: tuple[int, ...]
    dtype: str
    source: str


def measure(
    function: Callable[..., Any],
    *args: Any,
    samples: int | None = None,
    compiler_options: dict[str, Any] | None = None,
) -> MemoryUse:
    """Measures the memory of `function(*args)` by compiling it, without running it.

    Args:
        function: Function to compile, such as a gradient or a train step; jitted unless it already
            is.
        *args: Arguments, arrays or `jax.ShapeDtypeStruct`s.
        samples: Number of examples in the batch, for the bytes per sample.
        compiler_options: XLA options of the outermost jit, such as the memory-optimised scheduler.

    Returns:
        Bytes of arguments, outputs and temporaries.

    Raises:
        NotImplementedError: The backend does not report the memory of compiled code.

    Example:
        stored = memory.measure(jax.grad(loss), params, batch)
    """
    make_room()
    # A second jit around a jitted function would drop its donation and its compiler options.
    jitted = function if hasattr(function, "lower") else jax.jit(function)
    return compiled_memory(jitted.lower(*args).compile(compiler_options=compiler_options), samples)


def compiled_memory(compiled: Any, samples: int | None) -> MemoryUse:
    """Memory of an already compiled computation, `jax.jit(f).lower(...).compile()`.

    Args:
        compiled: Compiled computation.
        samples: Number of examples in the batch, or None.

    Raises:
        NotImplementedError: The backend does not report the memory of compiled code.
    """
    analysis = compiled.memory_analysis()
    if analysis is None:
        raise NotImplementedError(
            f"{jax.default_backend()} does not report compiled memory: measure on a CPU"
        )
    # `peak_memory_in_bytes` is left out: on a CPU it reads the inputs only.
    return MemoryUse(
        analysis.argument_size_in_bytes,
        analysis.output_size_in_bytes,
        analysis.temp_size_in_bytes,
        analysis.alias_size_in_bytes,
        samples,
    )


def device_peak(*, device: Any = None) -> int | None:
    """Peak bytes in use on a device since the process began; None where it reports none.

    GPUs and TPUs report it, CPUs do not. The peak never falls, so run the leanest computation
    first.

    Args:
        device: Device; None is the first one.
    """
    # `memory_stats` is None on a CPU.
    stats = (jax.devices()[0] if device is None else device).memory_stats() or {}
    return stats.get("peak_bytes_in_use")


def residuals(function: Callable[..., Any], *args: Any, largest: int = 10) -> list[Residual]:
    """Lists the residuals that differentiating a function keeps, before XLA optimises it.

    Args:
        function: Function of pytrees with inexact leaves.
        *args: Arguments, arrays or `jax.ShapeDtypeStruct`s.
        largest: Number of residuals to list.

    Returns:
        The largest residuals in descending order, with the operation and source line reported by
        `jax.ad_checkpoint.print_saved_residuals`; without arguments of the function and literals.
    """
    # JAX has no public function that returns this list; the printed form is the public one.
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        jax.ad_checkpoint.print_saved_residuals(function, *args)
    matches = (_LINE.match(line.strip()) for line in out.getvalue().splitlines())
    listed = [_residual(*match.groups()) for match in matches if match]
    # "from the argument x", "from a literal": these arrays exist anyway.
    listed = [r for r in listed if not r.source.startswith("from ")]
    return sorted(listed, key=lambda r: -r.nbytes)[:largest]


# "f32[4,8]{V:data} output of mul from file.py:12:3 (function)"
_LINE = re.compile(r"([a-z]+[a-z0-9_]*)\[([0-9,]*)\]\S*\s+(.*)")
# Short names of `print_saved_residuals`, without their number of bits.
_KINDS = {"f": "float", "bf": "bfloat", "i": "int", "u": "uint", "c": "complex"}


def _residual(short: str, dimensions: str, source: str) -> Residual:
    shape = tuple(int(n) for n in dimensions.split(",") if n)
    kind, bits = re.fullmatch(r"([a-z]+)(.*)", short).groups()  # type: ignore[union-attr]
    dtype = "bool" if short in ("bool", "pred") else _KINDS.get(kind, kind) + bits
    try:
        itemsize = jnp.dtype(dtype).itemsize
    except TypeError:  # a key, or a type of a newer JAX
        itemsize = 0
    size = itemsize
    for n in shape:
        size *= n
    return Residual(size, shape, dtype, source)


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
