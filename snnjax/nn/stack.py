"""Stacks: equal blocks, scanned over depth by a memory strategy; their states at rest.

    x <- block_i(x),  i = 1..n      as      scan(step, (), x, stacked blocks)

A scanned block compiles once, whatever the depth. On a CPU only scanned blocks save memory: XLA
undoes recomputation in code that a Python loop unrolls.

At rest all blocks have the same state. `Repeated` holds it once, since XLA would write `[depth,
...]` zeros to memory before the loop over depth. After a call each block has its own state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from flax import nnx

from snnjax import memory
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
    max_over_steps,
    output_shape,
    place,
    prefix_names,
    repeat_state,
    replace,
)
from snnjax.nn.taps import reconstruction, watch_block
from snnjax.ops.arguments import check_counts, shorten
from snnjax.ops.rounding import widen
from snnjax.typing import Array, Key, PyTree, Scan

__all__ = [
    "Stacked",
    "split_repeated",
    "stack_layers",
]


M = TypeVar("M")


def split_repeated(state: PyTree) -> tuple[PyTree, PyTree]:
    """`(state, None)` if all blocks share the state at rest, else `(None, state)`."""
    return (state.block, None) if isinstance(state, Repeated) else (None, state)


class Stacked(nnx.Module):
    """`depth` equal blocks, each with its own parameters, scanned over depth.

        x_0 = inputs,   x_i = block_i(x_{i-1}),   outputs = x_depth        [T, B, ...]

    Activations between blocks are at least float32.

    Args:
        block: `(rngs) -> layer`; makes one block, whose outputs have the shape of its inputs.
        depth: number of blocks.
        scan: memory strategy over depth.
        rngs: random streams of the blocks' parameters.

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
        check_counts("nn.Stacked", depth=depth)
        check_scan("nn.Stacked", scan)
        check_rngs("nn.Stacked", rngs)
        self.depth, self.scan, self.name = depth, scan, "stack"
        keys = jax.random.split(rngs.params(), depth)
        self.blocks = stack_layers(block, keys)

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Scans the blocks by the strategy over depth, unless it reverses without an inverse.

        Inputs count as spikes only if every block maps spikes to spikes.
        """
        # Behind a block comes the next one, with the same neurons.
        request = behind(request, [self.blocks])
        # The stacked blocks are placed as one layer: their leaves have an extra axis `[depth]`.
        blocks = place(self.blocks, request.child(request.spiking))
        spiking = request.spiking and blocks.spiking
        # All blocks share one setting, and the inputs of later ones are real numbers.
        if request.spiking and not spiking:
            blocks = place(self.blocks, request.child(False))
        changed, scan = replace(self, blocks=blocks.layer), request.strategy.depth
        if scan is None or (isinstance(scan, memory.Reverse) and scan.inverse is None):
            return Placed(changed, spiking, blocks.taken, "loop")
        return Placed(replace(changed, scan=scan), spiking, blocks.taken | {"depth"}, "loop")

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """Neurons at rest as a `Repeated`, and statistics with `[depth, ...]` leaves."""
        # All blocks have one shape: the first stands for all.
        block = jax.tree.map(lambda leaf: leaf[0], self.blocks)
        state = block.initial_state(shape)
        after = output_shape(block, state, shape)
        if after != tuple(shape):
            raise ValueError(
                f"stacked blocks keep the shape, but {shape} became {after}: put the layer that "
                "changes the shape before the stack"
            )
        return State(
            Repeated(state.neurons, self.depth),
            repeat_state(Repeated(state.statistics, self.depth)),
        )

    def infer_shape(self, state: State, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the inputs, which every block keeps."""
        del state
        return tuple(shape)

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Applies every block in order to a sequence `[T, B, ...]`."""
        resting, neurons = split_repeated(state.neurons)
        blocks = (self.blocks, neurons, state.statistics, call.children(self.depth))
        # The carry of a scan keeps its dtype, and a residual stream is float32.
        inputs = widen(inputs)
        outputs, aux = self.scan(_block, resting, inputs, blocks)
        taps = {}
        # Scanned taps have an axis over depth; each block gets its own name.
        for i in range(self.depth):
            taps |= prefix_names(f"block{i}", jax.tree.map(lambda leaf, i=i: leaf[i], aux.taps))
        taps |= reconstruction("", self.scan, _block, resting, inputs, blocks, call.taps)
        return outputs, Aux(aux.state, aux.statistics, taps, max_over_steps(aux.diagnostics))


def _block(resting: Any, activations: Array, x: Any) -> tuple[Array, Aux]:
    """One block as a Step over depth.

    Args:
        resting: neurons at rest, shared by all blocks, as params; None if blocks have own states.
        activations: `[T, B, ...]`, the carried state.
        x: block, its neurons or None, its statistics and its call.

    Returns:
        Activations and the block's `Aux`.
    """
    block, neurons, statistics, call = x
    state = State(resting if neurons is None else neurons, statistics)
    outputs, aux = block(activations, state, call)
    return widen(outputs), watch_block(block, activations, aux)


def stack_layers(make: Callable[[nnx.Rngs], M], keys: Key) -> M:
    """Layers of equal structure, drawn at once, with leaves `[depth, ...]`, ready for a scan.

    Args:
        make: `(rngs) -> layer`.
        keys: one key per layer, `[depth]`.

    Raises:
        TypeError: `make` is a layer, or does not return one.
    """
    if isinstance(make, nnx.Module) or not callable(make):
        raise TypeError(
            "a stack draws each block anew by a function, lambda rngs: nn.Sequential(...), and got "
            f"{shorten(make)}"
        )
    graphdefs = []

    def draw(key: Key) -> Any:
        layer = make(nnx.Rngs(key))
        if not isinstance(layer, nnx.Module):
            raise TypeError(
                f"a stack takes a function (rngs) -> layer of its blocks, got one that returns "
                f"{shorten(layer)}"
            )
        # Split: as a tree, a layer that stands at two places would become two.
        graphdef, state = nnx.split(layer)
        graphdefs.append(graphdef)
        return state

    state = jax.vmap(draw)(keys)
    return nnx.merge(graphdefs[0], state)
