"""How a kept array is stored: spikes at one bit each, real values at two bytes or one.

    spikes        1 bit                    exact
    "bfloat16"    2 bytes                  |error| <= 2^-8 |x|
    "int8"        1 byte and one scale     |error| <= max|x| / 254

The derivative of a synapse with respect to its weights needs its inputs. `packed` keeps those in
few bits and unpacks them in the backward pass. What the function itself would have kept besides is
computed again, so wrap synapses one at a time: for a linear map nothing is, since its derivative
does not look at its output.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from snnjax.memory.trees import combine, partition, pulled_back
from snnjax.typing import Array, PyTree

__all__ = ["Like", "Packed", "Storage", "pack", "packed", "unpack", "unpacked"]

Storage = Literal["spikes", "bfloat16", "int8"]
_STORAGES = ("spikes", "bfloat16", "int8")


def pack(spikes: Array) -> Array:
    """Spikes of any shape as bits: uint8, `[ceil(N / 8)]`. Anything but 0 counts as a spike."""
    return jnp.packbits(spikes.reshape(-1) != 0)


def unpack(bits: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Spikes, 0 or 1, of that shape and dtype, from `pack`."""
    return jnp.unpackbits(bits, count=math.prod(shape)).reshape(shape).astype(dtype)


@jax.custom_vjp
def unpacked(bits: Array, spikes: Array) -> Array:
    """The spikes again, `unpack(pack(spikes))`, with the gradient of the identity.

    Inside `jax.checkpoint` a derivative then keeps the bits in place of the spikes:

        bits = pack(spikes)
        outputs = jax.checkpoint(lambda bits, spikes: f(unpacked(bits, spikes)))(bits, spikes)
    """
    return unpack(bits, spikes.shape, spikes.dtype)


unpacked.defvjp(
    lambda bits, spikes: (unpack(bits, spikes.shape, spikes.dtype), None),
    lambda _, cotangent: (None, cotangent),
)


def packed(function: Callable[[PyTree, Array], Array], *, storage: Storage = "spikes") -> Packed:
    """Keeps a function's inputs in few bits for the backward pass.

    With `"spikes"` values and gradients are those of the function, bit for bit, as long as its
    input really is 0 or 1; `ceil(N / 8)` bytes are kept of N spikes instead of `4 N`. With
    `"bfloat16"` and `"int8"` the values are exact and the derivative is taken at the rounded input:
    of a linear map the inputs' gradient is exact and the weights' carries the error above, weighted
    as their gradient weights the inputs.

    Args:
        function: `(params, inputs) -> outputs`, pure; convolution, linear map, attention, pooling.
        storage: what is kept of the inputs. Of `"spikes"` only whether they are 0: of any inputs
            but 0 and 1 the gradient would be wrong.

    Returns:
        The same function of `(params, inputs)`, with the packed derivative. Equal arguments give
        equal results. Works inside `lax.scan` and under every strategy of `snnjax.memory`; it
        costs the packing, and what of the function its derivative needs again. Do not use it for
        forward-mode differentiation, nor with real-valued storage around a threshold: a replay at
        a rounded input flips spikes.

    Raises:
        ValueError: an unknown storage.

    Reference:
        Huang, Fang, Hao, Ma, Tian, "Towards Lossless Memory-efficient Training of Spiking Neural
        Networks via Gradient Checkpointing and Spike Compression", ICLR 2026.
    """
    if storage not in _STORAGES:
        raise ValueError(f"storage must be one of {', '.join(_STORAGES)}, got {storage!r}")
    return Packed(function, storage)


@dataclasses.dataclass(frozen=True)
class Packed:
    """A function that keeps its inputs in few bits; made by `packed`."""

    function: Callable[[PyTree, Array], Array]
    storage: Storage = "spikes"

    def __call__(self, params: PyTree, inputs: Array) -> Array:
        """The function's outputs."""
        smooth, rest = partition(params)
        return _apply(self.function, self.storage, smooth, rest, inputs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _apply(function, storage, smooth, rest, inputs):
    del storage
    return function(combine(smooth, rest), inputs)


def _apply_forward(function, storage, smooth, rest, inputs):
    outputs = function(combine(smooth, rest), inputs)
    like = Like.of(inputs)
    return outputs, (smooth, rest, _encode(inputs, storage), like)


def _apply_backward(function, storage, residuals, cotangents):
    smooth, rest, code, like = residuals
    inputs = _decode(code, storage, like)
    args = combine(smooth, rest), inputs
    _, (g_params, g_inputs) = pulled_back(function, *args, cotangents=cotangents)
    return g_params, None, g_inputs


_apply.defvjp(_apply_forward, _apply_backward)


def _encode(inputs: Array, storage: Storage) -> Any:
    if storage == "spikes":
        return pack(inputs)
    if storage == "bfloat16":
        return inputs.astype(jnp.bfloat16)
    scale = jnp.max(jnp.abs(inputs)) / 127
    levels = jnp.round(inputs / jnp.where(scale == 0, 1, scale))
    return levels.astype(jnp.int8), scale


def _decode(code: Any, storage: Storage, like: Like) -> Array:
    if storage == "spikes":
        return unpack(code, like.shape, like.dtype)
    if storage == "bfloat16":
        return code.astype(like.dtype)
    levels, scale = code
    return levels.astype(like.dtype) * scale


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Like:
    """A shape and dtype, carried to the backward pass as structure, not as data."""

    shape: tuple[int, ...]
    dtype: Any

    @classmethod
    def of(cls, array: Any) -> Like:
        """Those of an array, or of what stands for one."""
        return cls(tuple(array.shape), array.dtype)
