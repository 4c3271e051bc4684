"""The scans: what the backward pass keeps of a step's sequence, with the same values under each.

Both serve time (a neuron, or a whole cell as the step) and depth (a block as the step, stacked
blocks as `xs`). With S the bytes of one state, R the bytes of one step's residuals, N the length:

    strategy           kept for the backward pass       forward passes
    store              N R                              1
    recompute(every=k) (N / k) S + k R                  2
"""

from __future__ import annotations

import dataclasses

import jax
from jax import lax

from snnjax.memory.segments import length_of, over_segments, piece
from snnjax.typing import PyTree, Scan, Step

__all__ = ["Recompute", "recompute", "store"]


def store(step: Step, params: PyTree, state: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
    """Plain `lax.scan`: keeps every residual of every step, `N R` bytes; one forward pass.

    The fastest strategy wherever its memory fits, and the reference every other one is tested
    against. Works in forward mode too.

    Args:
        step: `(params, state, x) -> (state, y)`.
        params: what every step shares; differentiable.
        state: the state before the first step.
        xs: the inputs, stacked along the leading axis of every leaf, `[N, ...]`.

    Returns:
        The state after the last step, and the outputs `[N, ...]`.
    """
    return lax.scan(lambda s, x: step(params, s, x), state, xs)


def recompute(every: int) -> Scan:
    """Keeps the state every `every` steps and replays the steps between from it.

    Kept: `(N / every) S` states, plus `every R` residuals of the one segment being replayed; one
    extra forward pass. `every` near `sqrt(N)` balances the two terms; `every=1` recomputes each
    step from its own state (`N S`, and one `R`). Any length is served: the last segment may be
    short, and nothing is padded or copied for it but the outputs' last piece.

    The values are those of `store`, bit for bit; so are the gradients, up to the order in which
    the parameters' gradient is summed over segments (float32: relative 1e-5; float64: 1e-12).

    Do not use it where the parameters dominate the memory: each level of scanning holds one more
    accumulator of their gradient. For a bare LIF `neurons.lif_scan` is as lean and costs nothing.

    Args:
        every: length of a segment, in steps.

    Returns:
        A scan; equal arguments give equal scans.

    Raises:
        ValueError: `every` is not a positive whole number.

    Reference:
        Chen, Xu, Zhang, Guestrin, "Training Deep Nets with Sublinear Memory Cost", 2016,
        arXiv:1604.06174.
    """
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ValueError(
            f"recompute(every) needs a positive whole number of steps, got {every!r}; about the "
            "square root of the length keeps least"
        )
    return Recompute(every)


@dataclasses.dataclass(frozen=True)
class Recompute:
    """The scan made by `recompute`.

    Attributes:
        every: length of a segment, in steps.
    """

    every: int

    def __call__(
        self, step: Step, params: PyTree, state: PyTree, xs: PyTree
    ) -> tuple[PyTree, PyTree]:
        """Runs `step` over `xs`, keeping the state every `every` steps."""
        length = length_of(xs)
        if length == 0:
            return store(step, params, state, xs)

        def segment(params, state, xs, start, size):
            return store(step, params, state, piece(xs, start, size))

        replayed = jax.checkpoint(segment, prevent_cse=False, static_argnums=4)
        state, ys, _ = over_segments(
            lambda state, start, _, size: (*replayed(params, state, xs, start, size), ()),
            state,
            length,
            min(self.every, length),
        )
        return state, ys
