"""Mixed precision: the dtypes of a network as one value, and float32 neurons on narrow arrays.

    network = nn.with_precision(network, nn.mixed_precision.Precision(compute="bfloat16"))

Four kinds of numbers have their own dtype:

    params         weights of synapses, as the optimizer stores them
    compute        operands and outputs of synapses: inputs, currents, spikes
    stream         residual and reversible streams, x + F(x)
    accumulators   sums within products, membranes, traces, statistics, losses, readouts

With a compute dtype of two bytes the residuals of synapses and norms take two bytes per input.
Streams and accumulators are always float32: a narrow stream has no exact inverse, and a narrow
membrane loses small currents.

XLA may remove a pair of casts (`float32 -> bfloat16 -> float32`) inside a fused loop. A recomputed
value would then be rounded differently from the residual, and a difference in the last bit can flip
a spike. Layers therefore round by `lax.reduce_precision`, which XLA never removes (`ops.rounding`),
and compute in at least float32 between roundings.

`with_precision` sets the dtypes of a network. `MixedStep` runs a neuron in float32 between arrays
of two bytes, and `MixedInverse` is its inverse.

Reference: Micikevicius, Narang, Alben, Diamos, Elsen, Garcia, Ginsburg, Houston, Kuchaiev,
Venkatesh, Wu, "Mixed Precision Training", 2017, arXiv:1710.03740 (products of half precision,
float32 sums, float32 weights, a scaled loss).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from snnjax import neurons
from snnjax.ops.arguments import shorten
from snnjax.ops.rounding import widen
from snnjax.ops.variables import map_nodes
from snnjax.typing import Array, PyTree, Step

__all__ = [
    "MixedInverse",
    "MixedStep",
    "Precision",
    "mixed_step",
    "parse_precision",
    "with_precision",
]

_NARROW = ("bfloat16", "float16")
_EXAMPLE = "write 'bfloat16', 'float16', 'float32' or 'compute=bfloat16, params=bfloat16'"


@dataclasses.dataclass(frozen=True)
class Precision:
    """Dtypes of a network, for `with_precision`, or as text for an experiment.

    Attributes:
        compute: dtype of operands and outputs of synapses: `"float32"`, `"bfloat16"` (range of
            float32, 8 significant bits) or `"float16"` (11 significant bits, up to 65504; training
            then scales the loss).
        params: dtype of the kernels of linear maps and convolutions, `"float32"` or `"bfloat16"`.
            Biases, scales of norms and parameters of neurons are few and stay float32. In bfloat16
            an update below 1/512 of a weight is lost.
        stream: dtype of residual and reversible streams, always `"float32"`.
        accumulators: dtype of sums, membranes and statistics, always `"float32"`.

    Raises:
        ValueError: an unsupported dtype; the message names the supported ones.
    """

    compute: str = "float32"
    params: str = "float32"
    stream: str = "float32"
    accumulators: str = "float32"

    def __post_init__(self):
        if self.stream != "float32":
            raise ValueError(
                f"a stream of {self.stream} cannot be undone: sums x + F(x) are rounded, so that "
                "y - F(x) differs from x, and one flipped spike flips others in all earlier "
                "blocks: leave stream=float32; compute= narrows the branches and their residuals"
            )
        if self.accumulators != "float32":
            raise ValueError(
                f"accumulators of {self.accumulators} would lose small terms of long sums "
                "(membranes, running statistics, losses): leave accumulators=float32"
            )
        if self.compute not in ("float32", *_NARROW):
            raise ValueError(f"compute is float32, bfloat16 or float16, not {self.compute!r}")
        if self.params not in ("float32", "bfloat16"):
            raise ValueError(
                f"params are float32 or bfloat16, not {self.params!r}: other dtypes lose small "
                "updates, and compute=float16 works with float32 params"
            )

    @property
    def scales_loss(self) -> bool:
        """True if gradients may underflow, so that training must scale the loss (float16)."""
        return self.compute == "float16"

    def __str__(self) -> str:
        """Text for `parse_precision`: "bfloat16", or "compute=bfloat16, params=bfloat16"."""
        # The shortest text, so that records of equal precisions are equal.
        if self.params == "float32":
            return self.compute
        return f"compute={self.compute}, params={self.params}"


def parse_precision(text: str) -> Precision:
    """Parses a precision: one dtype for `compute`, or `field=dtype` pairs of `Precision`.

    Args:
        text: such as `"bfloat16"` or `"compute=bfloat16, params=bfloat16"`; empty is float32.

    Raises:
        ValueError: the text is no precision; the message gives an example.
    """
    words = text.strip()
    parts = [part.strip() for part in words.split(",")] if words else []
    # The short form: the compute dtype alone.
    if len(parts) == 1 and "=" not in words:
        parts = [f"compute={words}"]
    names = [field.name for field in dataclasses.fields(Precision)]
    fields_read: dict[str, str] = {}
    for part in parts:
        name, _, value = (piece.strip() for piece in part.partition("="))
        # A repeated field is refused: the last one would win silently.
        if name not in names or not value or name in fields_read:
            raise ValueError(
                f"cannot read the precision {text!r} at {part!r}: {_EXAMPLE}; parts are "
                f"{', '.join(names)}"
            )
        fields_read[name] = value
    try:
        return Precision(**fields_read)
    except ValueError as error:
        # `from None`: this message already quotes the other one.
        raise ValueError(f"cannot read the precision {text!r} ({error}): {_EXAMPLE}") from None


def with_precision(network: Any, precision: Precision) -> Any:
    """A copy of a network that computes in other dtypes.

    Synapses (`nn.Linear`, `nn.Conv`, `nn.ScaledStdConv`, the feedback of `nn.Recurrent`) round
    inputs and kernels to `compute`, sum in float32 and round their outputs. Other layers follow the
    dtype of their inputs: norms and pools compute in float32 and round once, neurons keep float32
    membranes and emit spikes in the dtype of their currents. Outputs of the network are float32.
    Integer-valued synapses (`nn.SharedScale`, `nn.SubBitConv`) and other modules in an `nn.Fold`
    compute in float32.

    A layer of your own takes part by a method `with_precision(precision) -> layer`, which must also
    convert its inner layers.

    Args:
        network: network or layer; it stays unchanged and shares all parameters whose dtype stays.
        precision: dtypes; `Precision()` leaves a float32 network unchanged.

    Returns:
        The copy. Its values differ from those of float32 by rounding only, and memory strategies
        agree with each other as they do in float32.
    """
    if not isinstance(precision, Precision):
        raise TypeError(
            f"with_precision takes a Precision, got {shorten(precision)}: "
            "nn.mixed_precision.parse_precision reads one from text"
        )
    # A node that converts itself is a leaf: the traversal does not enter it a second time.
    return map_nodes(
        lambda node: node.with_precision(precision),
        network,
        select=lambda node: hasattr(node, "with_precision"),
    )


@dataclasses.dataclass(frozen=True)
class MixedStep:
    """A neuron's step on currents of two bytes; state and arithmetic are float32.

    Attributes:
        step: step of the neuron.
        spiking: True if the outputs are 0 or 1, exact in every dtype; other outputs stay float32.
    """

    step: Step
    spiking: bool

    def __call__(self, params: PyTree, state: PyTree, current: Array) -> tuple[PyTree, Array]:
        """One timestep; spikes have the dtype of the current."""
        state, outputs = self.step(params, state, widen(current))
        return state, self.cast_outputs(outputs, current)

    def cast_outputs(self, outputs: Array, currents: Array) -> Array:
        """The outputs; spikes are cast to the dtype of the currents."""
        # 0 and 1 are exact in every dtype.
        return outputs.astype(currents.dtype) if self.spiking else outputs

    @property
    def sequence(self) -> Any:
        """The sequence function of the step, on currents of two bytes; None without one."""
        # A plain step function has no such attribute.
        function = getattr(self.step, "sequence", None)
        # The Pallas kernel widens narrow currents in registers, without a float32 copy in memory.
        if function is None or _unwrap(function) is neurons.lif_kernel:
            return function
        return functools.partial(self._sequence, function)

    def _sequence(self, function: Any, params: PyTree, state: PyTree, currents: Array):
        state, outputs = function(params, state, widen(currents))
        return state, self.cast_outputs(outputs, currents)


def _unwrap(function: Any) -> Any:
    """The innermost function of nested `bind` objects."""
    while hasattr(function, "function"):
        function = function.function
    return function


@dataclasses.dataclass(frozen=True)
class MixedInverse:
    """Inverse of a `MixedStep`: the neuron's inverse on widened arrays."""

    inverse: Any

    @property
    def steps(self) -> int | None:
        """Number of consecutive steps the inverse can undo, see `memory.reverse`."""
        return getattr(self.inverse, "steps", None)

    def __call__(self, params: PyTree, after: PyTree, current: Array, outputs: Array) -> PyTree:
        """State before a step."""
        return self.inverse(params, after, *map(widen, (current, outputs)))

    def check(self, params: PyTree, state: PyTree, steps: int) -> Any:
        """True if the inverse can undo so many steps, see `memory.reverse`."""
        check = getattr(self.inverse, "check", None)
        return check is None or check(params, state, steps)


def mixed_step(step: Step, scan: Any, *, spiking: bool) -> tuple[MixedStep, Any]:
    """A step and its scan for currents of two bytes.

    Args:
        step: step of the neuron.
        scan: memory strategy over time, or None.
        spiking: True if the outputs are 0 or 1.
    """
    # A reversing scan sees outputs of two bytes, which its inverse must widen.
    if getattr(scan, "inverse", None) is not None:
        scan = dataclasses.replace(scan, inverse=MixedInverse(scan.inverse))
    return MixedStep(step, spiking), scan
