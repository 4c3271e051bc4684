"""Reversing scan, which keeps the last state and reconstructs the others by the step's inverse.

    forward    state[n] = step(params, state[n-1], x[n]),   only the last state is kept
    backward   state[n-1] = inverse(params, state[n], x[n], y[n]), then the derivative there

With S the bytes of one state, X and Y those of all inputs and outputs, R the residuals of one step:

    kept   S + X + Y + R          (N / refresh) S + X + Y + R with a refresh

Y counts only if the inverse reads it. Over depth X are the stacked blocks, whose parameters exist
anyway, and Y their statistics: the bytes do not grow with depth.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from snnjax.memory.scans import match_dtypes, scan_length, scan_segments, slice_steps, store
from snnjax.ops import symbolic_zeros
from snnjax.ops.arguments import is_traced
from snnjax.ops.rounding import refuse_narrow
from snnjax.ops.trees import (
    add_trees,
    combine,
    inexact_cotangents,
    nan_unless,
    partition,
    value_and_pullback,
    zeros_like,
)
from snnjax.typing import Array, PyTree, Scan, Step

__all__ = ["Reverse", "reversal", "reverse"]

Inverse = Callable[..., PyTree]


def reverse(inverse: Inverse, *, refresh: int | None = None) -> Reverse:
    """Scan that keeps the last state and reconstructs the others in the backward pass.

        forward    state[n] = step(params, state[n-1], x[n])
        backward   state[n-1] = inverse(params, state[n], x[n], y[n]), then the derivative there

    With S the bytes of one state, X and Y those of all inputs and outputs (Y only if the inverse
    reads it) and R the residuals of one step, it keeps

        S + X + Y + R,    or    (N / refresh) S + X + Y + R with a refresh

    instead of the N R of `store`. The cost is one extra forward pass if the inverse has its own
    pullback, as couplings have, and two otherwise: the inverse, and the step again for its
    derivative. The gradient equals that of `store` if the inverse is exact, as for couplings on the
    grid. Otherwise it has the rounding error of the inverse, which a contracting step multiplies by
    `1 / decay` at each step back.

    Do not use it for a hard reset, which has no inverse, for a state that decays within the refresh
    interval, or if the inputs, which are kept, dominate the memory.

    Args:
        inverse: Inverse of the step, `(params, state_after, x, y) -> state_before`. It may have an
            attribute `steps`, the number of steps that it can undo before its error matters (None
            is unlimited); a method `check(params, state, steps) -> bool`, True if parameters and
            dtypes of a call allow that many (without it, states of fewer than 32 bits are refused);
            and a method `pull(params, state_after, x, y, (g_state, g_y)) -> state_before,
            (g_params, g_state, g_x)` that inverts and differentiates together; None in `g_y` is a
            zero.
        refresh: Interval of additionally kept states, in steps: an upper limit of the steps undone
            in a row. None keeps the last state only.

    Returns:
        A scan; equal arguments give equal scans.

    Raises:
        ValueError: `refresh` is not a positive integer, or (when called) the inverse cannot undo
            that many steps, with the parameters of the call or in the dtype of the state. If the
            parameters are traced (`jax.jit`), their gradient is NaN instead.

    Reference:
        Gomez, Ren, Urtasun, Grosse, "The Reversible Residual Network: Backpropagation Without
        Storing Activations", 2017, arXiv:1707.04585; for spiking networks Zhang and Zhang,
        "Memory-Efficient Reversible Spiking Neural Networks", 2024, arXiv:2312.07922.
    """
    return Reverse(inverse, refresh)


def reversal(*, refresh: int | None = None, inner: Scan | None = None) -> Reverse:
    """Scan `reverse` with the inverse of its layer, such as `nn.Reversible`.

    Memory and cost are those of `reverse`: `(N / refresh) S + X + Y + R` instead of `N R`.

    Args:
        refresh: Interval of kept states, in steps; None is the interval that the layer's inverse
            needs.
        inner: Strategy within one branch during its derivative, for layers with branches; None lets
            `nn.with_memory` use `recompute(1)`.

    Returns:
        A scan for a layer; called without one it raises a ValueError.

    Raises:
        ValueError: `refresh` is not a positive integer.
    """
    return Reverse(None, refresh, inner)


@dataclasses.dataclass(frozen=True)
class Reverse:
    """Reversing scan, made by `reverse` and `reversal`.

    Attributes:
        inverse: Inverse of one step; None until a layer supplies its own.
        refresh: Largest number of steps undone in a row; None is unlimited.
        inner: Strategy within a step, applied by the layer.
    """

    inverse: Inverse | None
    refresh: int | None = None
    inner: Scan | None = None

    def __post_init__(self):
        # `True` is an int, but no number of steps.
        integer = isinstance(self.refresh, int) and not isinstance(self.refresh, bool)
        if self.refresh is not None and (not integer or self.refresh < 1):
            raise ValueError(
                f"refresh must be a positive number of steps or None, got {self.refresh!r}"
            )

    def with_inverse(self, inverse: Inverse) -> Reverse:
        """The scan with the inverse of a layer, unless it has its own."""
        if self.inverse is not None:
            return self
        # Without an interval of the user's, the longest that the layer's inverse allows.
        steps = getattr(inverse, "steps", None)
        return Reverse(inverse, steps if self.refresh is None else self.refresh, self.inner)

    def error(self, step: Step, params: PyTree, state: PyTree, xs: PyTree) -> Array:
        """Largest error of a reconstructed state, a scalar; 0 if the reversal is exact.

        It reconstructs the states as the backward pass does and compares each with that of the
        forward pass, all of which it keeps: for checks, not for training.
        """
        length = scan_length(xs)
        every = self._interval(length)

        def trace(before, x):
            after, y = step(params, before, x)
            return after, (before, after, y)

        def undo(rebuilt, inputs):
            number, x, before, after, y = inputs
            # Kept states are exact: the walk restarts from them.
            kept = ((number + 1) % every == 0) | (number == length - 1)
            start = jax.tree.map(lambda a, b: jnp.where(kept, a, b), after, rebuilt)
            rebuilt = self.inverse(params, start, x, y)  # type: ignore[misc]
            pairs = (jax.tree.leaves(partition(tree)[0]) for tree in (rebuilt, before))
            return rebuilt, jnp.stack([jnp.abs(a - b).max() for a, b in zip(*pairs, strict=True)])

        _, states = lax.scan(trace, state, xs)
        _, errors = lax.scan(undo, state, (jnp.arange(length), xs, *states), reverse=True)
        return lax.stop_gradient(errors.max())

    def _interval(self, length: int) -> int:
        """Steps between kept states, for a sequence of `length` steps."""
        if self.inverse is None:
            raise ValueError(
                "reversal() needs a layer that brings an inverse (nn.Reversible, nn.IF, nn.LIF); "
                "by itself a scan takes memory.reverse(inverse)"
            )
        every = min(self.refresh or length, length)
        steps = getattr(self.inverse, "steps", None)
        if steps is not None and every > steps:
            raise ValueError(
                f"this inverse can undo {steps} steps before its rounding error matters, not the "
                f"{every} requested: use reverse(inverse, refresh={steps}), or recompute"
            )
        return every

    def __call__(
        self, step: Step, params: PyTree, state: PyTree, xs: PyTree
    ) -> tuple[PyTree, PyTree]:
        """Runs `step` over `xs`, keeping the last state and every `refresh`-th one."""
        length = scan_length(xs)
        if length == 0:
            return store(step, params, state, xs)
        every = self._interval(length)
        params, state = match_dtypes(step, params, state, xs)
        accurate = self._accuracy(params, state, every)
        # custom_vjp needs leaves with a gradient and the others as separate arguments.
        halves = [partition(tree) for tree in (params, state, xs)]
        inexact, others = zip(*halves, strict=True)
        return _run(step, self.inverse, every, inexact, (*others, accurate))

    def _accuracy(self, params: PyTree, state: PyTree, every: int) -> Array | None:
        """None if the inverse is known to be accurate, a traced boolean if only the program can."""
        check = getattr(self.inverse, "check", None)
        if check is None:
            return refuse_narrow(partition(state)[0])
        accurate = check(params, state, every)
        if is_traced(accurate):
            return accurate
        if not accurate:
            raise ValueError(
                f"with these parameters the inverse cannot undo {every} steps before its rounding "
                "error matters, because one decays faster than the inverse was made for: use a "
                "smaller refresh, make the inverse for the smallest decay, or use "
                "memory.recompute(every)"
            )
        return None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _run(step, inverse, every, inexact, others):
    del inverse
    return _forward(step, every, inexact, others)[0]


def _forward(step, every, inexact, others):
    params, state, xs = (combine(a, b) for a, b in zip(inexact, others[:3], strict=True))

    def segment(state, start, _, size):
        state, ys = store(step, params, state, slice_steps(xs, start, size))
        return state, ys, state

    state, ys, ends = scan_segments(segment, state, scan_length(xs), every)
    # `ys` cost nothing here if the inverse does not read them: XLA drops unused residuals.
    return (state, ys), (params, xs, ys, ends, state)


def _run_forward(step, inverse, every, inexact, others):
    del inverse
    # The gradient of the state is always needed: it is the carry of the backward pass.
    mask = symbolic_zeros.gradient_mask((inexact[0], inexact[2]))
    outputs, kept = _forward(step, every, *symbolic_zeros.primal_values((inexact, others)))
    return outputs, (*kept, mask, symbolic_zeros.primal_values(others[3]))


def _run_backward(step, inverse, every, residuals, cotangents):
    params, xs, ys, ends, last, mask, accurate = residuals
    g_state = symbolic_zeros.materialize(inexact_cotangents(last, cotangents[0]))
    # Every step back multiplies by it.
    g_state = nan_unless(accurate, g_state)
    # Symbolic zeros are dropped: XLA would write explicit ones for every step of the scan.
    g_ys = symbolic_zeros.drop(inexact_cotangents(ys, cotangents[1]))
    # An inverse that evaluates the step anyway can return its pullback too, and save a forward
    # pass.
    pull = getattr(inverse, "pull", None) or functools.partial(_pull, step, inverse)

    def undo(carry, inputs):
        after, g_state, g_params = carry
        x, y, g_y = inputs
        before, (g_step, g_state, g_x) = pull(params, after, x, y, (g_state, g_y))
        # Gradients that are not needed are neither accumulated nor stacked.
        g_step, g_x = mask.select((g_step, g_x))
        return (before, g_state, add_trees(g_params, g_step)), g_x

    def segment(grads, start, after, size):
        inputs = slice_steps((xs, ys, g_ys), start, size)
        (_, *grads), g_xs = lax.scan(undo, (after, *grads), inputs, reverse=True)
        return tuple(grads), g_xs, ()

    zeros, _ = mask.select((zeros_like(partition(params)[0]), partition(xs)[0]))
    (g_state, g_params), g_xs, _ = scan_segments(
        segment, (g_state, zeros), scan_length(xs), every, inputs=ends, last=last, reverse=True
    )
    return (nan_unless(accurate, g_params), g_state, g_xs), None


_run.defvjp(_run_forward, _run_backward, symbolic_zeros=True)


def _pull(step, inverse, params, after, x, y, cotangents):
    """Inverse and pullback of one step, for an inverse without a method `pull`."""
    before = inverse(params, after, x, y)
    return before, value_and_pullback(step, params, before, x, cotangents=cotangents)[1]
