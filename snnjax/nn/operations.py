"""Taps of connections: how often they multiply, `taps=("operations", "products")`.

    operations   of a layer with weights, `metrics.Operations`
    products     of activations with each other, `metrics.Products`

Both are small numbers, `[T, B]` each, made where the inputs are, so that they leave scans over
depth and over time, and cost no memory that grows with the layer. `snnjax.cost` sums them up.
"""

from __future__ import annotations

from typing import Any

from flax import nnx

from snnjax import metrics
from snnjax.nn.convolution import geometry_of
from snnjax.typing import Array

__all__ = ["convolution_operations", "counted", "counts", "operations_of"]


def operations_of(function: Any, inputs: Array, taps: tuple[str, ...]) -> dict[str, Any]:
    """The tap of a function that is applied at every timestep; nothing where it has no weights.

    Args:
        function: one with a method `operations(inputs)`, or a `flax.nnx.Linear`.
        inputs: `[T, B, ...]`.
        taps: what the caller asked to see.
    """
    if not counts(function):
        return {}
    return counted(taps, operations=lambda: _operations(function, inputs))


def counts(function: Any) -> bool:
    """Whether a function is a connection whose operations can be counted."""
    return isinstance(function, nnx.Linear) or hasattr(function, "operations")


def _operations(function: Any, inputs: Array) -> metrics.Operations:
    if isinstance(function, nnx.Linear):
        return metrics.synaptic_operations(inputs, function.kernel[...])
    return function.operations(inputs)


def convolution_operations(inputs: Array, kernel: Array, **options: Any) -> metrics.Operations:
    """Those of `nn.convolution` with these options, on `[T, B, *space, C]`."""
    geometry = geometry_of(inputs[0].astype(kernel.dtype), kernel, **options)
    return metrics.synaptic_operations(
        inputs,
        kernel,
        strides=geometry.strides,
        padding=geometry.padding,
        groups=geometry.groups,
    )


def counted(taps: tuple[str, ...], **kinds: Any) -> dict[str, Any]:
    """A layer's taps: those of the kinds that are asked for; each is made by a call."""
    found = {kind: make() for kind, make in kinds.items() if kind in taps}
    return {"": found} if found else {}
