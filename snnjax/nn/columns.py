"""A layer of multi-level columns: time as a scan over sub-networks with parameters of their own.

    c[t] = column_t(x, c[t-1]),   t = 1..T,      c[t] = (c_0[t], ..., c_{L-1}[t])

`memory.columns` has the equation of a column and its inverse. The first column has no way up (there
is nothing above it yet) and stands by itself; columns 2..T are of one shape, stacked, and scanned
by the memory strategy. With C the bytes of all states of one column and X those of the input:

    store                       every residual of every column
    recompute(every=1)          X + T C: the boundary of each column
    reversal(refresh=k)         X + (T / k) C
    reversal()                  X + 2 C whatever T (the states of the last column, twice at most)

beside the residuals of one column, and the few numbers that `read` takes.

Reference: Hu et al., "High-Performance Temporal Reversible Spiking Neural Networks with O(L)
Training Memory and O(1) Inference Cost", 2024, arXiv:2405.16466.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import memory
from snnjax.memory.columns import (
    Column,
    ColumnParams,
    MultiLevel,
    clip_magnitude,
    column_bound,
    round_to_power_of_two,
)
from snnjax.nn.contract import Aux, Call, State, StreamPeak, named, replace
from snnjax.nn.stack import Repeated, repeat_state
from snnjax.nn.taps import reconstruction
from snnjax.ops.rounding import widen
from snnjax.typing import Array, PyTree, Scan, bind

__all__ = ["Columns", "nothing"]


class Columns(nnx.Module):
    """`columns` sub-networks of several levels, one per timestep.

    A level is a module with `level(tail, lower, upper, state, call) -> (y, aux)` on arrays
    `[B, H, W, C]`, where `tail` is the part that all columns share at this level,
    `initial_state(lower, upper)` of their shapes, and `output_shape(lower)`.

    Args:
        level: `(number, first, rngs) -> level`; `first` ones are never given an `upper`.
        tail: `(number, rngs) -> module`, made once per level and shared by all columns.
        channels: of each level's state.
        columns: T.
        rngs: for the parameters.
        own_inputs: each column has an input of its own, `[T, B, ...]`; else all have one `[1, B,
            ...]`.
        read: output of a column, from the last level's state `[B, H, W, C]`.
        alpha: at which every alpha starts; on the grid a power of two, and the smallest there is.
        floor: least `|alpha|` of floating states.
        bits: binary places of the grid on which states live; None is floating, as published.
        magnitude: largest state that has to be exact on the grid; the training loop stops where a
            state outgrows what the bits allow.
        scan: the memory strategy over the columns; None is `memory.recompute(1)`.

    Raises:
        ValueError: no columns; an alpha that is 0, or on the grid no power of two in (0, 1]; more
            bits than float32 has; a reversal over more columns than it can undo.
    """

    def __init__(
        self,
        level: Callable[[int, bool, nnx.Rngs], Any],
        tail: Callable[[int, nnx.Rngs], Any],
        channels: Sequence[int],
        columns: int,
        *,
        rngs: nnx.Rngs,
        own_inputs: bool = False,
        read: Callable[[Array], PyTree] | None = None,
        alpha: float = 0.5,
        floor: float = 1e-3,
        bits: int | None = None,
        magnitude: float = 8.0,
        scan: Scan | None = None,
    ):
        if columns < 1:
            raise ValueError(f"there is at least one column, got columns={columns}")
        self.name, self.columns, self.own_inputs, self.bits = "columns", columns, own_inputs, bits
        self.whole_window = columns  # one column per timestep: it cannot be run step by step
        self.read = nothing if read is None else read
        self.scan = memory.recompute(every=1) if scan is None else scan
        places = _places(alpha, bits)
        self.scale = (
            bind(clip_magnitude, floor=floor)
            if bits is None
            else bind(round_to_power_of_two, places=places)
        )
        self.bound = column_bound(bits=bits, places=places, columns=columns)
        if self.bound < magnitude:
            raise ValueError(_too_many_bits(bits, places, columns, magnitude))
        numbers = range(len(channels))
        self.shared = nnx.List([tail(n, rngs) for n in numbers])
        self.first = nnx.List([level(n, True, rngs) for n in numbers])
        keys = jax.random.split(rngs.params(), (len(channels), max(columns - 1, 1)))
        self.later = nnx.List(
            [jax.vmap(lambda key, n=n: level(n, False, nnx.Rngs(key)))(keys[n]) for n in numbers]
            if columns > 1
            else []
        )
        # One row per column; the first scales the state that a call begins with, zero at rest.
        self.learned = nnx.List([nnx.Param(jnp.full((columns, c), alpha)) for c in channels])

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """All states zero, fresh statistics, for an input of this shape, `(B, H, W, C)`."""
        shapes = self.shapes(shape)
        lowers, uppers = [shape, *shapes[:-1]], [*shapes[1:], None]
        first = [
            m.initial_state(a, None).statistics for m, a in zip(self.first, lowers, strict=True)
        ]
        one = jax.eval_shape(lambda: jax.tree.map(lambda leaf: leaf[0], list(self.later)))
        later = [
            m.initial_state(a, b).statistics for m, a, b in zip(one, lowers, uppers, strict=False)
        ]
        statistics = (tuple(first), repeat_state(Repeated(tuple(later), self.columns - 1)))
        return State(tuple(jnp.zeros(s) for s in shapes), statistics)

    def with_scan(self, scan: Scan) -> Columns:
        """The same columns under another memory strategy."""
        return replace(self, scan=scan)

    def shapes(self, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Shapes of the states, by level, for an input of this shape, `(B, H, W, C)`."""
        shapes = []
        for level in self.first:
            shape = level.output_shape(shape)
            shapes.append(shape)
        return shapes

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[PyTree, Aux]:
        """Runs all columns.

        Args:
            inputs: `[1, B, H, W, C]`, read by every column, or `[T, B, H, W, C]`, one each.
            state: from `initial_state`; its neurons are the states before the first column.
            call: its key is not used; names of taps begin with the column.

        Returns:
            `read` of each column, `[T, ...]` leaves, and their `nn.Aux`, with the states after the
            last column.
        """
        inputs = widen(inputs)
        step = MultiLevel(_branch, self.read, self.scale, self.bits)
        statistics_first, statistics_later = state.statistics
        start = tuple(memory.grid.on_grid(c, bits=self.bits) for c in state.neurons)
        alphas = [alpha[...] for alpha in self.learned]
        call = dataclasses.replace(call, key=None)  # levels draw no random numbers
        own = tuple((*pair, call) for pair in zip(self.first, statistics_first, strict=True))
        column = Column(None, own, tuple(alpha[0] for alpha in alphas))
        run = bind(_first, step=step)
        again = run if self.scan is memory.store else memory.replay(run)
        top, (below, aux) = again((column, tuple(self.shared), start), inputs[0])
        states, auxes = (*below, top), [jax.tree.map(lambda leaf: leaf[None], aux)]
        seen = {}
        if self.columns > 1:
            scan = (
                self.scan.with_inverse(step) if isinstance(self.scan, memory.Reverse) else self.scan
            )
            each, all_ = (inputs[1:], None) if self.own_inputs else (None, inputs[0])
            own = tuple((*pair, call) for pair in zip(self.later, statistics_later, strict=True))
            xs = Column(each, own, tuple(alpha[1:] for alpha in alphas))
            common = ColumnParams(all_, tuple(self.shared))
            seen = reconstruction("", scan, step.step, common, states, xs, call.taps)
            states, more = scan(step.step, common, states, xs)
            auxes.append(more)
        return self._leaving(states, auxes, seen)

    def _leaving(self, states, auxes, seen) -> tuple[PyTree, Aux]:
        """Joins the results of the first column and of the others."""
        read = jax.tree.map(lambda *parts: jnp.concatenate(parts), *(aux.read for aux in auxes))
        peak = jnp.concatenate([aux.peak for aux in auxes]).max()
        diagnostics = {"": StreamPeak(peak, jnp.asarray(self.bound, jnp.float32))}
        first = tuple(jax.tree.map(lambda leaf: leaf[0], a.statistics) for a in auxes[0].levels)
        later = tuple(a.statistics for a in auxes[1].levels) if len(auxes) > 1 else ()
        number = 0
        for aux in auxes:
            for row in range(len(aux.peak)):
                for n, level in enumerate(aux.levels):
                    own = jax.tree.map(lambda leaf, row=row: leaf[row], level.taps)
                    seen |= named(f"column{number}/level{n}", own)
                number += 1
        return read, Aux(tuple(states), (first, later), seen, diagnostics)


