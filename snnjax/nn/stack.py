"""Depth as a scan: equal blocks, stacked, with the memory strategy over depth as an argument.

    x <- block_i(x),  i = 1..n      as      scan(step, (), x, stacked blocks)

Scanned blocks compile once whatever the depth, and only scanned blocks let XLA:CPU save memory: it
undoes recomputation in code unrolled by a Python loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from snnjax import memory
from snnjax.nn.contract import (
    Aux,
    Call,
    Layer,
    MemoryRequest,
    Placed,
    Repeated,
    State,
    largest,
    named,
    output_shape,
    place,
    repeat_state,
    replace,
)
from snnjax.nn.taps import reconstruction
from snnjax.ops.rounding import widen
from snnjax.typing import Array, PyTree, Scan

__all__ = [
    "Stacked",
    "split",
]


def split(state: PyTree) -> tuple[PyTree, PyTree]:
    """The state that all blocks share, and the state of each block: one of the two is None."""
    return (state.block, None) if isinstance(state, Repeated) else (None, state)


class Stacked(nnx.Module):
    """`depth` equal blocks with parameters of their own, scanned over depth.

    What passes from block to block is at least float32.

    Args:
        block: `(rngs) -> layer`; makes one block, whose outputs have the shape of its inputs.
        depth: number of blocks.
        scan: the memory strategy over depth.
        rngs: for the blocks' parameters.

    Raises:
        ValueError: `depth` is not positive; a block changes the shape (on `initial_state`).
    """

    def __init__(
        self,
        block: Callable[[nnx.Rngs], Layer],
        depth: int,
        *,
        rngs: nnx.Rngs,
        scan: Scan = memory.store,
    ):
        if depth < 1:
            raise ValueError(f"a stack has at least one block, got depth={depth}")
        self.depth, self.scan, self.name = depth, scan, "stack"
        keys = jax.random.split(rngs.params(), depth)
        self.blocks = jax.vmap(lambda key: block(nnx.Rngs(key)))(keys)

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Scans the blocks by the strategy over depth, one that reverses without an inverse aside.

        Inputs count as spikes if those of every block are.
        """
        blocks = place(self.blocks, request.inside(request.spiking))
        spiking = request.spiking and blocks.spiking
        if request.spiking and not spiking:  # from the second block on the inputs are no spikes
            blocks = place(self.blocks, request.inside(False))
        changed, scan = replace(self, blocks=blocks.layer), request.strategy.depth
        if scan is None or (isinstance(scan, memory.Reverse) and scan.inverse is None):
            return Placed(changed, spiking, blocks.taken, "loop")
        return Placed(replace(changed, scan=scan), spiking, blocks.taken | {"depth"}, "loop")

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """The blocks' neurons at rest, and their statistics, stacked: `[depth, ...]` leaves."""
        block = jax.tree.map(lambda leaf: leaf[0], self.blocks)
        state = block.initial_state(shape)
        after = output_shape(block, state, shape)
        if after != tuple(shape):
            raise ValueError(
                f"stacked blocks keep the shape, but {shape} became {after}: put the layer that "
                "changes it before the stack"
            )
        return State(
            Repeated(state.neurons, self.depth),
            repeat_state(Repeated(state.statistics, self.depth)),
        )

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """`[T, B, ...]` through every block."""
        rest, neurons = split(state.neurons)
        blocks = (self.blocks, neurons, state.statistics, call.children(self.depth))
        inputs = widen(inputs)
        outputs, aux = self.scan(_block, rest, inputs, blocks)
        seen = {}
        for i in range(self.depth):
            seen |= named(f"block{i}", jax.tree.map(lambda leaf, i=i: leaf[i], aux.taps))
        seen |= reconstruction("", self.scan, _block, rest, inputs, blocks, call.taps)
        return outputs, Aux(aux.state, aux.statistics, seen, largest(aux.diagnostics))


def _block(rest: Any, activations: Array, x: Any) -> tuple[Array, Aux]:
    """One block as a Step over depth: the state is the activations `[T, B, ...]`.

    The params are the neurons at rest, for blocks without a state of their own; the output is the
    block's aux.
    """
    block, neurons, statistics, call = x
    state = State(rest if neurons is None else neurons, statistics)
    outputs, aux = block(activations, state, call)
    return widen(outputs), aux
