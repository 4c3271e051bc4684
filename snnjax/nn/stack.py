"""Depth as a scan: equal blocks, stacked, with the memory strategy over depth as an argument.

    x <- block_i(x),  i = 1..n      as      scan(step, (), x, stacked blocks)

Scanned blocks compile once whatever the depth, and only scanned blocks let XLA:CPU save memory: it
undoes recomputation in code unrolled by a Python loop.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from snnjax import memory
from snnjax.nn.contract import Aux, Layer, State, output_shape
from snnjax.nn.narrow import widen
from snnjax.nn.reconstruction import reconstruction
from snnjax.nn.rest import Rest, expanded, split
from snnjax.typing import Array, Key, Scan

__all__ = ["Stacked"]


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
        return State(Rest(state.neurons, self.depth), expanded(Rest(state.statistics, self.depth)))

    def __call__(
        self,
        inputs: Array,
        state: State,
        *,
        training: bool,
        key: Key | None = None,
        taps: tuple[str, ...] = (),
    ) -> tuple[Array, Aux]:
        """`[T, B, ...]` through every block."""
        keys = None if key is None else jax.random.split(key, self.depth)
        rest, neurons = split(state.neurons)
        step, blocks = Block(training, taps), (self.blocks, neurons, state.statistics, keys)
        inputs = widen(inputs)
        outputs, aux = self.scan(step, rest, inputs, blocks)
        seen = {
            f"block{i}/{name}".rstrip("/"): jax.tree.map(lambda leaf, i=i: leaf[i], kinds)
            for i in range(self.depth)
            for name, kinds in aux.taps.items()
        }
        seen |= reconstruction("", self.scan, step, rest, inputs, blocks, taps)
        return outputs, Aux(aux.state, aux.statistics, seen)


@dataclasses.dataclass(frozen=True)
class Block:
    """One block as a Step over depth: activations are the state, block and its state the input.

    Its params are the neurons at rest, for blocks that come without a state of their own.
    """

    training: bool
    taps: tuple[str, ...]

    def __call__(self, rest: Any, activations: Array, x) -> tuple[Array, Aux]:
        """Activations `[T, B, ...]` through one block; its aux leaves as the output."""
        block, neurons, statistics, key = x
        state = State(rest if neurons is None else neurons, statistics)
        outputs, aux = block(activations, state, training=self.training, key=key, taps=self.taps)
        return widen(outputs), aux
