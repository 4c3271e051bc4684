"""Loss scaling: gradients that float16 would flush to zero are lifted above it.

    g = grad(scale * loss) / scale
    all finite      scale <- 2 scale after 2000 steps in a row, at most 2^24
    otherwise       scale <- scale / 2, at least 1, and the update of this step is left out

The range of float16 is 6e-8 to 65504, that of bfloat16 is float32's: only float16 needs a scale. A
scale is a power of two, so scaling rounds nothing. Overflows find the scale and are no fault,
unless the scale is at its floor: then the loss itself overflows.

Reference: Micikevicius, Narang, Alben, Diamos, Elsen, Garcia, Ginsburg, Houston, Kuchaiev,
Venkatesh, Wu, "Mixed Precision Training", 2017, arXiv:1710.03740 (the scale and its purpose; the
dynamic scale is common practice, with the constants of the libraries).
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
"""The smallest scale: an overflow at the floor is the loss' own."""

_START, _CEILING, _PATIENCE = 2.0**15, 2.0**24, 2000


class LossScale(NamedTuple):
    """Scale of a run in float16, part of its `TrainState`.

    Attributes:
        scale: float32, factor of the loss.
        finite_steps: int32, finite steps in a row since the scale moved.
    """

    scale: Array
    finite_steps: Array


def initial_scale(precision: Precision) -> LossScale | tuple[()]:
    """The scale `2^15` for float16; `()` for formats that need none."""
    if not precision.scales_loss:
        return ()
    return LossScale(jnp.asarray(_START, jnp.float32), jnp.zeros((), jnp.int32))


def scale_loss(loss: Array, scale: LossScale | tuple[()]) -> Array:
    """Scales the loss that is differentiated."""
    return loss * scale.scale if isinstance(scale, LossScale) else loss


def unscale_gradients(gradients: PyTree, scale: LossScale | tuple[()]) -> PyTree:
    """Gradients of the unscaled loss, in at least float32."""
    gradients = jax.tree.map(widen, gradients)
    if not isinstance(scale, LossScale):
        return gradients
    return jax.tree.map(lambda g: g / scale.scale.astype(g.dtype), gradients)


def is_overflow(scale: LossScale | tuple[()], finite: Array) -> Array:
    """True if a step that is not finite may be mended by a smaller scale."""
    if not isinstance(scale, LossScale):
        return jnp.zeros((), bool)
    return ~finite & (scale.scale > FLOOR)


def next_scale(scale: Any, finite: Array) -> Any:
    """Scale of the next step.

    Args:
        scale: Scale of this step.
        finite: True if loss and gradient of this step were finite.
    """
    if not isinstance(scale, LossScale):
        return scale
    grows = finite & (scale.finite_steps + 1 >= _PATIENCE)
    factor = jnp.where(grows, 2.0, jnp.where(finite, 1.0, 0.5))
    moved = jnp.clip(scale.scale * factor, FLOOR, _CEILING)
    steps = jnp.where(grows | ~finite, 0, scale.finite_steps + 1)
    return LossScale(moved, steps)
