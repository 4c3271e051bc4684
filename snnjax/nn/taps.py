"""Taps: what can be looked at in a layer of neurons, beside its outputs.

    spikes      [T, B, ...]             its outputs
    membrane    [T, B, ...]             membrane potential after the reset
    currents    [T, B, ...]             what came in: behind norm and attention, before any feedback
                                        and before the scaling of `scale_input`
    threshold   [T, 1, .., 1 or C]      against which membranes are held, to broadcast; a neuron
                                        without one (a leaky integrator) has no such tap
    rates       [T, B]                  share of its neurons that fire, float32; with it comes
    analog      [T, B]                  whether any output is neither 0 nor 1, so that there is no
                                        rate

`rates` are summed up where the spikes are: inside a scan over blocks nothing of the size of the
spikes leaves it, and looking costs no memory that grows with the depth.

The tap of reversing scans: how far what they rebuild is from what the forward pass saw.

Taps of connections: how often they multiply, `taps=("operations", "products")`.

    operations   of a layer with weights, `metrics.operations.Operations`
    products     of activations with each other, `metrics.operations.Products`

Both are small numbers, `[T, B]` each, made where the inputs are, so that they leave scans over
depth and over time, and cost no memory that grows with the layer. `snnjax.cost` sums them up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import jax.numpy as jnp
from flax import nnx

from snnjax import memory, metrics
from snnjax.ops.convolution import convolution_geometry
from snnjax.ops.rounding import widen
from snnjax.typing import Array, Scan, Step

__all__ = [
    "convolution_operations",
    "counted",
    "counts",
    "in_order",
    "operations_of",
    "reconstruction",
    "tapped",
]

Seen = TypeVar("Seen")


def tapped(
    taps: tuple[str, ...],
    spikes: Array,
    *,
    currents: Array,
    params: Any,
    membrane: Array | None = None,
) -> dict[str, Array]:
    """Those of the kinds above that are asked for.

    Args:
        taps: what the caller asked to see.
        spikes: outputs, `[T, B, ..., C]`.
        currents: inputs, of the same shape.
        params: of the neurons; theirs, or those of the neurons inside of a recurrent one.
        membrane: potentials, of the same shape; None where they were not asked for.
    """
    spikes, currents = widen(spikes), widen(currents)  # what looks at them sums them up
    kinds = {"spikes": spikes, "membrane": membrane, "currents": currents}
    seen = {kind: kinds[kind] for kind in kinds if kind in taps and kinds[kind] is not None}
    if "threshold" in taps and (threshold := _threshold(params)) is not None:
        seen["threshold"] = _wide(jnp.asarray(threshold), spikes.shape)
    if "rates" in taps:
        axes = tuple(range(2, spikes.ndim))
        # A mean of zeros and ones is exact up to its last division, whatever the order.
        seen["rates"] = jnp.mean(spikes, axis=axes, dtype=jnp.float32)
        seen["analog"] = jnp.any((spikes != 0) & (spikes != 1), axis=axes)
    return seen


def in_order(layers: Mapping[str, Seen]) -> dict[str, Seen]:
    """By the places of the layers, which are the numbers in their names.

    What leaves a jitted function comes sorted by letters, `lif14` before `lif3`.

    Args:
        layers: name, as taps have it, to anything.
    """

    def places(name: str) -> list[tuple[int, str]]:
        parts = [re.fullmatch(r"(.*?)(\d*)", part) for part in name.split("/")]
        return [(int(part[2] or -1), part[1]) for part in parts if part]

    return {name: layers[name] for name in sorted(layers, key=places)}


def _threshold(params: Any) -> Any:
    while hasattr(params, "neuron"):
        params = params.neuron
    return getattr(params, "threshold", None)


def _wide(threshold: Array, shape: tuple[int, ...]) -> Array:
    """One row per timestep; thresholds of one channel group (or half) stand for all of them."""
    if threshold.ndim and 1 < threshold.shape[-1] < shape[-1]:
        copies = (1,) * (threshold.ndim - 1) + (shape[-1] // threshold.shape[-1],)
        threshold = jnp.tile(threshold, copies)
    ones = (1,) * (len(shape) - 1 - threshold.ndim)
    return jnp.broadcast_to(threshold, (shape[0], *ones, *threshold.shape))


def reconstruction(
    name: str,
    scan: Scan | None,
    step: Step,
    params: Any,
    state: Any,
    xs: Any,
    taps: tuple[str, ...],
) -> dict[str, dict[str, Array]]:
    """`{name: {"reconstruction": [1]}}` where asked for and `scan` reverses, else nothing.

    Args:
        name: what the layer calls itself.
        scan: the layer's scan, with its inverse.
        step: what it scans.
        params: of the step.
        state: before the first step.
        xs: the scanned inputs.
        taps: what the caller asked to see.
    """
    if "reconstruction" not in taps or not isinstance(scan, memory.Reverse):
        return {}
    return {name: {"reconstruction": scan.error(step, params, state, xs)[None]}}


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


def _operations(function: Any, inputs: Array) -> metrics.operations.Operations:
    if isinstance(function, nnx.Linear):
        return metrics.operations.synaptic_operations(inputs, function.kernel[...])
    return function.operations(inputs)


def convolution_operations(
    inputs: Array, kernel: Array, **options: Any
) -> metrics.operations.Operations:
    """Those of `nn.convolution` with these options, on `[T, B, *space, C]`."""
    geometry = convolution_geometry(inputs[0].astype(kernel.dtype), kernel, **options)
    return metrics.operations.synaptic_operations(
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