def _branch(shared: Any, own: Any, lower: Array, upper: Array | None) -> tuple[Array, Aux]:
    """`B_l` and its aux, as `memory.columns` takes a level."""
    level, statistics, call = own
    y, aux = level(shared, lower, upper, State((), statistics), call)
    return widen(y), aux


def nothing(top: Array) -> tuple[()]:
    """Reads nothing of a column."""
    del top
    return ()


def _first(held: PyTree, x: Array, *, step: MultiLevel):
    """The first column as `memory.replay` takes it: an array out, the rest beside."""
    column, shared, start = held
    states, aux = step.step(ColumnParams(x, shared), start, column, first=True)
    return states[-1], (states[:-1], aux)


def _places(alpha: float, bits: int | None) -> int:
    """Binary places that one column costs."""
    if not alpha:
        raise ValueError("an alpha of 0 forgets the state for good: the published start is 0.5")
    if bits is None:
        return 0
    places = -math.log2(abs(alpha))
    if places < 0 or places != int(places):
        raise ValueError(
            f"on a grid alpha is a power of two in (0, 1], got {alpha}: use 0.5 or 1, or bits=None"
        )
    return int(places)


def _too_many_bits(bits: int | None, places: int, columns: int, magnitude: float) -> str:
    need = math.ceil(bits + places * columns + math.log2(magnitude))  # type: ignore[operator]
    return (
        f"bits={bits} and {places} places for each of {columns} columns, with states up to "
        f"{magnitude:g}, need {need} bits where float32 has 24: use fewer bits, alpha=1 (which "
        "costs none per column), a smaller magnitude, or bits=None with memory.reversal(refresh=4)"
    )
