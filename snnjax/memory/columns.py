"""Multi-level columns: reversible chains of states, for any functions of the levels.

    c_l[t] = q(B_l(c_{l-1}[t], c_{l+1}[t-1])) + alpha_l[t] * c_l[t-1],      l = 0..L-1

    inverse, from the last level to the first:
    c_l[t-1] = (c_l[t] - q(B_l(c_{l-1}[t], c_{l+1}[t-1]))) / alpha_l[t]

Level 0 reads the input in place of `c_{-1}`, and the last level has no `c_L`. Each column `t` has
its own `B_l` and `alpha_l`; the columns may share parts of `B_l`.

Dividing by alpha multiplies a rounding error by `1 / |alpha|` per column, so at most
`FLOATING_STEPS` columns in a row are undone in floating point. On the grid (`q` rounds to multiples
of `2^-bits`, alpha is a power of two, at least `2^-places`) both directions are exact as long as
each state fits the mantissa of float32: column `t` holds multiples of `2^-(bits + places * t)`, so

    bits + places * columns + log2(magnitude) <= 24

References: Hu et al., "High-Performance Temporal Reversible Spiking Neural Networks with O(L)
Training Memory and O(1) Inference Cost", 2024, arXiv:2405.16466; the columns after Cai, Zhou, Han,
Sun, Kong, Li, Zhang, "Reversible Column Networks", 2022, arXiv:2212.11696.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from snnjax.memory.grid import on_grid, stream_peak
from snnjax.ops.derivative import with_derivative
from snnjax.ops.isolate import isolate
from snnjax.ops.trees import combine, partition, value_and_pullback
from snnjax.typing import Array, PyTree

__all__ = [
    "FLOATING_STEPS",
    "Column",
    "ColumnAux",
    "ColumnParams",
    "MultiLevel",
    "clip_magnitude",
    "column_bound",
    "round_to_power_of_two",
]

# Gradient error against autodiff, float32, alpha 0.5: 1e-8 after 4 columns, 2e-3 after 8.
FLOATING_STEPS = 4


class ColumnParams(NamedTuple):
    """Parameters of the step, shared by all columns.

    Attributes:
        x: Input of level 0, or None if every column has its own.
        levels: Shared parameters per level, any pytrees.
    """

    x: Array | None
    levels: tuple[PyTree, ...]


class Column(NamedTuple):
    """Scanned input of the step for one column.

    Attributes:
        x: Input of level 0, or None if all columns share one.
        levels: Parameters of the column per level, any pytrees.
        alphas: Unconstrained parameter of alpha per level, `[C]`.
    """

    x: Array | None
    levels: tuple[PyTree, ...]
    alphas: tuple[Array, ...]


class ColumnAux(NamedTuple):
    """Outputs of a column.

    Attributes:
        levels: By-products of the levels.
        read: Result of `MultiLevel.read` on the last level.
        peak: Largest magnitude of the column's states.
    """

    levels: tuple[PyTree, ...]
    read: PyTree
    peak: Array


@dataclasses.dataclass(frozen=True)
class MultiLevel:
    """Step over columns, `step`, and its inverse, the call, for `memory.reverse`.

        c_l[t] = q(B_l(c_{l-1}[t], c_{l+1}[t-1])) + alpha_l[t] * c_l[t-1]

    Attributes:
        level: Pure function `B_l`, `(shared, own, lower, upper) -> (y, by-products)`, of the
            parameters shared by all columns, those of this column, `c_{l-1}[t]` and `c_{l+1}[t-1]`
            (None at the last level, and in a column without an upper input).
        read: Function from the last level's state to the input of the head. A reversing scan keeps
            its result: make it small.
        scale: Map of the unconstrained parameter to alpha: `clip_magnitude` or
            `round_to_power_of_two` with their options bound.
        bits: Binary places of the grid; None is floating point.
    """

    # Functions are fields: a `MultiLevel` is a static argument of `custom_vjp` and compares by
    # value.
    level: Callable[..., tuple[Array, PyTree]]
    read: Callable[[Array], PyTree]
    scale: Callable[[Array], Array]
    bits: int | None = None

    @property
    def steps(self) -> int | None:
        """Number of columns that may be undone in a row; None is unlimited."""
        # On the grid the bound is one of magnitude, not of steps: see `column_bound`.
        return FLOATING_STEPS if self.bits is None else None

    def step(
        self,
        params: ColumnParams,
        before: tuple[Array, ...],
        column: Column,
        *,
        first: bool = False,
    ) -> tuple[tuple[Array, ...], ColumnAux]:
        """Advances the states by one column; the `first` column has no upper inputs."""
        after, extras, lower = [], [], _input(params, column)
        uppers = [None] * len(before) if first else [*before[1:], None]
        parts = zip(params.levels, column.levels, column.alphas, before, uppers, strict=True)
        for shared, own, alpha, state, upper in parts:
            b, extra = self._branch(shared, own, lower, upper)
            lower = b + _leak(self.scale(alpha), state)
            after.append(lower)
            extras.append(extra)
        aux = ColumnAux(tuple(extras), self.read(after[-1]), stream_peak(after))
        return tuple(after), aux

    def __call__(
        self, params: ColumnParams, after: tuple[Array, ...], column: Column, y: Any
    ) -> tuple[Array, ...]:
        """Reconstructs the states before a column from those after it.

        c_l[t-1] = (c_l[t] - q(B_l(c_{l-1}[t], c_{l+1}[t-1]))) / alpha_l[t]
        """
        del y
        # From the last level down: level l needs c_{l+1}[t-1], just reconstructed.
        before, upper = [], None
        lowers = [_input(params, column), *after[:-1]]
        parts = zip(params.levels, column.levels, column.alphas, after, lowers, strict=True)
        for shared, own, alpha, state, lower in reversed(list(parts)):
            b, _ = self._branch(shared, own, lower, upper)
            upper = (state - b) / self.scale(alpha)
            before.append(upper)
        return tuple(reversed(before))

    def pull(
        self,
        params: ColumnParams,
        after: tuple[Array, ...],
        column: Column,
        y: Any,
        cotangents: Any,
    ) -> tuple[tuple[Array, ...], tuple[ColumnParams, tuple[Array, ...], Column]]:
        """Computes inverse and pullback together: each level runs forward once, under `jax.vjp`.

        With g the cotangents after and h those before the column, `h_l = alpha_l g_l`,
        `dalpha_l = sum g_l c_l[t-1]`, and `B_l^T g_l` adds to `g_{l-1}` of the same column and to
        `h_{l+1}`.
        """
        del y
        (g_after, d_aux), top = cotangents, len(after) - 1
        # h starts as a list to fill: every entry is overwritten by `_undo`.
        g, h = list(g_after), list(g_after)
        before: list[Any] = [*after, None]  # the last level has nothing above it
        gradients: list[Any] = list(after)
        lowers = [_input(params, column), *after[:-1]]
        # The head reads the last level's state: its cotangent adds to that of the level.
        read = value_and_pullback(self.read, after[top], cotangents=d_aux.read)
        g[top] = g[top] + read[1][0]
        d_x = None
        for n in reversed(range(top + 1)):
            operands = (params.levels[n], column.levels[n], column.alphas[n])
            states, d_y = (after[n], lowers[n], before[n + 1]), (g[n], d_aux.levels[n])
            before[n], h[n], d_lower, d_upper, gradients[n] = self._undo(operands, *states, d_y)
            if n < top:
                h[n + 1] = h[n + 1] + d_upper
            if n:
                g[n - 1] = g[n - 1] + d_lower
            else:
                d_x = d_lower
        shared, own, alphas = (tuple(part) for part in zip(*gradients, strict=True))
        d_params = ColumnParams(None if params.x is None else d_x, shared)
        d_column = Column(None if column.x is None else d_x, own, alphas)
        return tuple(before[:-1]), (d_params, tuple(h), d_column)

    def _undo(self, operands: PyTree, after: Array, lower: Array, upper: Any, cotangents: PyTree):
        """One level: state before, cotangents of its inputs, gradients of its operands."""
        shared, own, alpha = operands
        states = shared, own, lower, upper
        (b, _), gradients = value_and_pullback(self._branch, *states, cotangents=cotangents)
        d_shared, d_own, d_lower, d_upper = gradients
        before = (after - b) / self.scale(alpha)
        # At the reconstructed state: the same product as in the forward pass.
        _, carry = jax.vjp(lambda alpha, state: _leak(self.scale(alpha), state), alpha, before)
        d_alpha, h = carry(cotangents[0])
        return before, h, d_lower, d_upper, (d_shared, d_own, d_alpha)

    def _branch(self, shared: PyTree, own: PyTree, lower: Array, upper: Array | None) -> Any:
        inexact, others = partition((shared, own, lower, upper))
        return _level(self, inexact, others)


# Isolated backward pass: XLA would fuse its sums over whole arrays with the operations that make
# their terms, which one strategy keeps and another recomputes, and would order the additions by the
# surrounding program. Isolated, it is the same program and rounds alike under every strategy.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _level(columns: MultiLevel, inexact: PyTree, others: PyTree) -> tuple[Array, PyTree]:
    """`q(B_l)` and its by-products, with an isolated pullback."""
    return _level_value(columns, inexact, others)


def _level_value(columns: MultiLevel, inexact: PyTree, others: PyTree) -> tuple[Array, PyTree]:
    y, extra = columns.level(*combine(inexact, others))
    return on_grid(y, bits=columns.bits), extra


def _level_forward(columns: MultiLevel, inexact: PyTree, others: PyTree):
    run = lambda inexact: partition(_level_value(columns, inexact, others))  # noqa: E731
    outputs, pull, exact = jax.vjp(run, inexact, has_aux=True)
    return combine(outputs, exact), (pull, inexact)


def _level_backward(columns: MultiLevel, residuals: PyTree, cotangents: PyTree):
    del columns
    pull, inexact = residuals
    g = jax.tree.map(lambda g: None if g.dtype == jax.dtypes.float0 else g, cotangents)
    # The inexact arguments are the carry so that their gradients overwrite them.
    apply = lambda inexact, pull, g: pull(g)[0]  # noqa: E731
    return isolate(apply, inexact, pull, g), None


_level.defvjp(_level_forward, _level_backward)


@jax.custom_vjp
def _leak(scale: Array, state: Array) -> Array:
    """`scale * state` for `[C]` and `[..., C]`, with an isolated gradient of the scale."""
    # Its gradient is a sum of products over whole arrays. Fused with the origin of the state, its
    # order and last bits would differ between kept, recomputed and reconstructed states.
    return scale * state


def _leak_forward(scale: Array, state: Array):
    return scale * state, (scale, state)


def _leak_backward(residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    scale, state = residuals
    axes = tuple(range(state.ndim - 1))
    product = lambda zero, g, state: zero + jnp.sum(g * state, axes)  # noqa: E731
    return isolate(product, jnp.zeros_like(scale), g, state), scale * g


_leak.defvjp(_leak_forward, _leak_backward)


def _input(params: ColumnParams, column: Column) -> Any:
    return params.x if column.x is None else column.x


def clip_magnitude(alpha: Array, *, floor: float) -> Array:
    """Maps alpha to `sign(alpha) max(|alpha|, floor)`, with the gradient of the identity."""
    # Straight through, so that a value at the floor can leave it. The released code clamps the
    # parameter in place instead: the same map with the same gradient.
    return _straight_through(functools.partial(_clip_magnitude, floor=floor), alpha)


def round_to_power_of_two(alpha: Array, *, places: int) -> Array:
    """Rounds `|alpha|` to the power of two nearest in logarithm, in `[2^-places, 1]`.

    The sign is kept, and the gradient is that of the identity.
    """
    return _straight_through(functools.partial(_round_to_power_of_two, places=places), alpha)


def column_bound(*, bits: int | None, places: int, columns: int) -> float:
    """Magnitude below which all states are exact, `2^(24 - bits - places * columns)`.

    Args:
        bits: Binary places of the grid; None (floating point, nowhere exact) gives infinity.
        places: Binary places of alpha.
        columns: Number of columns.
    """
    return math.inf if bits is None else 2.0 ** (24 - bits - places * columns)


def _straight_through(function, alpha):
    return with_derivative(function(jax.lax.stop_gradient(alpha)), alpha)


def _clip_magnitude(alpha, *, floor):
    return jnp.where(alpha < 0, -1.0, 1.0).astype(alpha.dtype) * jnp.maximum(jnp.abs(alpha), floor)


def _round_to_power_of_two(alpha, *, places):
    # By comparisons, because XLA's exp2 is not guaranteed to be exact.
    size, value = jnp.abs(alpha), jnp.ones_like(alpha)
    for place in range(places):
        value = jnp.where(size < 2.0 ** -(place + 0.5), 2.0 ** -(place + 1), value)
    return jnp.where(alpha < 0, -value, value)
