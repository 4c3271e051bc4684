"""Loss scaling: gradients that float16 would flush to zero are lifted above it.

    g = grad(scale * loss) / scale
    all finite      scale <- 2 scale after 2000 steps in a row, at most 2^24
    else            scale <- scale / 2, at least 1, and this step's update is left out

float16 ends at 6e-8 below and at 65504 above, bfloat16 where float32 does: only float16 needs it. A
scale is a power of two, so scaling itself rounds nothing. An overflow is how the scale is found and
no fault, unless the scale is at its floor already: then the loss itself overflows.

Reference: Micikevicius, Narang, Alben, Diamos, Elsen, Garcia, Ginsburg, Houston, Kuchaiev,
Venkatesh, Wu, "Mixed Precision Training", 2017, arXiv:1710.03740 (the scale and why it is needed;
that it moves by itself is common practice, with the numbers of the libraries).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from snnjax.nn import Precision
from snnjax.ops.rounding import widen
from snnjax.typing import Array, PyTree

__all__ = ["FLOOR", "LossScale", "after_step", "initial_scale", "overflowed", "scaled", "unscaled"]

FLOOR = 1.0
"""The smallest scale: what overflows there is no matter of scale."""

_START, _CEILING, _PATIENCE = 2.0**15, 2.0**24, 2000


class LossScale(NamedTuple):
    """The scale of a run in float16, part of its `TrainState`.

    Attributes:
        scale: float32, what the loss is multiplied by before it is differentiated.
        finite_steps: int32, steps in a row since it moved.
    """

    scale: Array
    finite_steps: Array


def initial_scale(precision: Precision) -> LossScale | tuple[()]:
    """`2^15` for float16; nothing for what needs no scale."""
    if not precision.scales_loss:
        return ()
    return LossScale(jnp.asarray(_START, jnp.float32), jnp.zeros((), jnp.int32))


def scaled(loss: Array, scale: LossScale | tuple[()]) -> Array:
    """What is differentiated in place of the loss."""
    return loss * scale.scale if isinstance(scale, LossScale) else loss


def unscaled(gradients: PyTree, scale: LossScale | tuple[()]) -> PyTree:
    """The gradients of the loss itself, in at least float32."""
    gradients = jax.tree.map(widen, gradients)
    if not isinstance(scale, LossScale):
        return gradients
    return jax.tree.map(lambda g: g / scale.scale.astype(g.dtype), gradients)


def overflowed(scale: LossScale | tuple[()], finite: Array) -> Array:
    """Whether a step that is not finite is one that a smaller scale may mend."""
    if not isinstance(scale, LossScale):
        return jnp.zeros((), bool)
    return ~finite & (scale.scale > FLOOR)


def after_step(scale: Any, finite: Array) -> Any:
    """The scale of the next step, by whether loss and gradients of this one were finite."""
    if not isinstance(scale, LossScale):
        return scale
    grows = finite & (scale.finite_steps + 1 >= _PATIENCE)
    factor = jnp.where(grows, 2.0, jnp.where(finite, 1.0, 0.5))
    moved = jnp.clip(scale.scale * factor, FLOOR, _CEILING)
    steps = jnp.where(grows | ~finite, 0, scale.finite_steps + 1)
    return LossScale(moved, steps)
