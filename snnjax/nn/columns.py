"""Multi-level columns: one sub-network per timestep, each with its own parameters.

    c[t] = column_t(x, c[t-1]),   t = 1..T,      c[t] = (c_0[t], ..., c_{L-1}[t])

`memory.columns` has the equation of a column and its inverse. The first column has no inputs from
upper levels, since there is no earlier column, and is a separate sub-network. Columns 2..T have one
structure; they are stacked and scanned by the memory strategy. Bytes kept by a gradient, with C
bytes of all states of one column and X bytes of the input:

    store                       all residuals of all columns
    recompute(every=1)          X + T C: the states between columns
    reversal(refresh=k)         X + (T / k) C
    reversal()                  X + 2 C for any T (the states of the last column, at most twice)

besides the residuals of one column and the outputs of `read`.

Reference: Hu et al., "High-Performance Temporal Reversible Spiking Neural Networks with O(L)
Training Memory and O(1) Inference Cost", 2024, arXiv:2405.16466.
"""

from __future__ import annotations

import dataclasses
import functools
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
from snnjax.nn._checks import check_rngs, check_scan
from snnjax.nn.contract import (
    Aux,
    Call,
    Repeated,
    State,
    StreamPeak,
    prefix_names,
    repeat_state,
    replace,
)
from snnjax.nn.stack import stack_layers
from snnjax.nn.taps import reconstruction
from snnjax.ops.arguments import check_counts, check_numbers
from snnjax.ops.rounding import widen, widen_to
from snnjax.typing import Array, PyTree, Scan, bind

__all__ = ["Columns", "read_nothing"]


class Columns(nnx.Module):
    """`columns` sub-networks of L levels, one per timestep.

        c_l[t] = B_l(c_{l-1}[t], c_{l+1}[t-1]) + alpha_l[t] c_l[t-1],    l = 0..L-1,  t = 1..T
        outputs[t] = read(c_{L-1}[t])

    with `c_{-1}[t]` the input of column t and no term from above at the last level. States c_l
    `[B, H_l, W_l, C_l]` start at 0. Reversal recovers `c_l[t-1] = (c_l[t] - B_l(..)) / alpha_l[t]`.

    A level B_l is a module with `level(tail, lower, upper, state, call) -> (y, aux)` on arrays
    `[B, H, W, C]`, with `initial_state(lower, upper)` of their shapes, and `output_shape(lower)`;
    `tail` is the module that all columns share at this level.

    Args:
        level: `(number, first, rngs) -> level`; levels of the first column have no `upper`.
        tail: `(number, rngs) -> module`, made once per level and shared by all columns.
        channels: channels C_l of the state of each level.
        columns: T.
        rngs: random streams of the parameters.
        own_inputs: True if each column has its own input, `[T, B, H, W, C]`; False if all share
            one, `[1, B, H, W, C]`.
        read: output of a column from the state of its last level, `[B, H, W, C]`; None for none.
        alpha: initial value of every alpha; on the grid a power of two, which is also the lower
            bound.
        floor: lower bound of `|alpha|` for floating-point states.
        bits: binary places of the grid of the states; None is floating point, as published.
        magnitude: largest state that must be exact on the grid; the training loop stops when a
            state exceeds the bound of the bits.
        scan: memory strategy over the columns; None is `memory.recompute(1)`.

    Raises:
        ValueError: no columns; an alpha of 0, or on the grid an alpha that is no power of two in
            (0, 1]; more bits than float32 has; a reversal over more columns than it can undo.

    Reference:
        Hu et al., "High-Performance Temporal Reversible Spiking Neural Networks with O(L) Training
        Memory and O(1) Inference Cost", 2024, arXiv:2405.16466.
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
        check_counts("nn.Columns", columns=columns, channels=tuple(channels))
        check_numbers("nn.Columns", alpha=alpha)
        check_numbers("nn.Columns", above=0, floor=floor, magnitude=magnitude)
        if bits is not None:
            check_counts("nn.Columns", bits=bits)
        check_scan("nn.Columns", scan)
        check_rngs("nn.Columns", rngs)
        self.name, self.columns, self.own_inputs, self.bits = "columns", columns, own_inputs, bits
        self.whole_window = columns  # columns differ, so a single timestep has no step to run
        self.read = read_nothing if read is None else read
        self.scan = memory.recompute(every=1) if scan is None else scan
        places = _alpha_places(alpha, bits)
        self.scale = (
            bind(clip_magnitude, floor=floor)
            if bits is None
            else bind(round_to_power_of_two, places=places)
        )
        self.bound = column_bound(bits=bits, places=places, columns=columns)
        # Refused now: an inexact grid would show only as a slightly wrong gradient.
        if self.bound < magnitude:
            raise ValueError(_bits_error(bits, places, columns, magnitude))
        numbers = range(len(channels))
        self.shared = nnx.List([tail(n, rngs) for n in numbers])
        self.first = nnx.List([level(n, True, rngs) for n in numbers])
        keys = jax.random.split(rngs.params(), (len(channels), max(columns - 1, 1)))
        self.later = nnx.List(
            [stack_layers(functools.partial(level, n, False), keys[n]) for n in numbers]
            if columns > 1
            else []
        )
        # One row per column; the first row scales the initial state, which is zero at rest.
        self.learned = nnx.List([nnx.Param(jnp.full((columns, c), alpha)) for c in channels])

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """States zero and initial statistics; `shape` is that of an input, `(B, H, W, C)`."""
        shapes = self.shapes(shape)
        # The last level has no level above it.
        lowers, uppers = [shape, *shapes[:-1]], [*shapes[1:], None]
        first = [
            m.initial_state(a, None).statistics for m, a in zip(self.first, lowers, strict=True)
        ]
        # Only shapes are needed, so no parameter is copied.
        one = jax.eval_shape(lambda: jax.tree.map(lambda leaf: leaf[0], list(self.later)))
        later = [
            m.initial_state(a, b).statistics for m, a, b in zip(one, lowers, uppers, strict=False)
        ]
        statistics = (tuple(first), repeat_state(Repeated(tuple(later), self.columns - 1)))
        return State(tuple(jnp.zeros(s) for s in shapes), statistics)

    def with_scan(self, scan: Scan) -> Columns:
        """A copy of the columns under another memory strategy."""
        return replace(self, scan=scan)

    def shapes(self, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Shapes of the states by level; `shape` is that of an input, `(B, H, W, C)`."""
        shapes = []
        for level in self.first:
            shape = level.output_shape(shape)
            shapes.append(shape)
        return shapes

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[PyTree, Aux]:
        """Runs all columns.

        Args:
            inputs: `[1, B, H, W, C]` for all columns, or `[T, B, H, W, C]`, one row per column.
            state: state from `initial_state`; its neurons are the states before the first column.
            call: options of the call; the key is unused. Names of taps start with the column.

        Returns:
            Outputs of `read` with leaves `[T, ...]`, and an `nn.Aux` with the states after the last
            column.
        """
        # Columns are computed in float32: a narrow stream has no exact inverse.
        inputs = widen(inputs)
        step = MultiLevel(_branch, self.read, self.scale, self.bits)
        statistics_first, statistics_later = state.statistics
        # The inverse is exact only for states on the grid, also for the first ones.
        start = widen_to(state.neurons, inputs.dtype)
        start = tuple(memory.grid.on_grid(c, bits=self.bits) for c in start)
        alphas = [alpha[...] for alpha in self.learned]
        call = dataclasses.replace(call, key=None)  # levels draw no random numbers
        own = tuple((*pair, call) for pair in zip(self.first, statistics_first, strict=True))
        column = Column(None, own, tuple(alpha[0] for alpha in alphas))
        run = bind(_run_first, step=step)
        # The first column is outside of the scan, but keeps no residuals either.
        run_replayed = run if self.scan is memory.store else memory.replay(run)
        top, (below, aux) = run_replayed((column, tuple(self.shared), start), inputs[0])
        states, auxes = (*below, top), [jax.tree.map(lambda leaf: leaf[None], aux)]
        taps = {}
        if self.columns > 1:
            # The step is its own inverse: `MultiLevel` has both directions.
            scan = (
                self.scan.with_inverse(step) if isinstance(self.scan, memory.Reverse) else self.scan
            )
            each, all_ = (inputs[1:], None) if self.own_inputs else (None, inputs[0])
            # Leaves `[T - 1, ...]`: the scan hands each column its own parameters.
            own = tuple((*pair, call) for pair in zip(self.later, statistics_later, strict=True))
            xs = Column(each, own, tuple(alpha[1:] for alpha in alphas))
            common = ColumnParams(all_, tuple(self.shared))
            taps = reconstruction("", scan, step.step, common, states, xs, call.taps)
            states, more = scan(step.step, common, states, xs)
            auxes.append(more)
        return self._join_results(states, auxes, taps)

    def _join_results(self, states, auxes, taps) -> tuple[PyTree, Aux]:
        """Joins the results of the first column and of the others."""
        # The first column has an axis of length 1, the others one of T - 1.
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
                    taps |= prefix_names(f"column{number}/level{n}", own)
                number += 1
        return read, Aux(tuple(states), (first, later), taps, diagnostics)


