"""A stack of reversible blocks: depth that costs no activation memory.

    y1 = x1 + q(F(x2)),   y2 = x2 + q(G(y1)),      (x1, x2) the two halves of the channels

F and G are layers of this library, run over the whole window `[T, B, ...]` from rest, so a block is
a pure function of its parameters and its input. `q` rounds to a dyadic grid, on which the inverse
is exact (`memory.grid`).

Reference: Zhang and Zhang, "Memory-Efficient Reversible Spiking Neural Networks", 2024,
arXiv:2312.07922.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import memory
from snnjax.memory.grid import DEFAULT_BITS
from snnjax.nn.contract import (
    Aux,
    Call,
    Layer,
    MemoryRequest,
    Placed,
    State,
    StreamPeak,
    largest,
    named,
    output_shape,
    place,
    replace,
    taken_by,
)
from snnjax.nn.stack import Repeated, repeat_state
from snnjax.nn.taps import reconstruction
from snnjax.ops.rounding import widen
from snnjax.typing import Array, Scan, bind

__all__ = ["Reversible"]


class Reversible(nnx.Module):
    """`depth` equal reversible blocks, scanned over depth.

    The stream is at least float32, whatever the branches compute in.

    Args:
        f: `(rngs) -> layer`; makes the first branch, whose outputs have the shape of its inputs
            (half the channels).
        g: the same for the second branch.
        depth: number of blocks.
        rngs: for the blocks' parameters.
        scan: the memory strategy over depth; None reverses, `memory.store` and
            `memory.recompute(every)` are the twins that keep activations.
        bits: binary places of the grid; None is the floating stream of the papers, whose reversed
            gradient is only nearly right: one flipped spike spreads through all earlier blocks.
        swap: the parallel form, see `memory.coupling`.

    Raises:
        ValueError: `depth` is not positive; the channels are odd, or a branch changes the shape (on
            `initial_state`).
    """

    def __init__(
        self,
        f: Callable[[nnx.Rngs], Layer],
        g: Callable[[nnx.Rngs], Layer],
        depth: int,
        *,
        rngs: nnx.Rngs,
        scan: Scan | None = None,
        bits: int | None = DEFAULT_BITS,
        swap: bool = False,
    ):
        if depth < 1:
            raise ValueError(f"a stack has at least one block, got depth={depth}")
        self.depth, self.bits, self.swap = depth, bits, swap
        self.scan = memory.reversal() if scan is None else scan
        self.name = "reversible"
        keys = jax.random.split(rngs.params(), (depth, 2))
        self.f = jax.vmap(lambda key: f(nnx.Rngs(key)))(keys[:, 0])
        self.g = jax.vmap(lambda key: g(nnx.Rngs(key)))(keys[:, 1])

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Scans the blocks by the strategy over depth.

        Reversal undoes one branch at a time, and computes its parts between two cuts one by one.
        """
        scan = request.strategy.depth or self.scan
        inner = (scan.inner or memory.recompute(1)) if isinstance(scan, memory.Reverse) else None
        within = dataclasses.replace(request, spiking=False, cut=inner or memory.store)
        parts = [place(branch, within) for branch in (self.f, self.g)]
        changed = replace(self, f=parts[0].layer, g=parts[1].layer, scan=scan)
        taken = taken_by(parts) - {"depth"}  # its own
        if request.strategy.depth is not None:
            taken |= {"depth"}
        return Placed(changed, False, taken, "loop")

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """The branches' neurons at rest and their statistics, stacked: `[depth, ...]` leaves."""
        *front, channels = shape
        if channels % 2:
            raise ValueError(f"a reversible stack splits its channels in two, but got {channels}")
        half, states = (*front, channels // 2), []
        for stacked in (self.f, self.g):
            branch = jax.tree.map(lambda leaf: leaf[0], stacked)
            states.append(branch.initial_state(half))
            if output_shape(branch, states[-1], half) != half:
                raise ValueError("the branches of a reversible block keep the shape of their input")
        neurons, statistics = (
            Repeated(tuple(parts), self.depth) for parts in zip(*states, strict=True)
        )
        return State(neurons, repeat_state(statistics))

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """`[T, B, ..., C]` through every block; the two halves of C are the streams."""
        streams, aux = self.streams(inputs, state, call)
        return jnp.concatenate(streams, axis=-1), aux

    def streams(self, inputs: Array, state: State, call: Call) -> tuple[memory.Streams, Aux]:
        """The same, its outputs as two arrays: they are kept, and joined would be kept twice."""
        f, g = (bind(_branch, which=which) for which in (0, 1))
        couple = memory.coupling(f, g, bits=self.bits, swap=self.swap)
        scan = (
            self.scan.with_inverse(couple) if isinstance(self.scan, memory.Reverse) else self.scan
        )
        neurons = None if isinstance(state.neurons, Repeated) else state.neurons
        entered, peak = memory.grid.with_stream_peak(
            couple.enter(*jnp.split(widen(inputs), 2, axis=-1))
        )
        blocks = ((self.f, self.g), neurons, state.statistics, call.children(self.depth))
        streams, (f_aux, g_aux, peaks) = scan(couple.step, (), entered, blocks)
        seen, bound = {}, math.inf if self.bits is None else memory.grid.grid_bound(bits=self.bits)
        peak = StreamPeak(jnp.maximum(peak, peaks.max()), jnp.asarray(bound, jnp.float32))
        diagnostics = {"": peak}
        for branch, aux in (("f", f_aux), ("g", g_aux)):
            diagnostics |= named(branch, largest(aux.diagnostics))
        for i in range(self.depth):
            for branch, aux in (("f", f_aux), ("g", g_aux)):
                block = jax.tree.map(lambda leaf, i=i: leaf[i], aux.taps)
                seen |= named(f"block{i}/{branch}", block)
        seen |= reconstruction("", scan, couple.step, (), entered, blocks, call.taps)
        states, statistics = (f_aux.state, g_aux.state), (f_aux.statistics, g_aux.statistics)
        return streams, Aux(states, statistics, seen, diagnostics)


def _branch(params: Any, block: Any, x: Array, *, which: int) -> tuple[Array, Aux]:
    """Branch `which` of a block, `(params, block, x) -> (y, aux)`, for `memory.coupling`.

    It runs over the window `[T, B, ...]`, from rest unless the block has a state.
    """
    layers, neurons, statistics, call = block
    # A state at rest is made here: as an argument it would get a gradient of its own size.
    layer = layers[which]
    rest = layer.initial_state(x.shape[1:]).neurons
    own = State(rest if neurons is None else neurons[which], statistics[which])
    y, aux = layer(x, own, call.child(which))
    return widen(y), aux
