"""Additive couplings: blocks that can be undone whatever their branches compute.

    y1 = x1 + q(F(x2))          x2 = y2 - q(G(y1))
    y2 = x2 + q(G(y1))          x1 = y1 - q(F(x2))

`q` rounds to a dyadic grid (`memory.grid`), on which the inverse is exact and every replay sees the
bits of the forward pass. The gradient is then that of `memory.store`, up to what XLA rounds
otherwise when it fuses the two programs (float32, relative to the largest entry: nothing for the
conv-BN-IF stacks of tests/memory/test_coupling.py on a CPU, below 2e-6 elsewhere). Off the grid a
rounding error can flip a spike, and at 16 blocks gradients of the first block with a cosine of 0.72
to that of `store` were seen, once 0.07.

The branches are any pure functions; they may return by-products, such as normalisation statistics,
which leave once, from the forward pass. With `swap=True` the streams change places in between: the
parallel form, in which G of one block and F of the next can run side by side:

    y1 = x2 + q(F(x1))          y2 = x1 + q(G(y1))

References: Gomez, Ren, Urtasun, Grosse, "The Reversible Residual Network", 2017, arXiv:1707.04585;
Zhang and Zhang, "Memory-Efficient Reversible Spiking Neural Networks", 2024, arXiv:2312.07922; the
parallel form after Xu, Sun, Liu, Liao, Yang, "ParaRevSNN: A Parallel Reversible Spiking Neural
Network for Efficient Training and Inference", 2025, arXiv:2508.01223.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from snnjax.memory.grid import DEFAULT_BITS, on_grid, watched
from snnjax.memory.trees import combine, partition, partition_read, pulled_back, sum_found
from snnjax.ops import isolate
from snnjax.typing import Array, PyTree

__all__ = ["Coupling", "CouplingAux", "Streams", "coupling"]


class Streams(NamedTuple):
    """The two halves of a reversible stream, of one shape."""

    x1: Array
    x2: Array


class CouplingAux(NamedTuple):
    """What leaves a block once.

    Attributes:
        f: by-products of F.
        g: by-products of G.
        peak: largest magnitude in the block's output streams; exact below `grid_bound`.
    """

    f: PyTree
    g: PyTree
    peak: Array


Branch = Callable[[PyTree, PyTree, Array], tuple[Array, PyTree]]


def coupling(
    f: Branch, g: Branch, *, bits: int | None = DEFAULT_BITS, swap: bool = False
) -> Coupling:
    """Couples two branches to a step over depth that knows its inverse.

    Args:
        f: `(params, block, x) -> (y, by-products)`, where `params` is what all blocks share and
            `block` is this block's own; `y` has the shape of `x`.
        g: the same.
        bits: binary places of the grid; None is the floating stream of the papers, whose
            inverse is only nearly right (see `memory.grid`).
        swap: the parallel form.

    Returns:
        A coupling `c`: `c.step` is the Step over depth on `Streams`, and `memory.reverse(c)` the
        scan that keeps its output only. Equal arguments give equal couplings.

    Example:
        c = coupling(f, g)
        streams = c.enter(x1, x2)
        streams, aux = memory.reverse(c)(c.step, (), streams, blocks)
    """
    return Coupling(f, g, bits, swap)


@dataclasses.dataclass(frozen=True)
class Coupling:
    """An additive coupling; made by `coupling`. Calling it is the inverse of `step`.

    Attributes:
        f: first branch.
        g: second branch.
        bits: binary places of the grid, or None.
        swap: whether the streams change places.
    """

    f: Branch
    g: Branch
    bits: int | None = DEFAULT_BITS
    swap: bool = False

    def enter(self, x1: Array, x2: Array) -> Streams:
        """Streams on the grid from two arrays of one shape."""
        return Streams(on_grid(x1, bits=self.bits), on_grid(x2, bits=self.bits))

    def step(self, params: PyTree, streams: Streams, block: PyTree) -> tuple[Streams, CouplingAux]:
        """One block forward."""
        x1, x2 = self._order(streams)
        fx, f_aux = self._rounded(self.f, params, block, x2)
        y1 = x1 + fx
        gy, g_aux = self._rounded(self.g, params, block, y1)
        after, peak = watched(Streams(y1, x2 + gy))
        return after, CouplingAux(f_aux, g_aux, peak)

    def __call__(self, params: PyTree, after: Streams, block: PyTree, y: Any) -> Streams:
        """The streams before the block, from those after it."""
        del y
        x2 = after.x2 - self._rounded(self.g, params, block, after.x1)[0]
        x1 = after.x1 - self._rounded(self.f, params, block, x2)[0]
        return self._order(Streams(x1, x2))

    def pull(
        self, params: PyTree, after: Streams, block: PyTree, y: Any, cotangents: Any
    ) -> tuple[Streams, tuple[PyTree, Streams, PyTree]]:
        """Inverse and derivative at once: each branch runs forward once, under `jax.vjp`.

        The branches take turns (`ops.isolate`): the working set is that of one.
        """
        del y
        (d1, d2), d_aux = cotangents
        held = (params, block)
        by_g, y1, x2, d1, d2 = self._undo(self.g, held, d_aux.g, *after, d1, d2)
        by_f, x2, x1, d2, d1 = self._undo(self.f, held, d_aux.f, x2, y1, d2, d1)
        before, g_before = self._order(Streams(x1, x2)), self._order(Streams(d1, d2))
        g_params, g_block = sum_found(partition(held)[0], by_f, by_g)
        return before, (g_params, g_before, g_block)

    def _undo(self, branch: Branch, held: PyTree, d_aux: PyTree, *streams: Array) -> PyTree:
        """`(u, w, du, dw) -> (u, w - q(b(u)), du + b'(u)^T dw, dw)`, gradients of `held` in front.

        Only what the branch reads of `held` goes with it, and its gradients take its place.
        """

        def run(held, u):
            params, block = held
            return self._rounded(branch, params, block, u)

        def undo(carry, others, d_aux):
            smooth, u, w, du, dw = carry
            again = lambda smooth, u: run(combine(smooth, others), u)  # noqa: E731
            (b, _), (gradients, e) = pulled_back(again, smooth, u, cotangents=(dw, d_aux))
            return gradients, u, w - b, du + e, dw

        (read, _), (unread, _) = partition_read(run, held, streams[0])
        smooth, fixed = partition(read)
        return isolate(undo, (smooth, *streams), combine(fixed, unread), d_aux)

    def _order(self, streams: Streams) -> Streams:
        return Streams(streams.x2, streams.x1) if self.swap else streams

    def _rounded(self, branch: Branch, params: PyTree, block: PyTree, x: Array):
        y, aux = branch(params, block, x)
        return on_grid(y, bits=self.bits), aux
