"""Taps: internal arrays of layers, returned on request, `net(..., taps=("spikes", "rates"))`.

Neurons:

    spikes      [T, B, ...]             outputs
    membrane    [T, B, ...]             membrane potential after the reset
    currents    [T, B, ...]             inputs, after norm and attention, before any feedback and
                                        before the scaling of `scale_input`
    threshold   [T, 1, .., 1 or C]      firing threshold, broadcastable; leaky integrators have none
    rates       [T, B]                  fraction of the neurons that fire, float32
    analog      [T, B]                  returned with `rates`; True where an output is neither 0 nor
                                        1, so that the rate is meaningless

Rates are reduced inside the scans over blocks, so their memory does not grow with feature maps.

Connections, `[T, B]` each, totalled by `snnjax.cost`:

    operations   multiplications of inputs by weights, `metrics.operations.Operations`
    products     multiplications of activations by each other, `metrics.operations.Products`

Reversing scans, `[1]`:

    reconstruction   largest difference between rebuilt states and those of the forward pass

Layers that keep their inputs at one bit each, `[1]`:

    packing      largest distance of an input from 0 or 1; above 0, gradients are NaN
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import memory, metrics
from snnjax.nn.contract import Aux, Layer, NonFinite, repeat_state
from snnjax.ops.convolution import convolution_geometry
from snnjax.ops.rounding import widen
from snnjax.typing import Array, PyTree, Scan, Step

__all__ = [
    "convolution_operations",
    "lazy_taps",
    "counts",
    "example_axes",
    "in_order",
    "operations_tap",
    "reconstruction",
    "neuron_taps",
    "nonfinite_examples",
    "packing_error",
    "watch_block",
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
    """Taps of a layer of neurons, by kind.

    Args:
        taps: requested kinds; kinds of other layers are ignored.
        spikes: outputs, `[T, B, ..., C]`.
        currents: inputs, `[T, B, ..., C]`.
        params: parameters of the neurons; for a recurrent layer, a tuple with a field `neuron`.
        membrane: membrane potentials, `[T, B, ..., C]`; None if not requested.
    """
    # Callers sum taps, and bfloat16 sums saturate at 256.
    spikes, currents = widen(spikes), widen(currents)
    kinds = {"spikes": spikes, "membrane": membrane, "currents": currents}
    arrays = {kind: kinds[kind] for kind in kinds if kind in taps and kinds[kind] is not None}
    if "threshold" in taps and (threshold := _threshold(params)) is not None:
        arrays["threshold"] = _threshold_rows(jnp.asarray(threshold), spikes.shape)
    if "rates" in taps:
        axes = tuple(range(2, spikes.ndim))
        # Sums of zeros and ones are exact, so the rate does not depend on the summation order.
        arrays["rates"] = jnp.mean(spikes, axis=axes, dtype=jnp.float32)
        # A rate of real-valued outputs would be read as a firing rate.
        arrays["analog"] = jnp.any((spikes != 0) & (spikes != 1), axis=axes)
    return arrays


def in_order(layers: Mapping[str, Entry]) -> dict[str, Entry]:
    """Sorts a mapping by the positions of the layers, the numbers in their names.

    A jitted function returns dictionaries in alphabetical order, `lif14` before `lif3`.

    Args:
        layers: layer name, such as `block0/lif3`, to any value.
    """

    def sort_key(name: str) -> list[tuple[int, str]]:
        # Positions compare as numbers; names without a number come first.
        parts = [re.fullmatch(r"(.*?)(\d*)", part) for part in name.split("/")]
        return [(int(part[2] or -1), part[1]) for part in parts if part]

    return {name: layers[name] for name in sorted(layers, key=sort_key)}


def _threshold(params: Any) -> Any:
    # Parameters of recurrent neurons nest those of the inner neuron.
    while hasattr(params, "neuron"):
        params = params.neuron
    return getattr(params, "threshold", None)


def _threshold_rows(threshold: Array, shape: tuple[int, ...]) -> Array:
    """The threshold with one row per timestep, `[T, 1, .., 1 or C]`.

    Channel groups that share a membrane also share its thresholds, which are repeated here.
    """
    # One channel means a scalar threshold, which already broadcasts.
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
    """Reconstruction error of a reversing scan, `{name: {"reconstruction": [1]}}`.

    The mapping is empty if the tap is not requested or the scan does not reverse.

    Args:
        name: name of the layer.
        scan: scan of the layer, with its inverse.
        step: scanned step.
        params: parameters of the step.
        state: state before the first step.
        xs: scanned inputs.
        taps: requested kinds.
    """
    # The error costs a second forward pass and a backward sweep, so only a request pays for it.
    if "reconstruction" not in taps or not isinstance(scan, memory.Reverse):
        return {}
    return {name: {"reconstruction": scan.error(step, params, state, xs)[None]}}


def operations_tap(function: Any, inputs: Array, taps: tuple[str, ...]) -> dict[str, Any]:
    """Tap `"operations"` of a function applied at every timestep; empty if it has no weights.

    Args:
        function: a `flax.nnx.Linear`, or a module with a method `operations(inputs)`.
        inputs: inputs of the function, `[T, B, ...]`.
        taps: requested kinds.
    """
    if not counts(function):
        return {}
    return lazy_taps(taps, operations=lambda: _operations(function, inputs))


def packing_error(inputs: Array) -> Array:
    """Tap `"packing"` of inputs kept at one bit each, `[1]`."""
    inputs = widen(inputs)
    return jnp.max(jnp.abs(inputs - (inputs != 0).astype(inputs.dtype)))[None]


def counts(function: Any) -> bool:
    """True if `function` has weights whose operations can be counted."""
    return isinstance(function, nnx.Linear) or hasattr(function, "operations")


def _operations(function: Any, inputs: Array) -> metrics.operations.Operations:
    if isinstance(function, nnx.Linear):
        return metrics.operations.synaptic_operations(inputs, function.kernel[...])
    return function.operations(inputs)


def convolution_operations(
    inputs: Array, kernel: Array, **options: Any
) -> metrics.operations.Operations:
    """Operations of `ops.convolution`.

    Args:
        inputs: `[T, B, *space, C]`.
        kernel: `[*kernel size, C / groups, D]`.
        options: `strides`, `padding` and `groups` of the convolution.
    """
    # The geometry of one timestep suffices; XLA wants one dtype for both operands.
    geometry = convolution_geometry(inputs[0].astype(kernel.dtype), kernel, **options)
    return metrics.operations.synaptic_operations(
        inputs,
        kernel,
        strides=geometry.strides,
        padding=geometry.padding,
        groups=geometry.groups,
    )


def lazy_taps(taps: tuple[str, ...], **kinds: Any) -> dict[str, Any]:
    """Taps of a layer, `{"": {kind: value}}`; empty if none is requested.

    Args:
        taps: requested kinds.
        kinds: functions without arguments by kind; only those of requested kinds are called.
    """
    arrays = {kind: make() for kind, make in kinds.items() if kind in taps}
    return {"": arrays} if arrays else {}


# Never run: under `jax.jit` every trace of a block finds the shapes of the first one.
@functools.partial(jax.jit, static_argnums=1)
def _neurons_at_rest(layer: Layer, shape: tuple[int, ...]) -> PyTree:
    return repeat_state(layer.initial_state(shape).neurons)


def example_axes(layer: Layer, shape: tuple[int, ...], state: PyTree) -> tuple[int | None, ...]:
    """Axis of the examples in each array of a layer's neurons; None for an array without one.

    Args:
        layer: layer with neurons.
        shape: shape of one timestep of inputs, `(B, ...)`.
        state: its neurons after a call.
    """
    batch, *rest = shape
    # Another batch size tells the axis apart from others of the same length.
    larger = _neurons_at_rest.eval_shape(layer, (batch + 1, *rest))
    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(larger), strict=True)
    return tuple(
        next((i for i, (a, b) in enumerate(zip(x.shape, y.shape, strict=True)) if a != b), None)
        for x, y in pairs
    )


def nonfinite_examples(array: Array, axis: int | None, batch: int) -> Array:
    """Marks the examples of an array that hold NaN or an infinity, bool `[B]`.

    Args:
        array: any array; integers are finite.
        axis: axis of the examples; None if all of them share the array.
        batch: number of examples, B.
    """
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        return jnp.zeros(batch, bool)
    last = array.ndim - 1
    others = tuple(i for i in range(array.ndim) if i not in (axis, last))
    finite = jnp.isfinite(array).all(others)
    if axis != last and array.ndim:
        # The last axis by itself: XLA:CPU reduces the others in vectors, but not all at once.
        finite = jax.lax.optimization_barrier(finite).all(-1)
    return jnp.broadcast_to(~finite, (batch,))


def watch_block(layer: Layer, inputs: Array, aux: Aux) -> Aux:
    """`Aux` of a block within a stack, with its `NonFinite` examples among the diagnostics.

    Args:
        layer: the block.
        inputs: its inputs, `[T, B, ...]`.
        aux: its `Aux`.
    """
    leaves = jax.tree.leaves(aux.state)
    if not leaves:
        return aux
    # Reduced here: a reduction behind the scan would keep the final states of all blocks.
    shape = inputs.shape[1:]
    marks = [
        nonfinite_examples(leaf, axis, shape[0])
        for leaf, axis in zip(leaves, example_axes(layer, shape, leaves), strict=True)
    ]
    found = NonFinite(functools.reduce(jnp.logical_or, marks))
    return aux._replace(diagnostics={**aux.diagnostics, "neurons": found})
