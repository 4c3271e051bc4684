"""Replay of a function that keeps its arguments instead of its residuals.

    forward    y = f(operands, x),   kept: operands and x
    backward   f again with its residuals, then at once its derivative

This is `jax.checkpoint` in a form that XLA:CPU cannot undo: replay and derivative run in one
`ops.isolate`, so the working sets of two replays never exist at the same time, in scanned or
unrolled code and under any scheduler.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from snnjax.memory.packing import ArraySpec, decode_spikes, encode_spikes
from snnjax.ops import symbolic_zeros
from snnjax.ops.isolate import isolate
from snnjax.ops.trees import combine, inexact_cotangents, partition, value_and_pullback
from snnjax.typing import Array, PyTree

__all__ = ["Replay", "replay"]

Link = Callable[[PyTree, Array], tuple[Array, PyTree]]


def replay(function: Link, *, spikes: bool = False) -> Replay:
    """Wraps a function so that its derivative keeps the arguments and replays the function.

        forward    y = f(operands, x),   kept: operands and x
        backward   f again with its residuals, then at once its derivative

    Values are those of the function and gradients those of its `jax.checkpoint`. With X the bytes
    of its input and R those of its residuals, it keeps X (X / 32 for spikes) and needs R only while
    its derivative is computed, for one extra forward pass. Do not use it for forward-mode
    differentiation, also over the gradient: second derivatives are those of reverse mode over
    reverse mode, and with `spikes` they are refused.

    Args:
        function: Pure function `(operands, x) -> (y, by-products)`; the operands are parameters,
            states and keys, `x` is one array or a tuple of arrays.
        spikes: Keeps each entry of `x` at one bit; the gradient is NaN if one is not 0 or 1.

    Returns:
        A function of the same arguments; equal arguments of `replay` give equal results.
    """
    return Replay(function, spikes)


@dataclasses.dataclass(frozen=True)
class Replay:
    """Function with a replaying derivative, made by `replay`."""

    function: Link
    spikes: bool = False

    def __call__(self, operands: PyTree, x: Array) -> tuple[Array, PyTree]:
        """Calls the function."""
        inexact, others = partition((operands, x))
        return _run(self, inexact, others)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(replay, inexact, others):
    return replay.function(*combine(inexact, others))


def _run_forward(replay, inexact, others):
    # Arguments whose gradient nobody asks for get none: their buffers stay out of the carry.
    mask = symbolic_zeros.gradient_mask(inexact)
    operands, x = combine(*symbolic_zeros.primal_values((inexact, others)))
    outputs = replay.function(operands, x)
    spec = jax.tree.map(ArraySpec.from_array, x)
    # Of order 1: a derivative rule runs its forward pass undifferentiated.
    return outputs, (operands, encode_spikes(x, order=1) if replay.spikes else x, spec, mask)


def _run_backward(replay, residuals, cotangents):
    operands, kept, spec, mask = residuals
    x = decode_spikes(kept, spec.shape, spec.dtype) if replay.spikes else kept
    # Shapes only; the replay itself runs inside `isolate`.
    y, aux = jax.eval_shape(replay.function, operands, x)
    d_y, d_aux = inexact_cotangents((y, aux), cotangents)
    d_y, d_aux = symbolic_zeros.materialize(d_y), symbolic_zeros.drop(d_aux)
    # The carry of `isolate` is updated in place: gradients overwrite the arrays they belong to. The
    # buffer for the gradient of x is that of y's gradient if it fits, or else x itself.
    (differentiated, buffer), fixed = mask.split(
        (operands, _zeros_after(jax.tree.leaves(d_y)[0], spec) if replay.spikes else x)
    )
    complete = len(jax.tree.leaves(buffer)) == len(jax.tree.leaves(x))
    fits = complete and jax.tree.map(ArraySpec.from_array, y) == spec
    if fits:
        buffer, d_y = d_y, None
    elif complete and not replay.spikes:
        kept = None

    def pull(carry, fixed, kept, d_y, d_aux):
        differentiated, buffer = carry
        x = buffer if kept is None else kept
        x = decode_spikes(x, spec.shape, spec.dtype) if replay.spikes else x
        operands, _ = combine((differentiated, buffer), fixed)
        arguments, others = mask.split((operands, x))
        function = lambda arguments: replay.function(*combine(arguments, others))  # noqa: E731
        d_outputs = (buffer if fits else d_y, d_aux)
        return value_and_pullback(function, arguments, cotangents=d_outputs)[1][0]

    return isolate(pull, (differentiated, buffer), fixed, kept, d_y, d_aux), None


def _zeros_after(array: Array, spec: ArraySpec) -> Array:
    """Zeros of the given shape that depend on an array."""
    # XLA:CPU would write constant zeros at the start of the program and hold them all along.
    first = array.reshape(-1)[:1].sum().astype(spec.dtype)
    return jnp.broadcast_to(jnp.minimum(jnp.abs(first), 0), spec.shape)


_run.defvjp(_run_forward, _run_backward, symbolic_zeros=True)
