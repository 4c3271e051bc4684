"""Additive couplings: blocks with an exact inverse for any branch functions.

    y1 = x1 + q(F(x2))          x2 = y2 - q(G(y1))
    y2 = x2 + q(G(y1))          x1 = y1 - q(F(x2))

`q` rounds to a dyadic grid (`memory.grid`), on which the inverse is exact and a replay reproduces
the bits of the forward pass. The gradient then equals that of `memory.store`, up to rounding if XLA
fuses the two programs differently (float32, relative to the largest entry: 0 for the conv-BN-IF
stacks of tests/memory/test_coupling.py on a CPU, below 2e-6 elsewhere). Off the grid a rounding
error can flip a spike: at 16 blocks the cosine between gradients of the first block and those of
`store` fell to 0.72, once to 0.07.

The branches are any pure functions. Their by-products, such as normalisation statistics, are
outputs of the forward pass only. `swap=True` exchanges the streams between blocks, the parallel
form, in which G of one block and F of the next can run concurrently:

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

from snnjax.memory.grid import DEFAULT_BITS, on_grid, with_stream_peak
from snnjax.ops.isolate import isolate
from snnjax.ops.trees import combine, partition, partition_by_use, sum_partial, value_and_pullback
from snnjax.typing import Array, PyTree

__all__ = ["Coupling", "CouplingAux", "Streams", "coupling"]


class Streams(NamedTuple):
    """Both halves of a reversible stream, of equal shape."""

    x1: Array
    x2: Array


class CouplingAux(NamedTuple):
    """Outputs of a block other than its streams.

    Attributes:
        f: By-products of F.
        g: By-products of G.
        peak: Largest magnitude in the output streams; the coupling is exact below `grid_bound`.
    """

    f: PyTree
    g: PyTree
    peak: Array


Branch = Callable[[PyTree, PyTree, Array], tuple[Array, PyTree]]


def coupling(
    f: Branch, g: Branch, *, bits: int | None = DEFAULT_BITS, swap: bool = False
) -> Coupling:
    """Couples two branches to a step over depth with an exact inverse.

        y1 = x1 + q(F(x2)),    y2 = x2 + q(G(y1)),    q rounds to multiples of 2^-bits

    Args:
        f: Branch F, `(params, block, x) -> (y, by-products)`, of the parameters shared by all
            blocks and those of one block; `y` has the shape of `x`.
        g: Branch G, of the same form.
        bits: Binary places of the grid; None is the floating stream of the papers, whose inverse is
            only approximate (see `memory.grid`).
        swap: Uses the parallel form, `y1 = x2 + q(F(x1))`, `y2 = x1 + q(G(y1))`.

    Returns:
        A coupling `c`: `c.step` is the step over depth on `Streams`, and `memory.reverse(c)` the
        scan that keeps only its output. Equal arguments give equal couplings.

    Example:
        c = coupling(f, g)
        streams = c.enter(x1, x2)
        streams, aux = memory.reverse(c)(c.step, (), streams, blocks)
    """
    return Coupling(f, g, bits, swap)


@dataclasses.dataclass(frozen=True)
class Coupling:
    """Additive coupling, made by `coupling`; the call is the inverse of `step`.

    Attributes:
        f: First branch.
        g: Second branch.
        bits: Binary places of the grid, or None.
        swap: True if the streams change places.
    """

    f: Branch
    g: Branch
    bits: int | None = DEFAULT_BITS
    swap: bool = False

    def enter(self, x1: Array, x2: Array) -> Streams:
        """Rounds two arrays of equal shape to streams on the grid."""
        return Streams(on_grid(x1, bits=self.bits), on_grid(x2, bits=self.bits))

    def step(self, params: PyTree, streams: Streams, block: PyTree) -> tuple[Streams, CouplingAux]:
        """Advances the streams by one block."""
        x1, x2 = self._order(streams)
        fx, f_aux = self._branch(self.f, params, block, x2)
        y1 = x1 + fx
        gy, g_aux = self._branch(self.g, params, block, y1)
        # The peak is an output of every block: the training loop refuses a stream beyond the grid.
        after, peak = with_stream_peak(Streams(y1, x2 + gy))
        return after, CouplingAux(f_aux, g_aux, peak)

    def __call__(self, params: PyTree, after: Streams, block: PyTree, y: Any) -> Streams:
        """Reconstructs the streams before a block from those after it."""
        del y
        # The branches in reverse order: G reads y1, which is known, and F the x2 that G gives.
        x2 = after.x2 - self._branch(self.g, params, block, after.x1)[0]
        x1 = after.x1 - self._branch(self.f, params, block, x2)[0]
        return self._order(Streams(x1, x2))

    def pull(
        self, params: PyTree, after: Streams, block: PyTree, y: Any, cotangents: Any
    ) -> tuple[Streams, tuple[PyTree, Streams, PyTree]]:
        """Computes inverse and pullback together; each branch runs forward once, by `jax.vjp`."""
        # The branches run in turn (`ops.isolate`), so the working set is that of one branch.
        del y
        (d1, d2), d_aux = cotangents
        operands = (params, block)
        # G first, as in the inverse; its cotangent e of y1 joins d1 before F is differentiated.
        by_g, y1, x2, d1, d2 = self._undo(self.g, operands, d_aux.g, *after, d1, d2)
        by_f, x2, x1, d2, d1 = self._undo(self.f, operands, d_aux.f, x2, y1, d2, d1)
        before, g_before = self._order(Streams(x1, x2)), self._order(Streams(d1, d2))
        g_params, g_block = sum_partial(partition(operands)[0], by_f, by_g)
        return before, (g_params, g_before, g_block)

    def _undo(self, branch: Branch, operands: PyTree, d_aux: PyTree, *streams: Array) -> PyTree:
        """Undoes one branch: `(u, w, du, dw) -> (u, w - q(b(u)), du + b'(u)^T dw, dw)`.

        The gradients of the operands come first in the result.
        """

        def run(operands, u):
            params, block = operands
            return self._branch(branch, params, block, u)

        def undo(carry, others, d_aux):
            inexact, u, w, du, dw = carry
            function = lambda inexact, u: run(combine(inexact, others), u)  # noqa: E731
            (b, _), (gradients, e) = value_and_pullback(
                function, inexact, u, cotangents=(dw, d_aux)
            )
            return gradients, u, w - b, du + e, dw

        # Only operands that the branch reads enter the carry, where their gradients overwrite them:
        # the others would be carried along as zeros.
        (used, _), (unused, _) = partition_by_use(run, operands, streams[0])
        inexact, fixed = partition(used)
        return isolate(undo, (inexact, *streams), combine(fixed, unused), d_aux)

    def _order(self, streams: Streams) -> Streams:
        return Streams(streams.x2, streams.x1) if self.swap else streams

    def _branch(self, branch: Branch, params: PyTree, block: PyTree, x: Array):
        y, aux = branch(params, block, x)
        return on_grid(y, bits=self.bits), aux
