"""The reversing scan: keep the end, walk back by the step's inverse.

    forward    state[n] = step(params, state[n-1], x[n]),   only the last state is kept
    backward   state[n-1] = inverse(params, state[n], x[n], y[n]), then the derivative there

With S the bytes of one state, X and Y of all inputs and outputs, R the residuals of one step:

    kept   S + X + Y + R          (N / refresh) S + X + Y + R with a refresh

Y counts only where the inverse reads it. Over depth X are the stacked blocks, parameters that exist
anyway, and Y their statistics: the bytes do not grow with depth.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from snnjax.memory import symbolic
from snnjax.memory.scans import length_of, over_segments, piece, store
from snnjax.memory.trees import add, combine, partition, pulled_back, smooth_half, zeros_like
from snnjax.typing import Array, PyTree, Scan, Step

__all__ = ["Reverse", "reversal", "reverse"]

Inverse = Callable[..., PyTree]


def reverse(inverse: Inverse, *, refresh: int | None = None) -> Reverse:
    """Keeps the last state only and rebuilds the others backwards.

        forward    state[n] = step(params, state[n-1], x[n])
        backward   state[n-1] = inverse(params, state[n], x[n], y[n]), then the derivative there

    Kept: `S + X + Y + R` bytes, or `(N / refresh) S + X + Y + R` with a refresh: S of one state,
    X and Y of all N inputs and outputs (Y only where the inverse reads it), R of one step's
    residuals. One extra forward pass where the inverse brings its own pullback (couplings do), two
    elsewhere: the inverse, and the step again for its derivative. The gradient is that of `store`
    exactly where the inverse is exact (couplings on the grid); elsewhere it carries the inverse's
    rounding error, which a contracting step multiplies by `1 / decay` at each step back.

    Do not use it for a hard reset (there is no inverse), for a step that forgets faster than its
    refresh, or where the inputs are what fills the memory: they are kept.

    Args:
        inverse: `(params, state_after, x, y) -> state_before`. May have an attribute `steps`, the
            number of steps it can undo before its error matters (None: any number), and a method
            `pull(params, state_after, x, y, (g_state, g_y)) -> state_before, (g_params, g_state,
            g_x)` that inverts and differentiates at once; None in `g_y` stands for zeros.
        refresh: keep every `refresh`-th state as well, so that no more than so many steps are
            undone in a row.

    Returns:
        A scan; equal arguments give equal scans.

    Raises:
        ValueError: `refresh` is not a positive whole number, or the inverse cannot undo so many
            steps (on the call, when the length is known).

    Reference:
        Gomez, Ren, Urtasun, Grosse, "The Reversible Residual Network: Backpropagation Without
        Storing Activations", 2017, arXiv:1707.04585; for spiking networks Zhang and Zhang,
        "Memory-Efficient Reversible Spiking Neural Networks", 2024, arXiv:2312.07922.
    """
    return Reverse(inverse, refresh)


def reversal(*, refresh: int | None = None, inner: Scan | None = None) -> Reverse:
    """`reverse` by the inverse that a layer brings: `nn.Reversible`, neurons that offer one.

    Args:
        refresh: as for `reverse`; None is as often as the layer's inverse needs.
        inner: the strategy within one branch while it is differentiated, for layers that have
            branches; None leaves it to `nn.with_memory`, which takes `recompute(1)`.

    Returns:
        A scan to be given to a layer; by itself it raises a ValueError.

    Raises:
        ValueError: `refresh` is not a positive whole number.
    """
    return Reverse(None, refresh, inner)


@dataclasses.dataclass(frozen=True)
class Reverse:
    """The scan made by `reverse` and `reversal`.

    Attributes:
        inverse: undoes one step; None until a layer brings its own.
        refresh: steps undone in a row at most; None is all of them.
        inner: the strategy within a step, taken up by the layer that has the steps.
    """

    inverse: Inverse | None
    refresh: int | None = None
    inner: Scan | None = None

    def __post_init__(self):
        whole = isinstance(self.refresh, int) and not isinstance(self.refresh, bool)
        if self.refresh is not None and (not whole or self.refresh < 1):
            raise ValueError(
                f"refresh must be a positive number of steps or None, got {self.refresh!r}"
            )

    def by(self, inverse: Inverse) -> Reverse:
        """This scan with a layer's inverse, where it has none of its own."""
        if self.inverse is not None:
            return self
        steps = getattr(inverse, "steps", None)
        return Reverse(inverse, steps if self.refresh is None else self.refresh, self.inner)

    def error(self, step: Step, params: PyTree, state: PyTree, xs: PyTree) -> Array:
        """Largest error of a rebuilt state, a scalar: 0 where the reversal is exact.

        Walks back through all states as the backward pass does, and compares each with the one the
        forward pass saw. It keeps them all: an instrument for a check, not for training.
        """
        length = length_of(xs)
        every = self._every(length)

        def trace(before, x):
            after, y = step(params, before, x)
            return after, (before, after, y)

        def undo(rebuilt, inputs):
            number, x, before, after, y = inputs
            fresh = ((number + 1) % every == 0) | (number == length - 1)
            start = jax.tree.map(lambda a, b: jnp.where(fresh, a, b), after, rebuilt)
            rebuilt = self.inverse(params, start, x, y)  # type: ignore[misc]
            pairs = (jax.tree.leaves(partition(tree)[0]) for tree in (rebuilt, before))
            return rebuilt, jnp.stack([jnp.abs(a - b).max() for a, b in zip(*pairs, strict=True)])

        _, seen = lax.scan(trace, state, xs)
        _, gaps = lax.scan(undo, state, (jnp.arange(length), xs, *seen), reverse=True)
        return lax.stop_gradient(gaps.max())

    def _every(self, length: int) -> int:
        if self.inverse is None:
            raise ValueError(
                "reversal() needs a layer that brings an inverse (nn.Reversible, nn.IF, nn.LIF); "
                "by itself a scan takes memory.reverse(inverse)"
            )
        every = min(self.refresh or length, length)
        steps = getattr(self.inverse, "steps", None)
        if steps is not None and every > steps:
            raise ValueError(
                f"this inverse can undo {steps} steps before its rounding error matters, and "
                f"{every} were asked for: use reverse(inverse, refresh={steps}), or recompute"
            )
        return every

    def __call__(
        self, step: Step, params: PyTree, state: PyTree, xs: PyTree
    ) -> tuple[PyTree, PyTree]:
        """Runs `step` over `xs`, keeping the last state and every `refresh`-th."""
        length = length_of(xs)
        if length == 0:
            return store(step, params, state, xs)
        every = self._every(length)
        # custom_vjp wants leaves with a gradient apart from those without.
        halves = [partition(tree) for tree in (params, state, xs)]
        smooth, rest = zip(*halves, strict=True)
        return _run(step, self.inverse, every, smooth, rest)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _run(step, inverse, every, smooth, rest):
    del inverse
    return _forward(step, every, smooth, rest)[0]