def _branch(shared: Any, own: Any, lower: Array, upper: Array | None) -> tuple[Array, Aux]:
    """`B_l` and its `Aux`, in the signature of `memory.columns`."""
    level, statistics, call = own
    y, aux = level(shared, lower, upper, State((), statistics), call)
    # A branch is added to a float32 state.
    return widen(y), aux


def read_nothing(top: Array) -> tuple[()]:
    """The default `read`, without outputs."""
    del top
    return ()


def _run_first(arguments: PyTree, x: Array, *, step: MultiLevel):
    """The first column in the signature of `memory.replay`: one output array, the rest beside."""
    column, shared, start = arguments
    states, aux = step.step(ColumnParams(x, shared), start, column, first=True)
    return states[-1], (states[:-1], aux)


def _alpha_places(alpha: float, bits: int | None) -> int:
    """Binary places that one column adds to a state: `-log2(alpha)` on a grid, else 0."""
    if not alpha:
        raise ValueError("an alpha of 0 discards the state: use alpha=0.5, as published")
    if bits is None:
        return 0
    places = -math.log2(abs(alpha))
    if places < 0 or places != int(places):
        raise ValueError(
            f"on a grid alpha is a power of two in (0, 1], got {alpha}: use 0.5 or 1, or bits=None"
        )
    return int(places)


def _bits_error(bits: int | None, places: int, columns: int, magnitude: float) -> str:
    need = math.ceil(bits + places * columns + math.log2(magnitude))  # type: ignore[operator]
    return (
        f"bits={bits} and {places} places for each of {columns} columns, with states up to "
        f"{magnitude:g}, need {need} bits where float32 has 24: use fewer bits, alpha=1 (which "
        "costs none per column), a smaller magnitude, or bits=None with memory.reversal(refresh=4)"
    )
