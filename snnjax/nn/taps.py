"""Taps: arrays inside a layer that a caller asks for, `net(..., taps=("spikes", "rates"))`.

Of neurons:

    spikes      [T, B, ...]             outputs
    membrane    [T, B, ...]             membrane potential after the reset
    currents    [T, B, ...]             inputs: behind norm and attention, before any feedback and
                                        before the scaling of `scale_input`
    threshold   [T, 1, .., 1 or C]      threshold of the membranes, to broadcast; a leaky integrator
                                        has none
    rates       [T, B]                  share of the neurons that fire, float32; it comes with
    analog      [T, B]                  True where an output is neither 0 nor 1: there is no rate

Rates are summed inside the scans over blocks, so that they cost no memory that grows with depth.

Of connections, `[T, B]` each, summed up by `snnjax.cost`:

    operations   of a layer with weights, `metrics.operations.Operations`
    products     of activations with each other, `metrics.operations.Products`

Of reversing scans, `[1]`:

    reconstruction   largest difference between the rebuilt states and those of the forward pass
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
    "lazy_taps",
    "counts",
    "in_order",
    "operations_tap",
    "reconstruction",
    "neuron_taps",
]

Entry = TypeVar("Entry")


def neuron_taps(
    taps: tuple[str, ...],
    spikes: Array,
    *,
    currents: Array,
    params: Any,
    membrane: Array | None = None,
) -> dict[str, Array]:
    """Taps of a layer of neurons, of the kinds above that are in `taps`.

    Args:
        taps: kinds asked for.
        spikes: outputs, `[T, B, ..., C]`.
        currents: inputs, of the same shape.
        params: of the neurons; theirs, or those of the neurons inside of a recurrent one.
        membrane: potentials, of the same shape; None where they were not asked for.
    """
    spikes, currents = widen(spikes), widen(currents)  # callers sum them up
    kinds = {"spikes": spikes, "membrane": membrane, "currents": currents}
    arrays = {kind: kinds[kind] for kind in kinds if kind in taps and kinds[kind] is not None}
    if "threshold" in taps and (threshold := _threshold(params)) is not None:
        arrays["threshold"] = _threshold_rows(jnp.asarray(threshold), spikes.shape)
    if "rates" in taps:
        axes = tuple(range(2, spikes.ndim))
        # A mean of zeros and ones is exact up to its last division, whatever the order.
        arrays["rates"] = jnp.mean(spikes, axis=axes, dtype=jnp.float32)
        arrays["analog"] = jnp.any((spikes != 0) & (spikes != 1), axis=axes)
    return arrays


def in_order(layers: Mapping[str, Entry]) -> dict[str, Entry]:
    """Sorts by the places of the layers, which are the numbers in their names.

    A jitted function returns dictionaries sorted by letters, `lif14` before `lif3`.

    Args:
        layers: name, as taps have it, to anything.
    """

    def sort_key(name: str) -> list[tuple[int, str]]:
        parts = [re.fullmatch(r"(.*?)(\d*)", part) for part in name.split("/")]
        return [(int(part[2] or -1), part[1]) for part in parts if part]

    return {name: layers[name] for name in sorted(layers, key=sort_key)}


def _threshold(params: Any) -> Any:
    while hasattr(params, "neuron"):
        params = params.neuron
    return getattr(params, "threshold", None)


def _threshold_rows(threshold: Array, shape: tuple[int, ...]) -> Array:
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
        name: of the layer.
        scan: the layer's scan, with its inverse.
        step: its scanned step.
        params: of the step.
        state: before the first step.
        xs: the scanned inputs.
        taps: kinds asked for.
    """
    if "reconstruction" not in taps or not isinstance(scan, memory.Reverse):
        return {}
    return {name: {"reconstruction": scan.error(step, params, state, xs)[None]}}


def operations_tap(function: Any, inputs: Array, taps: tuple[str, ...]) -> dict[str, Any]:
    """The tap of a function that is applied at every timestep; nothing where it has no weights.

    Args:
        function: one with a method `operations(inputs)`, or a `flax.nnx.Linear`.
        inputs: `[T, B, ...]`.
        taps: kinds asked for.
    """
    if not counts(function):
        return {}
    return lazy_taps(taps, operations=lambda: _operations(function, inputs))


def counts(function: Any) -> bool:
    """True if a function is a connection whose operations can be counted."""
    return isinstance(function, nnx.Linear) or hasattr(function, "operations")


def _operations(function: Any, inputs: Array) -> metrics.operations.Operations:
    if isinstance(function, nnx.Linear):
        return metrics.operations.synaptic_operations(inputs, function.kernel[...])
    return function.operations(inputs)


def convolution_operations(
    inputs: Array, kernel: Array, **options: Any
) -> metrics.operations.Operations:
    """Operations of `ops.convolution` with these options, on `[T, B, *space, C]`."""
    geometry = convolution_geometry(inputs[0].astype(kernel.dtype), kernel, **options)
    return metrics.operations.synaptic_operations(
        inputs,
        kernel,
        strides=geometry.strides,
        padding=geometry.padding,
        groups=geometry.groups,
    )


def lazy_taps(taps: tuple[str, ...], **kinds: Any) -> dict[str, Any]:
    """A layer's taps: those of the kinds that are asked for; each is made by a call."""
    arrays = {kind: make() for kind, make in kinds.items() if kind in taps}
    return {"": arrays} if arrays else {}
