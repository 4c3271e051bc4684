"""A function whose residuals are not kept: it runs again when its derivative is wanted.

    forward    y = f(held, x),   kept: held and x
    backward   f again with its residuals, at once its derivative, and they are gone

What `jax.checkpoint` does, in a form that XLA:CPU cannot undo: there replay and derivative are one
`isolate`, so no two replays hold their working sets at the same time, whether the code around is
scanned or not and whichever scheduler orders it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from snnjax.memory import symbolic
from snnjax.memory.packing import Like, pack, unpack
from snnjax.memory.trees import combine, partition, pulled_back, smooth_half
from snnjax.ops import isolate
from snnjax.typing import Array, PyTree

__all__ = ["Replayed", "replayed"]

Link = Callable[[PyTree, Array], tuple[Array, PyTree]]


def replayed(function: Link, *, spikes: bool = False) -> Replayed:
    """The same function, keeping its arguments and nothing else.

    Values are the function's own and gradients those of `jax.checkpoint` of it. With X the bytes of
    its input and R those of its residuals, X (X / 32 if they are spikes) is kept, and R is needed
    only while its derivative is computed; one more forward pass. Do not use it for forward-mode
    differentiation.

    Args:
        function: `(held, x) -> (y, by-products)`, pure; `held` are parameters, states and keys,
            `x` one array or a tuple of them.
        spikes: `x` is 0 or 1 everywhere and is kept at one bit each.

    Returns:
        A function of the same arguments; equal arguments give equal results.
    """
    return Replayed(function, spikes)


@dataclasses.dataclass(frozen=True)
class Replayed:
    """A function that runs again for its derivative; made by `replayed`."""

    function: Link
    spikes: bool = False

    def __call__(self, held: PyTree, x: Array) -> tuple[Array, PyTree]:
        """The function's outputs."""
        smooth, rest = partition((held, x))
        return _run(self, smooth, rest)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(replay, smooth, rest):
    return replay.function(*combine(smooth, rest))


def _run_forward(replay, smooth, rest):
    wanted = symbolic.perturbed(smooth)
    held, x = combine(*symbolic.values((smooth, rest)))
    outputs = replay.function(held, x)
    likes = jax.tree.map(Like.of, x)
    return outputs, (held, pack(x) if replay.spikes else x, likes, wanted)


def _run_backward(replay, residuals, cotangents):
    held, kept, like, wanted = residuals
    x = unpack(kept, like.shape, like.dtype) if replay.spikes else kept
    y, aux = jax.eval_shape(replay.function, held, x)
    d_y, d_aux = smooth_half((y, aux), cotangents)
    d_y, d_aux = symbolic.filled(d_y), symbolic.hollow(d_aux)
    (asked, place), others = wanted.halves(
        (held, _after(jax.tree.leaves(d_y)[0], like) if replay.spikes else x)
    )
    # The gradient of x takes the place of that of y where it fits, or else that of x itself.
    whole = len(jax.tree.leaves(place)) == len(jax.tree.leaves(x))
    fits = whole and jax.tree.map(Like.of, y) == like
    if fits:
        place, d_y = d_y, None
    elif whole and not replay.spikes:
        kept = None

    def undo(carry, others, kept, d_y, d_aux):
        asked, place = carry
        x = place if kept is None else kept
        x = unpack(x, like.shape, like.dtype) if replay.spikes else x
        held, _ = combine((asked, place), others)
        mine, rest = wanted.halves((held, x))
        again = lambda mine: replay.function(*combine(mine, rest))  # noqa: E731
        d_outputs = (place if fits else d_y, d_aux)
        return pulled_back(again, mine, cotangents=d_outputs)[1][0]

    return isolate(undo, (asked, place), others, kept, d_y, d_aux), None


def _after(array: Array, like: Like) -> Array:
    """Zeros that XLA:CPU cannot write down before it has the array."""
    first = array.reshape(-1)[:1].sum().astype(like.dtype)
    return jnp.broadcast_to(jnp.minimum(jnp.abs(first), 0), like.shape)


_run.defvjp(_run_forward, _run_backward, symbolic_zeros=True)
