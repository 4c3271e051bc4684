"""Multi-level columns: a chain of states per timestep that can be undone, whatever the levels do.

    c_l[t] = q(B_l(c_{l-1}[t], c_{l+1}[t-1])) + alpha_l[t] * c_l[t-1],      l = 0..L-1

    inverse, from the last level to the first:
    c_l[t-1] = (c_l[t] - q(B_l(c_{l-1}[t], c_{l+1}[t-1]))) / alpha_l[t]

Level 0 reads the input in place of `c_{-1}`, the last level has no `c_L`. Every column `t` has its
own `B_l` and `alpha_l`, and some parts of `B_l` may be shared by all columns.

Dividing by alpha multiplies a rounding error by `1 / |alpha|` per column, so that floating states
are undone `FLOATING_STEPS` columns in a row at most. On the grid (`q` rounds to multiples of
`2^-bits`, alpha is a power of two, at least `2^-places`) both directions are exact while every
state fits float32's mantissa: column `t` holds multiples of `2^-(bits + places * t)`, hence

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
from snnjax.memory.trees import combine, partition, pulled_back
from snnjax.ops import isolate
from snnjax.typing import Array, PyTree

__all__ = [
    "FLOATING_STEPS",
    "Column",
    "ColumnAux",
    "Common",
    "MultiLevel",
    "bounded",
    "column_bound",
    "power_of_two",
]

# Gradient error against autodiff, float32, alpha 0.5: 1e-8 after 4 columns, 2e-3 after 8.
FLOATING_STEPS = 4


class Common(NamedTuple):
    """What all columns share: the params of the step.

    Attributes:
        x: the input of level 0, or None where every column has its own.
        levels: per level, any pytree.
    """

    x: Array | None
    levels: tuple[PyTree, ...]


class Column(NamedTuple):
    """One column, the scanned input of the step.

    Attributes:
        x: the input of level 0, or None where all columns have the same.
        levels: per level, any pytree.
        alphas: per level, the free parameter of alpha, `[C]`.
    """

    x: Array | None
    levels: tuple[PyTree, ...]
    alphas: tuple[Array, ...]


class ColumnAux(NamedTuple):
    """What leaves a column once.

    Attributes:
        levels: by-products of the levels.
        read: what `read` makes of the last level.
        peak: largest magnitude of the column's states.
    """

    levels: tuple[PyTree, ...]
    read: PyTree
    peak: Array


@dataclasses.dataclass(frozen=True)
class MultiLevel:
    """The step over columns and its inverse; calling it is the inverse, as `memory.reverse` wants.

    Attributes:
        level: `(shared, own, lower, upper) -> (y, by-products)`, pure: `B_l` on what the level
            shares with other columns, what is its own, `c_{l-1}[t]` and `c_{l+1}[t-1]` (None at the
            last level, and in a column without an upper input).
        read: of the last level's state, what the network's head needs; kept by a reversing scan,
            so better little.
        scale: the free parameter to alpha: `bounded` or `power_of_two` with their options bound.
        bits: binary places of the grid; None is floating.
    """

    level: Callable[..., tuple[Array, PyTree]]
    read: Callable[[Array], PyTree]
    scale: Callable[[Array], Array]
    bits: int | None = None

    @property
    def steps(self) -> int | None:
        """Columns that may be undone in a row."""
        return FLOATING_STEPS if self.bits is None else None

    def step(
        self, params: Common, before: tuple[Array, ...], column: Column, *, first: bool = False
    ) -> tuple[tuple[Array, ...], ColumnAux]:
        """One column forward; the `first` one does not look up."""
        after, extras, lower = [], [], _input(params, column)
        uppers = [None] * len(before) if first else [*before[1:], None]
        parts = zip(params.levels, column.levels, column.alphas, before, uppers, strict=True)
        for shared, own, alpha, state, upper in parts:
            b, extra = self._rounded(shared, own, lower, upper)
            lower = b + _leak(self.scale(alpha), state)
            after.append(lower)
            extras.append(extra)
        aux = ColumnAux(tuple(extras), self.read(after[-1]), stream_peak(after))
        return tuple(after), aux

    def __call__(
        self, params: Common, after: tuple[Array, ...], column: Column, y: Any
    ) -> tuple[Array, ...]:
        """The states before a column, from those after it."""
        del y
        before, upper = [], None
        lowers = [_input(params, column), *after[:-1]]
        parts = zip(params.levels, column.levels, column.alphas, after, lowers, strict=True)
        for shared, own, alpha, state, lower in reversed(list(parts)):
            b, _ = self._rounded(shared, own, lower, upper)
            upper = (state - b) / self.scale(alpha)
            before.append(upper)
        return tuple(reversed(before))

    def pull(
        self, params: Common, after: tuple[Array, ...], column: Column, y: Any, cotangents: Any
    ) -> tuple[tuple[Array, ...], tuple[Common, tuple[Array, ...], Column]]:
        """Inverse and derivative at once: each level runs forward once, under `jax.vjp`.

        With g the cotangents after and h those before the column:
        `h_l = alpha_l g_l`, `dalpha_l = sum g_l c_l[t-1]`, and `B_l^T g_l` goes to `g_{l-1}` of the
        same column and to `h_{l+1}`.
        """
        del y
        (g_after, d_aux), top = cotangents, len(after) - 1
        g, h = list(g_after), list(g_after)
        before: list[Any] = [*after, None]  # the last level has nothing above it
        gradients: list[Any] = list(after)
        lowers = [_input(params, column), *after[:-1]]
        g[top] = g[top] + pulled_back(self.read, after[top], cotangents=d_aux.read)[1][0]
        d_x = None
        for n in reversed(range(top + 1)):
            held = (params.levels[n], column.levels[n], column.alphas[n])
            states, d_y = (after[n], lowers[n], before[n + 1]), (g[n], d_aux.levels[n])
            before[n], h[n], d_lower, d_upper, gradients[n] = self._undo(held, *states, d_y)
            if n < top:
                h[n + 1] = h[n + 1] + d_upper
            if n:
                g[n - 1] = g[n - 1] + d_lower
            else:
                d_x = d_lower
        shared, own, alphas = (tuple(part) for part in zip(*gradients, strict=True))
        d_params = Common(None if params.x is None else d_x, shared)
        d_column = Column(None if column.x is None else d_x, own, alphas)
        return tuple(before[:-1]), (d_params, tuple(h), d_column)

    def _undo(self, held: PyTree, after: Array, lower: Array, upper: Any, cotangents: PyTree):
        """One level: its state before, the cotangents of what it reads, the gradients of `held`."""
        shared, own, alpha = held
        states = shared, own, lower, upper
        (b, _), gradients = pulled_back(self._rounded, *states, cotangents=cotangents)
        d_shared, d_own, d_lower, d_upper = gradients
        before = (after - b) / self.scale(alpha)
        _, carry = jax.vjp(lambda alpha, state: _leak(self.scale(alpha), state), alpha, before)
        d_alpha, h = carry(cotangents[0])
        return before, h, d_lower, d_upper, (d_shared, d_own, d_alpha)

    def _rounded(self, shared: PyTree, own: PyTree, lower: Array, upper: Array | None) -> Any:
        smooth, rest = partition((shared, own, lower, upper))
        return _branch(self, smooth, rest)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _branch(columns: MultiLevel, smooth: PyTree, rest: PyTree) -> tuple[Array, PyTree]:
    """`q(B_l)` and its by-products, with a pullback that rounds one way.

    Its sums over whole arrays would be fused with what makes their terms, which one strategy keeps
    and the others compute again, and those within a level would be added to those of others in an
    order that depends on the program around. By itself it is one program under every strategy.
    """
    return _branch_value(columns, smooth, rest)


def _branch_value(columns: MultiLevel, smooth: PyTree, rest: PyTree) -> tuple[Array, PyTree]:
    y, extra = columns.level(*combine(smooth, rest))
    return on_grid(y, bits=columns.bits), extra


def _branch_forward(columns: MultiLevel, smooth: PyTree, rest: PyTree):
    run = lambda smooth: partition(_branch_value(columns, smooth, rest))  # noqa: E731
    outputs, pull, others = jax.vjp(run, smooth, has_aux=True)
    return combine(outputs, others), (pull, smooth)


def _branch_backward(columns: MultiLevel, residuals: PyTree, cotangents: PyTree):
    del columns
    pull, smooth = residuals
    wanted = jax.tree.map(lambda g: None if g.dtype == jax.dtypes.float0 else g, cotangents)
    undo = lambda smooth, pull, wanted: pull(wanted)[0]  # noqa: E731
    return isolate(undo, smooth, pull, wanted), None


_branch.defvjp(_branch_forward, _branch_backward)


@jax.custom_vjp
def _leak(scale: Array, state: Array) -> Array:
    """`scale * state`, `[C]` and `[..., C]`, with a gradient of the scale that rounds one way.

    It is a sum of products over whole arrays. XLA would fuse it with whatever makes the state, and
    add up in an order that depends on that: kept, recomputed and rebuilt states would give last
    bits of their own. By itself it is one program under every strategy.
    """
    return scale * state


def _leak_forward(scale: Array, state: Array):
    return scale * state, (scale, state)


def _leak_backward(residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    scale, state = residuals
    axes = tuple(range(state.ndim - 1))
    product = lambda zero, g, state: zero + jnp.sum(g * state, axes)  # noqa: E731
    return isolate(product, jnp.zeros_like(scale), g, state), scale * g


_leak.defvjp(_leak_forward, _leak_backward)


def _input(params: Common, column: Column) -> Any:
    return params.x if column.x is None else column.x


def bounded(alpha: Array, *, floor: float) -> Array:
    """`sign(alpha) max(|alpha|, floor)`, never 0; the gradient passes as if it were alpha.

    So a value at the floor can leave it again. The released code clamps the parameter in place
    instead, which is the same map with the same gradient.
    """
    return _straight_through(functools.partial(_bounded, floor=floor), alpha)


def power_of_two(alpha: Array, *, places: int) -> Array:
    """The power of two nearest to alpha in its logarithm, with its sign, in `[2^-places, 1]`.

    The gradient passes as if it were alpha.
    """
    return _straight_through(functools.partial(_power_of_two, places=places), alpha)


def column_bound(*, bits: int | None, places: int, columns: int) -> float:
    """The magnitude below which all states are exact: `2^(24 - bits - places * columns)`.

    Infinite for floating states, which are exact nowhere.
    """
    return math.inf if bits is None else 2.0 ** (24 - bits - places * columns)


def _straight_through(function, alpha):
    value = jax.custom_jvp(function)
    value.defjvp(lambda primals, tangents: (function(*primals), tangents[0]))
    return value(alpha)


def _bounded(alpha, *, floor):
    return jnp.where(alpha < 0, -1.0, 1.0).astype(alpha.dtype) * jnp.maximum(jnp.abs(alpha), floor)


def _power_of_two(alpha, *, places):
    # By comparisons: XLA's exp2 need not be exact.
    size, value = jnp.abs(alpha), jnp.ones_like(alpha)
    for place in range(places):
        value = jnp.where(size < 2.0 ** -(place + 0.5), 2.0 ** -(place + 1), value)
    return jnp.where(alpha < 0, -value, value)
