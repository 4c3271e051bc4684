"""What a computation needs, from its compilation alone: nothing is run.

    total = arguments + outputs + temporaries - aliased

The numbers are XLA's own memory analysis, deterministic for one version and device. On a CPU its
field for the peak reads the inputs only and is not used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.ad_checkpoint
import jax.numpy as jnp

__all__ = ["Measured", "Residual", "analysed", "device_peak", "measure", "residuals"]


@dataclasses.dataclass(frozen=True)
class Measured:
    """Bytes of a compiled computation on one device.

    Attributes:
        argument_bytes: its inputs.
        output_bytes: its outputs.
        temp_bytes: everything in between, at its peak.
        alias_bytes: outputs that take the place of donated inputs.
        samples: examples in the batch, if given.
    """

    argument_bytes: int
    output_bytes: int
    temp_bytes: int
    alias_bytes: int
    samples: int | None = None

    @property
    def total_bytes(self) -> int:
        """Arguments, outputs and temporaries, what is aliased counted once."""
        return self.argument_bytes + self.output_bytes + self.temp_bytes - self.alias_bytes

    @property
    def bytes_per_sample(self) -> float | None:
        """Total bytes divided by the examples; parameters are shared out, too."""
        return None if self.samples is None else self.total_bytes / self.samples


@dataclasses.dataclass(frozen=True)
class Residual:
    """An array that the backward pass keeps.

    Attributes:
        nbytes: its size.
        shape: its shape.
        dtype: its dtype, by name.
        source: what made it, and where.
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
) -> Measured:
    """Compiles `function(*args)` and reads its bytes off; nothing runs.

    Args:
        function: what to compile, such as a gradient or a train step; jitted here unless it is.
        args: arrays, or `jax.ShapeDtypeStruct`s in their place.
        samples: examples in the batch, for the bytes per sample.
        compiler_options: XLA options of the outermost jit, such as the memory-optimised scheduler.

    Returns:
        Bytes of arguments, outputs and temporaries.

    Raises:
        NotImplementedError: the backend does not report the memory of compiled code.

    Example:
        stored = memory.measure(jax.grad(loss), params, batch)
    """
    jitted = function if hasattr(function, "lower") else jax.jit(function)
    return analysed(jitted.lower(*args).compile(compiler_options=compiler_options), samples)


def analysed(compiled: Any, samples: int | None) -> Measured:
    """The bytes of what was compiled already, `jax.jit(f).lower(...).compile()`.

    Args:
        compiled: from JAX.
        samples: examples in the batch, or None.

    Raises:
        NotImplementedError: the backend does not report the memory of compiled code.
    """
    analysis = compiled.memory_analysis()
    if analysis is None:
        raise NotImplementedError(f"{jax.default_backend()} does not report compiled memory")
    return Measured(
        analysis.argument_size_in_bytes,
        analysis.output_size_in_bytes,
        analysis.temp_size_in_bytes,
        analysis.alias_size_in_bytes,
        samples,
    )


def device_peak(*, device: Any = None) -> int | None:
    """The most bytes a device had in use since the process began; None where it does not say.

    A measured figure to set beside a compiled one: CPUs do not report it, GPUs and TPUs do. It
    never falls, so measure the leanest computation first.

    Args:
        device: None is the first one.
    """
    stats = (jax.devices()[0] if device is None else device).memory_stats() or {}
    return stats.get("peak_bytes_in_use")


def residuals(function: Callable[..., Any], *args: Any, largest: int = 10) -> list[Residual]:
    """What differentiating `function` keeps between its passes, before XLA has its say.

    Args:
        function: a function of pytrees with inexact leaves.
        args: arrays, or `jax.ShapeDtypeStruct`s in their place.
        largest: how many to list, largest first.

    Returns:
        The largest residuals, with the operation and source line that made them (as
        `jax.ad_checkpoint.print_saved_residuals` tells it). Arguments of the function and literals
        are left out: they exist anyway.
    """
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        jax.ad_checkpoint.print_saved_residuals(function, *args)
    found = (_LINE.match(line.strip()) for line in out.getvalue().splitlines())
    kept = [_residual(*match.groups()) for match in found if match]
    kept = [r for r in kept if not r.source.startswith("from ")]
    return sorted(kept, key=lambda r: -r.nbytes)[:largest]


# "f32[4,8]{V:data} output of mul from file.py:12:3 (function)"
_LINE = re.compile(r"([a-z]+[a-z0-9_]*)\[([0-9,]*)\]\S*\s+(.*)")
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
