"""Depth as a scan: equal blocks, stacked, with the memory strategy over depth as an argument.

    x <- block_i(x),  i = 1..n      as      scan(step, (), x, stacked blocks)

Scanned blocks compile once whatever the depth, and only scanned blocks let XLA:CPU save memory: it
undoes recomputation in code unrolled by a Python loop.

At rest all blocks have the same state. `Repeated` holds it once; as `[depth, ...]` arrays XLA would
write all those zeros out before its loop over depth. After a call each block has its own state.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax import memory
from snnjax.nn.contract import (
    Aux,
    Call,
    Layer,
    MemoryRequest,
    Placed,
    State,
    max_over_steps,
    output_shape,
    place,
    prefix_names,
    replace,
)
from snnjax.nn.taps import reconstruction
from snnjax.ops.rounding import widen
from snnjax.typing import Array, PyTree, Scan

__all__ = [
    "Repeated",
    "Stacked",
    "repeat_state",
    "split_repeated",
]


@functools.partial(jax.tree_util.register_dataclass, data_fields=["block"], meta_fields=["depth"])
@dataclasses.dataclass(frozen=True)
class Repeated:
    """The state of `depth` equal blocks at rest.

    A state of your own is given as arrays `[depth, ...]` instead; blocks may make this one anew.

    Attributes:
        block: the state of one.
        depth: how many there are.
    """

    block: PyTree
    depth: int


def repeat_state(state: PyTree) -> PyTree:
    """The same state with an array `[depth, ...]` in place of each leaf at rest.

    For loops over time, which carry the state and need it in one form.
    """

    def expand(node: Any) -> Any:
        if not isinstance(node, Repeated):
            return node
        return jax.tree.map(functools.partial(_repeat, node.depth), repeat_state(node.block))

    return jax.tree.map(expand, state, is_leaf=lambda node: isinstance(node, Repeated))


def _repeat(depth: int, leaf: Any) -> Any:
    # Initial statistics are NumPy arrays, and stay so (see BatchNorm.initial_state).
    library = np if isinstance(leaf, np.ndarray) else jnp
    return library.broadcast_to(leaf, (depth, *leaf.shape))


def split_repeated(state: PyTree) -> tuple[PyTree, PyTree]:
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
        blocks = place(self.blocks, request.child(request.spiking))
        spiking = request.spiking and blocks.spiking
        if request.spiking and not spiking:  # from the second block on the inputs are no spikes
            blocks = place(self.blocks, request.child(False))
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
        resting, neurons = split_repeated(state.neurons)
        blocks = (self.blocks, neurons, state.statistics, call.children(self.depth))
        inputs = widen(inputs)
        outputs, aux = self.scan(_block, resting, inputs, blocks)
        taps = {}
        for i in range(self.depth):
            taps |= prefix_names(f"block{i}", jax.tree.map(lambda leaf, i=i: leaf[i], aux.taps))
        taps |= reconstruction("", self.scan, _block, resting, inputs, blocks, call.taps)
        return outputs, Aux(aux.state, aux.statistics, taps, max_over_steps(aux.diagnostics))


def _block(resting: Any, activations: Array, x: Any) -> tuple[Array, Aux]:
    """One block as a Step over depth: the state is the activations `[T, B, ...]`.

    The params are the neurons at rest, for blocks without a state of their own; the output is the
    block's aux.
    """
    block, neurons, statistics, call = x
    state = State(resting if neurons is None else neurons, statistics)
    outputs, aux = block(activations, state, call)
    return widen(outputs), aux
