"""Numbers of two bytes between layers, in such a way that every replay sees the same ones.

    narrow(x) = x rounded to bfloat16 or float16,     widen(x) = the same number in float32

XLA may skip a rounding and its way back (`float32 -> bfloat16 -> float32`) wherever both stand in
one fused loop. What a derivative kept was rounded then and what a replay computes was not, and a
difference in the last bit is enough to flip a spike. So everything here rounds by
`lax.reduce_precision`, which is never skipped, and computes in at least float32 in between: the
rounding stands in the program once, where the docstring says.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from snnjax import neurons
from snnjax.nn.geometry import vary_alike, wide
from snnjax.typing import Array, PyTree, Step

__all__ = [
    "MixedInverse",
    "MixedStep",
    "add_bias",
    "at_least",
    "is_narrow",
    "mixed",
    "narrow",
    "product",
    "widen",
]

# These widen currents of two bytes where they compute, not in memory.
_READ_NARROW = (neurons.lif_kernel, neurons.integrate_fire_kernel, neurons.plif_kernel)


def is_narrow(array: Any) -> bool:
    """Whether it is floating with fewer than 32 bits."""
    floating = jnp.issubdtype(array.dtype, jnp.floating)
    return bool(floating and jnp.finfo(array.dtype).bits < 32)


def widen(x: Array) -> Array:
    """The same numbers in at least float32; others than narrow floats stay as they are."""
    return x.astype(wide(x.dtype)) if is_narrow(x) else x


def narrow(x: Array, dtype: Any) -> Array:
    """Rounds to a dtype, to the nearest number that it has and among two to the even one.

    Args:
        x: any floating array.
        dtype: of the result; at least 32 bits are a plain cast. Beyond the largest float16, 65504,
            lies infinity.
    """
    info = jnp.finfo(dtype)
    if info.bits >= 32:
        return x.astype(dtype)
    # With float32's exponents, as the shorter ones would flush the smallest float16 to zero: those
    # below 2^-14 are rounded twice, here and by the cast.
    rounded = lax.reduce_precision(widen(x), exponent_bits=8, mantissa_bits=info.nmant)
    return rounded.astype(dtype)


def product(inputs: Array, kernel: Array) -> Array:
    """`inputs @ kernel` with operands in the dtype of the inputs, summed in at least float32.

    The derivative keeps the inputs as they are; its own products have operands of that dtype too,
    and the kernel's gradient is not rounded.

    Args:
        inputs: `[..., I]`, any floating dtype.
        kernel: `[I, O]`, of any; rounded to that of the inputs.

    Returns:
        `[..., O]`, in at least float32.
    """
    inputs, kernel = vary_alike(inputs, kernel)
    return _product(inputs, kernel)


@jax.custom_vjp
def _product(inputs: Array, kernel: Array) -> Array:
    return _dot(inputs, narrow(kernel, inputs.dtype), -1, 0)


def _product_backward(kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    inputs, kernel = kept
    g = narrow(g, inputs.dtype)
    g_inputs = _dot(g, narrow(kernel, inputs.dtype), -1, 1)
    rows, columns = (a.reshape(-1, a.shape[-1]) for a in (inputs, g))
    return narrow(g_inputs, inputs.dtype), _dot(rows, columns, 0, 0).astype(kernel.dtype)


_product.defvjp(lambda inputs, kernel: (_product(inputs, kernel), (inputs, kernel)),
                _product_backward)  # fmt: skip


def _dot(a: Array, b: Array, left: int, right: int) -> Array:
    axes = ((left % a.ndim,), (right,))
    return lax.dot_general(a, b, (axes, ((), ())), preferred_element_type=wide(a.dtype))


def at_least(kernel: Array, dtype: Any) -> Array:
    """A kernel, cast where it has fewer bits than what it is multiplied with."""
    return kernel if jnp.finfo(kernel.dtype).bits > jnp.finfo(dtype).bits else kernel.astype(dtype)


def add_bias(outputs: Array, bias: Array | None, dtype: Any) -> Array:
    """`outputs + bias`, added in at least float32 and rounded once, to a dtype."""
    if bias is None:
        return narrow(outputs, dtype)
    total = widen(outputs)
    return narrow(total + bias.astype(total.dtype), dtype)


@dataclasses.dataclass(frozen=True)
class MixedStep:
    """A neuron's step between arrays of two bytes: its state and all it computes are float32.

    Attributes:
        step: of the neuron.
        spiking: whether the outputs are 0 or 1, which fit any float; others leave as they are.
    """

    step: Step
    spiking: bool

    def __call__(self, params: PyTree, state: PyTree, current: Array) -> tuple[PyTree, Array]:
        """One timestep; spikes in the dtype of the currents."""
        state, outputs = self.step(params, state, widen(current))
        return state, self.leaving(outputs, current)

    def leaving(self, outputs: Array, currents: Array) -> Array:
        """The outputs as they leave, for currents of this dtype."""
        return outputs.astype(currents.dtype) if self.spiking else outputs

    @property
    def whole(self) -> Any:
        """The same of a whole sequence, where the step has such a function (`memory.whole`)."""
        function: Any = self.step.whole  # type: ignore[attr-defined]
        if getattr(function, "function", function) in _READ_NARROW:
            return function
        return functools.partial(self._whole, function)

    def _whole(self, function: Any, params: PyTree, state: PyTree, currents: Array):
        state, outputs = function(params, state, widen(currents))
        return state, self.leaving(outputs, currents)


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


def mixed(step: Step, scan: Any, *, spiking: bool) -> tuple[MixedStep, Any]:
    """A step and its scan, for currents of two bytes; a scan that reverses gets its inverse."""
    if getattr(scan, "inverse", None) is not None:
        scan = dataclasses.replace(scan, inverse=MixedInverse(scan.inverse))
    return MixedStep(step, spiking), scan
