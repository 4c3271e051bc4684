"""Loss scaling, which keeps small gradients above the underflow of float16.

    g = grad(scale * loss) / scale
    all finite      scale <- 2 scale after 2000 steps in a row, at most 2^24
    otherwise       scale <- scale / 2, at least 1, and the update of this step is skipped

The range of float16 is 6e-8 to 65504, that of bfloat16 equals float32's: only float16 needs a
scale. A scale is a power of two, so scaling rounds nothing. An overflow is part of the search for
the scale and no fault, except at the lowest scale: there the loss itself overflows.

Reference: Micikevicius, Narang, Alben, Diamos, Elsen, Garcia, Ginsburg, Houston, Kuchaiev,
Venkatesh, Wu, "Mixed Precision Training", 2017, arXiv:1710.03740 (purpose of the scale; dynamic
scales, with these constants, are common practice in libraries).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from snnjax.nn.mixed_precision import Precision
from snnjax.ops.rounding import widen
from snnjax.typing import Array, PyTree

__all__ = [
    "FLOOR",
    "LossScale",
    "initial_scale",
    "is_overflow",
    "next_scale",
    "scale_loss",
    "unscale_gradients",
]

FLOOR = 1.0
"""Lowest scale; below it the loss itself overflows."""

# Start: high enough for small gradients; a few skipped steps bring it down. Patience: rare enough
# that an overflow per raise costs nothing.
_START, _CEILING, _PATIENCE = 2.0**15, 2.0**24, 2000


class LossScale(NamedTuple):
    """Scale of a run in float16, part of its `TrainState`.

    Attributes:
        scale: float32, factor of the loss.
        finite_steps: int32, consecutive finite steps at this scale.
    """

    scale: Array
    finite_steps: Array


def initial_scale(precision: Precision) -> LossScale | tuple[()]:
    """Initial scale, `2^15` for float16 and `()` for formats without one."""
    if not precision.scales_loss:
        return ()
    return LossScale(jnp.asarray(_START, jnp.float32), jnp.zeros((), jnp.int32))


def scale_loss(loss: Array, scale: LossScale | tuple[()]) -> Array:
    """Multiplies the differentiated loss by the scale."""
    return loss * scale.scale if isinstance(scale, LossScale) else loss


def unscale_gradients(gradients: PyTree, scale: LossScale | tuple[()]) -> PyTree:
    """Gradients of the unscaled loss, in at least float32."""
    # Widened first: the quotient may lie below the range of float16.
    gradients = jax.tree.map(widen, gradients)
    if not isinstance(scale, LossScale):
        return gradients
    return jax.tree.map(lambda g: g / scale.scale.astype(g.dtype), gradients)


def is_overflow(scale: LossScale | tuple[()], finite: Array) -> Array:
    """True if a smaller scale may correct a step that is not finite."""
    if not isinstance(scale, LossScale):
        return jnp.zeros((), bool)
    return ~finite & (scale.scale > FLOOR)


def next_scale(scale: Any, finite: Array) -> Any:
    """Scale of the next step.

    Args:
        scale: Scale of this step.
        finite: True if loss and gradient of this step are finite.
    """
    if not isinstance(scale, LossScale):
        return scale
    grows = finite & (scale.finite_steps + 1 >= _PATIENCE)
    factor = jnp.where(grows, 2.0, jnp.where(finite, 1.0, 0.5))
    # Factors and bounds are powers of two, so the scale stays one and rounds nothing.
    moved = jnp.clip(scale.scale * factor, FLOOR, _CEILING)
    # Counted anew after any change: patience is meant per scale.
    steps = jnp.where(grows | ~finite, 0, scale.finite_steps + 1)
    return LossScale(moved, steps)