def _forward(step, every, smooth, rest):
    params, state, xs = (combine(a, b) for a, b in zip(smooth, rest, strict=True))

    def segment(state, start, _, size):
        state, ys = store(step, params, state, piece(xs, start, size))
        return state, ys, state

    state, ys, ends = over_segments(segment, state, length_of(xs), every)
    return (state, ys), (params, xs, ys, ends, state)


def _run_forward(step, inverse, every, smooth, rest):
    del inverse
    wanted = symbolic.perturbed((smooth[0], smooth[2]))
    outputs, kept = _forward(step, every, *symbolic.values((smooth, rest)))
    return outputs, (*kept, wanted)


def _run_backward(step, inverse, every, residuals, cotangents):
    params, xs, ys, ends, last, wanted = residuals
    g_state = symbolic.filled(smooth_half(last, cotangents[0]))
    # Zeros that are known as such are not scanned over: XLA would write them out for every step.
    g_ys = symbolic.hollow(smooth_half(ys, cotangents[1]))
    pull = getattr(inverse, "pull", None) or functools.partial(_pull, step, inverse)

    def undo(carry, inputs):
        after, g_state, g_params = carry
        x, y, g_y = inputs
        before, (more, g_state, g_x) = pull(params, after, x, y, (g_state, g_y))
        more, g_x = wanted.of((more, g_x))
        return (before, g_state, add(g_params, more)), g_x

    def segment(grads, start, after, size):
        inputs = piece((xs, ys, g_ys), start, size)
        (_, *grads), g_xs = lax.scan(undo, (after, *grads), inputs, reverse=True)
        return tuple(grads), g_xs, ()

    zeros, _ = wanted.of((zeros_like(partition(params)[0]), partition(xs)[0]))
    (g_state, g_params), g_xs, _ = over_segments(
        segment, (g_state, zeros), length_of(xs), every, given=ends, last=last, reverse=True
    )
    return (g_params, g_state, g_xs), None


_run.defvjp(_run_forward, _run_backward, symbolic_zeros=True)


def _pull(step, inverse, params, after, x, y, cotangents):
    """One step back for an inverse without a pullback of its own."""
    before = inverse(params, after, x, y)
    return before, pulled_back(step, params, before, x, cotangents=cotangents)[1]
