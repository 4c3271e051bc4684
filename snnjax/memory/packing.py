"""Spike trains kept at one bit per spike: a residual 32 times smaller than float32.

    kept   ceil(N / 8) bytes for N spikes        instead of 4 N

The derivative of a synapse with respect to its weights needs its input spikes. `packed` keeps them
as bits and unpacks them in the backward pass; values and gradients are those of the function, bit
for bit, as long as its input really is 0 or 1. What the function itself would have kept besides is
computed again, so wrap synapses one at a time: for a linear map nothing is, since its derivative
does not look at its output.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from snnjax.memory.trees import combine, partition, smooth_vjp
from snnjax.typing import Array, PyTree

__all__ = ["Packed", "pack", "packed", "unpack"]


def pack(spikes: Array) -> Array:
    """Spikes of any shape as bits: uint8, `[ceil(N / 8)]`. Anything but 0 counts as a spike."""
    return jnp.packbits(spikes.reshape(-1) != 0)


def unpack(bits: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Spikes, 0 or 1, of that shape and dtype, from `pack`."""
    size = 1
    for n in shape:
        size *= n
    return jnp.unpackbits(bits, count=size).reshape(shape).astype(dtype)


def packed(function: Callable[[PyTree, Array], Array]) -> Packed:
    """Keeps a function's input spikes at one bit each for the backward pass.

    Args:
        function: `(params, spikes) -> outputs`, pure; convolution, linear map, attention, pooling.
            The spikes must be 0 or 1 exactly: of other inputs the gradient would be wrong, since
            all that is kept of them is whether they are 0.

    Returns:
        The same function of `(params, spikes)`, with the packed derivative. Equal functions give
        equal results. Works inside `lax.scan` and under every strategy of `snnjax.memory`; it
        costs the packing, and what of the function its derivative needs again. Do not use it in
        front of real-valued inputs, or for forward-mode differentiation.

    Reference:
        Huang, Fang, Hao, Ma, Tian, "Towards Lossless Memory-efficient Training of Spiking Neural
        Networks via Gradient Checkpointing and Spike Compression", ICLR 2026.
    """
    return Packed(function)


@dataclasses.dataclass(frozen=True)
class Packed:
    """A function that keeps its input spikes as bits; made by `packed`."""

    function: Callable[[PyTree, Array], Array]

    def __call__(self, params: PyTree, spikes: Array) -> Array:
        """The function's outputs."""
        smooth, rest = partition(params)
        return _apply(self.function, smooth, rest, spikes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _apply(function, smooth, rest, spikes):
    return function(combine(smooth, rest), spikes)


def _apply_forward(function, smooth, rest, spikes):
    like = jax.ShapeDtypeStruct(spikes.shape, spikes.dtype)
    outputs = function(combine(smooth, rest), spikes)
    return outputs, (smooth, rest, pack(spikes), _Like(like))


def _apply_backward(function, residuals, cotangents):
    smooth, rest, bits, like = residuals
    spikes = unpack(bits, like.of.shape, like.of.dtype)
    _, pull = smooth_vjp(function, combine(smooth, rest), spikes)
    g_params, g_spikes = pull(cotangents)
    return g_params, None, g_spikes


_apply.defvjp(_apply_forward, _apply_backward)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Like:
    """A shape and dtype, carried to the backward pass as structure, not as data."""

    of: jax.ShapeDtypeStruct
