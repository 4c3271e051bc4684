"""Mixed precision: the number formats of a network, as one value.

    network = nn.with_precision(network, nn.Precision(compute="bfloat16"))

Four kinds of numbers have a dtype of their own:

    params         weights of synapses, as the optimizer moves them
    compute        inputs and outputs of synapses: operands of products, currents, spikes
    stream         residual and reversible streams, x + F(x)
    accumulators   sums within products, membranes, traces, statistics, losses, readouts

Under a compute dtype of two bytes a gradient keeps two bytes per input of every synapse and norm.
Streams and accumulators are always float32: a narrow stream cannot be undone, and a narrow membrane
forgets.

XLA may skip a rounding and its way back (`float32 -> bfloat16 -> float32`) inside a fused loop.
Residuals would be rounded and their replay would not, and a difference in the last bit is enough to
flip a spike. So layers round by `lax.reduce_precision`, which XLA never skips (`ops.rounding`), and
compute in at least float32 in between.

Reference: Micikevicius, Narang, Alben, Diamos, Elsen, Garcia, Ginsburg, Houston, Kuchaiev,
Venkatesh, Wu, "Mixed Precision Training", 2017, arXiv:1710.03740 (products of half precision,
float32 sums, float32 weights, a scaled loss).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax

from snnjax import neurons
from snnjax.ops.rounding import widen
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
    """Number formats; give it to a network by `with_precision`, or to an experiment by its text.

    Attributes:
        compute: `"float32"`, `"bfloat16"` (float32's range with 8 bits) or `"float16"` (11 bits, up
            to 65504; training then scales its loss).
        params: `"float32"` or `"bfloat16"`, of the kernels of linear maps and convolutions. Biases,
            scales of norms and parameters of neurons are few and stay float32. In bfloat16 an
            update of less than 1/512 of a weight is lost.
        stream: `"float32"`.
        accumulators: `"float32"`.

    Raises:
        ValueError: another dtype; the message says what to write.
    """

    compute: str = "float32"
    params: str = "float32"
    stream: str = "float32"
    accumulators: str = "float32"

    def __post_init__(self):
        if self.stream != "float32":
            raise ValueError(
                f"a stream of {self.stream} cannot be undone: sums x + F(x) are rounded, so that "
                "y - F(x) is not x, and one spike that flips by it flips others in all blocks "
                "before: leave stream=float32; compute narrows what branches compute and keep"
            )
        if self.accumulators != "float32":
            raise ValueError(
                f"accumulators of {self.accumulators} would lose what is added last: membranes, "
                "running statistics and losses sum up many small numbers: leave "
                "accumulators=float32"
            )
        if self.compute not in ("float32", *_NARROW):
            raise ValueError(f"compute is float32, bfloat16 or float16, not {self.compute!r}")
        if self.params not in ("float32", "bfloat16"):
            raise ValueError(
                f"params are float32 or bfloat16, not {self.params!r}: smaller floats lose the "
                "small updates, and compute=float16 needs none"
            )

    @property
    def scales_loss(self) -> bool:
        """True if gradients may underflow, so that training scales its loss: float16 only."""
        return self.compute == "float16"

    def __str__(self) -> str:
        """Text for `parse_precision`: "bfloat16", or "compute=bfloat16, params=bfloat16"."""
        if self.params == "float32":
            return self.compute
        return f"compute={self.compute}, params={self.params}"


def parse_precision(text: str) -> Precision:
    """Reads a precision: one dtype for `compute`, or fields of `Precision`.

    Args:
        text: such as `"bfloat16"` or `"compute=bfloat16, params=bfloat16"`; empty is float32.

    Raises:
        ValueError: it is none, with an example of one.
    """
    words = text.strip()
    parts = [part.strip() for part in words.split(",")] if words else []
    if len(parts) == 1 and "=" not in words:
        parts = [f"compute={words}"]
    names = [field.name for field in dataclasses.fields(Precision)]
    fields_read: dict[str, str] = {}
    for part in parts:
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in names or not value or name in fields_read:
            raise ValueError(
                f"cannot read the precision {text!r} at {part!r}: {_EXAMPLE}; parts are "
                f"{', '.join(names)}"
            )
        fields_read[name] = value
    try:
        return Precision(**fields_read)
    except ValueError as error:
        raise ValueError(f"cannot read the precision {text!r} ({error}): {_EXAMPLE}") from None


def with_precision(network: Any, precision: Precision) -> Any:
    """The same network, computing in other number formats.

    Synapses (`nn.Linear`, `nn.Conv`, `nn.ScaledStdConv`, the feedback of `nn.Recurrent`) round
    inputs and kernels to `compute`, sum in float32 and round their outputs; later layers take the
    dtype of their inputs: norms and pools compute in float32 and round once, neurons keep float32
    membranes and fire in the dtype of their currents, outputs of the network are float32. Synapses
    of whole numbers (`nn.SharedScale`, `nn.SubBitConv`) and modules of another kind in an `nn.Fold`
    compute in float32.

    A layer of your own takes part by a method `with_precision(precision) -> layer`, which also
    cares for the layers inside.

    Args:
        network: or any layer; stays as it is. The result shares all parameters whose dtype stays.
        precision: `Precision()` gives a network that was never narrowed as it is.

    Returns:
        Network or layer. Values differ from those of float32 by the rounding; among themselves
        memory strategies agree as they do in float32.
    """
    takes = lambda node: hasattr(node, "with_precision")  # noqa: E731
    place = lambda node: node.with_precision(precision) if takes(node) else node  # noqa: E731
    return jax.tree.map(place, network, is_leaf=takes)


@dataclasses.dataclass(frozen=True)
class MixedStep:
    """A neuron's step between arrays of two bytes: its state and all it computes are float32.

    Attributes:
        step: of the neuron.
        spiking: True if the outputs are 0 or 1, which fit any float; others stay float32.
    """

    step: Step
    spiking: bool

    def __call__(self, params: PyTree, state: PyTree, current: Array) -> tuple[PyTree, Array]:
        """One timestep; spikes in the dtype of the currents."""
        state, outputs = self.step(params, state, widen(current))
        return state, self.cast_outputs(outputs, current)

    def cast_outputs(self, outputs: Array, currents: Array) -> Array:
        """The outputs as they leave, for currents of this dtype."""
        return outputs.astype(currents.dtype) if self.spiking else outputs

    @property
    def sequence(self) -> Any:
        """The step's whole-sequence function between arrays of two bytes; None without one."""
        function = getattr(self.step, "sequence", None)
        # The kernel widens currents of two bytes in registers: no float32 copy in memory.
        if function is None or _unwrap(function) is neurons.lif_kernel:
            return function
        return functools.partial(self._sequence, function)

    def _sequence(self, function: Any, params: PyTree, state: PyTree, currents: Array):
        state, outputs = function(params, state, widen(currents))
        return state, self.cast_outputs(outputs, currents)


def _unwrap(function: Any) -> Any:
    """The function inside of bound options and converted parameters."""
    while hasattr(function, "function"):
        function = function.function
    return function


@dataclasses.dataclass(frozen=True)
class MixedInverse:
    """The inverse of a `MixedStep`, by that of its neuron."""

    inverse: Any

    @property
    def steps(self) -> int | None:
        """Steps that it can undo in a row, see `memory.reverse`."""
        return getattr(self.inverse, "steps", None)

    def __call__(self, params: PyTree, after: PyTree, current: Array, outputs: Array) -> PyTree:
        """The state before a step."""
        return self.inverse(params, after, *map(widen, (current, outputs)))


def mixed_step(step: Step, scan: Any, *, spiking: bool) -> tuple[MixedStep, Any]:
    """A step and its scan, for currents of two bytes; a scan that reverses gets its inverse."""
    if getattr(scan, "inverse", None) is not None:
        scan = dataclasses.replace(scan, inverse=MixedInverse(scan.inverse))
    return MixedStep(step, spiking), scan
