"""Reversible blocks, scanned over depth: activation memory independent of depth.

    y1 = x1 + q(F(x2)),   y2 = x2 + q(G(y1)),      (x1, x2) the two halves of the channels

F and G are layers, run over all timesteps `[T, B, ...]` from rest, so a block is a pure function of
its parameters and its input. `q` rounds to a dyadic grid, on which the inverse is exact
(`memory.grid`).

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
from snnjax.nn._approximate import behind
from snnjax.nn._checks import check_rngs, check_scan
from snnjax.nn.contract import (
    Aux,
    Call,
    Layer,
    MemoryRequest,
    Placed,
    Repeated,
    State,
    StreamPeak,
    max_over_steps,
    output_shape,
    parts_taken,
    place,
    prefix_names,
    repeat_state,
    replace,
)
from snnjax.nn.stack import stack_layers
from snnjax.nn.taps import reconstruction, watch_block
from snnjax.ops.arguments import check_counts, check_flags
from snnjax.ops.rounding import widen
from snnjax.typing import Array, Scan, bind

__all__ = ["Reversible"]


class Reversible(nnx.Module):
    """`depth` reversible blocks, scanned over depth; `[T, B, ..., C] -> [T, B, ..., C]`.

        y1 = x1 + q(F(x2)),    y2 = x2 + q(G(y1))        forward, (x1, x2) the halves of C
        x2 = y2 - q(G(y1)),    x1 = y1 - q(F(x2))        inverse

    F and G are layers on half the channels; `q` rounds to multiples of `2^-bits`, so that sums and
    differences are exact. Streams are at least float32 in every precision. A gradient by reversal
    keeps the outputs of the last block and the residuals of one block, for one more forward pass.

    Args:
        f: `(rngs) -> layer`; makes F, whose outputs have the shape of its inputs, `[T, B, ...,
            C / 2]`.
        g: `(rngs) -> layer`; makes G, of the same shape.
        depth: number of blocks.
        rngs: random streams of the blocks' parameters.
        scan: memory strategy over depth; None reverses, `memory.store` and
            `memory.recompute(every)` keep activations and give the same values.
        bits: binary places of the grid; None is the floating-point stream of the papers, whose
            reversed gradient is only approximate: one flipped spike spreads to all earlier blocks.
        swap: use the parallel form, `y1 = x2 + q(F(x1))`, `y2 = x1 + q(G(y1))`; see
            `memory.coupling`.

    Raises:
        ValueError: `depth` is not positive; the channels are odd, or a branch changes the shape (on
            `initial_state`).

    Reference:
        Zhang and Zhang, "Memory-Efficient Reversible Spiking Neural Networks", 2024,
        arXiv:2312.07922.
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
        check_counts("nn.Reversible", depth=depth)
        if bits is not None:
            check_counts("nn.Reversible", bits=bits)
        check_flags("nn.Reversible", swap=swap)
        check_scan("nn.Reversible", scan)
        check_rngs("nn.Reversible", rngs)
        self.depth, self.bits, self.swap = depth, bits, swap
        self.scan = memory.reversal() if scan is None else scan
        self.name = "reversible"
        keys = jax.random.split(rngs.params(), (depth, 2))
        self.f, self.g = stack_layers(f, keys[:, 0]), stack_layers(g, keys[:, 1])

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Applies the strategy over depth to the scan of the blocks, the rest to the branches.

        Reversal inverts one branch at a time, and recomputes the branch part by part between cuts.
        """
        scan = request.strategy.depth or self.scan
        # The pullback of a branch needs its activations, one part at a time.
        inner = (scan.inner or memory.recompute(1)) if isinstance(scan, memory.Reverse) else None
        within = dataclasses.replace(request, spiking=False, cut=inner or memory.store)
        within = behind(within, [self.f, self.g])
        parts = [place(branch, within) for branch in (self.f, self.g)]
        changed = replace(self, f=parts[0].layer, g=parts[1].layer, scan=scan)
        taken = parts_taken(parts) - {"depth"}  # the branches' cuts belong to this scan
        # Without a request for depth, the constructor's scan stays and nothing is used.
        if request.strategy.depth is not None:
            taken |= {"depth"}
        return Placed(changed, False, taken, "loop")

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """Neurons at rest as a `Repeated`, and statistics with `[depth, ...]` leaves."""
        *front, channels = shape
        if channels % 2:
            raise ValueError(f"a reversible stack splits its channels in two, but got {channels}")
        # Branches act on one stream, half of the channels.
        half, states = (*front, channels // 2), []
        for stacked in (self.f, self.g):
            # All blocks have one shape: the first stands for all.
            branch = jax.tree.map(lambda leaf: leaf[0], stacked)
            states.append(branch.initial_state(half))
            if output_shape(branch, states[-1], half) != half:
                raise ValueError("the branches of a reversible block keep the shape of their input")
        neurons, statistics = (
            Repeated(tuple(parts), self.depth) for parts in zip(*states, strict=True)
        )
        return State(neurons, repeat_state(statistics))

    def infer_shape(self, state: State, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the inputs, which every block keeps."""
        del state
        return tuple(shape)

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Inputs `[T, B, ..., C]` through every block; the halves of C are the two streams."""
        streams, aux = self.streams(inputs, state, call)
        return jnp.concatenate(streams, axis=-1), aux

    def streams(self, inputs: Array, state: State, call: Call) -> tuple[memory.Streams, Aux]:
        """The layer with its outputs as two arrays, `[T, B, ..., C / 2]` each.

        Reversal keeps the two streams; a consumer that keeps their concatenation, too, would double
        that memory.
        """
        f, g = (bind(_branch, which=which) for which in (0, 1))
        couple = memory.coupling(f, g, bits=self.bits, swap=self.swap)
        # The coupling is the inverse: only here are the options of the branches known.
        scan = (
            self.scan.with_inverse(couple) if isinstance(self.scan, memory.Reverse) else self.scan
        )
        # Each branch makes its state at rest inside of the loop, see `_branch`.
        neurons = None if isinstance(state.neurons, Repeated) else state.neurons
        start, peak = memory.grid.with_stream_peak(
            couple.enter(*jnp.split(widen(inputs), 2, axis=-1))
        )
        blocks = ((self.f, self.g), neurons, state.statistics, call.children(self.depth))
        streams, (f_aux, g_aux, peaks) = scan(couple.step, (), start, blocks)
        taps, bound = {}, math.inf if self.bits is None else memory.grid.grid_bound(bits=self.bits)
        # The input is part of the stream, and may already exceed the bound.
        peak = StreamPeak(jnp.maximum(peak, peaks.max()), jnp.asarray(bound, jnp.float32))
        diagnostics = {"": peak}
        for branch, aux in (("f", f_aux), ("g", g_aux)):
            diagnostics |= prefix_names(branch, max_over_steps(aux.diagnostics))
        for i in range(self.depth):
            for branch, aux in (("f", f_aux), ("g", g_aux)):
                block = jax.tree.map(lambda leaf, i=i: leaf[i], aux.taps)
                taps |= prefix_names(f"block{i}/{branch}", block)
        taps |= reconstruction("", scan, couple.step, (), start, blocks, call.taps)
        states, statistics = (f_aux.state, g_aux.state), (f_aux.statistics, g_aux.statistics)
        return streams, Aux(states, statistics, taps, diagnostics)


def _branch(params: Any, block: Any, x: Array, *, which: int) -> tuple[Array, Aux]:
    """Branch `which` of a block, `(params, block, x) -> (y, aux)`, for `memory.coupling`.

    Args:
        params: unused.
        block: both branches, their neurons or None, their statistics and the call.
        x: `[T, B, ..., C / 2]`.
        which: 0 for F, 1 for G.
    """
    layers, neurons, statistics, call = block
    # The state at rest is made here: as an argument it would get a cotangent of its own size.
    layer = layers[which]
    own = layer.initial_state(x.shape[1:]).neurons if neurons is None else neurons[which]
    own = State(own, statistics[which])
    y, aux = layer(x, own, call.child(which))
    return widen(y), watch_block(layer, x, aux)
