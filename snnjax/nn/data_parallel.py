"""Data parallelism: statistics and random numbers for devices that share a batch.

    network = with_data_axes(network, ("data", "fsdp"))        inside jax.shard_map over these axes

Inside `jax.shard_map` each of D devices runs the network on its own examples `[T, B / D, ...]`.
Layers that combine examples store the mesh axes that share the batch in `axes`. Batch norm takes
its means over them. Dropout draws a mask for all B examples and applies its own rows, so that the
mask does not depend on the number of devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from snnjax.nn.normalization import BatchNorm
from snnjax.typing import Array, PyTree

__all__ = ["pmean_statistics", "with_data_axes", "local_rows"]


def with_data_axes(network: Any, axes: tuple[str, ...], *, norm_groups: int | None = None) -> Any:
    """A copy of a network for a batch that is split along mesh axes.

    Args:
        network: network or layer; it stays unchanged.
        axes: names of mesh axes; empty for one device.
        norm_groups: groups of every `BatchNorm` on each device, whose statistics then stay on the
            device. None leaves the groups unchanged and takes statistics over all devices.
    """
    # Attributes are set below, so the modules must be copies.
    copied = nnx.merge(*nnx.split(network))
    for _, module in nnx.iter_modules(copied):
        if isinstance(module, BatchNorm) and norm_groups is not None:
            module.groups, module.axes = norm_groups, ()
        elif hasattr(module, "axes"):
            setattr(module, "axes", axes)  # noqa: B010
    return copied


def local_rows(
    draw: Callable[[tuple[int, ...]], Array],
    shape: tuple[int, ...],
    *,
    axis: int,
    axes: tuple[str, ...],
) -> Array:
    """Rows of this device from an array drawn for the whole batch.

    Args:
        draw: function from a shape to random numbers.
        shape: shape of the rows of this device.
        axis: axis of the array that is split between devices.
        axes: names of mesh axes; empty for one device.
    """
    if not axes:
        return draw(shape)
    # Every device draws the same array: one key gives one mask for any number of devices.
    own = shape[axis]
    batch_draw = draw((*shape[:axis], own * lax.psum(1, axes), *shape[axis + 1 :]))
    return lax.dynamic_slice_in_dim(batch_draw, lax.axis_index(axes) * own, own, axis)


def pmean_statistics(statistics: PyTree, axes: tuple[str, ...]) -> PyTree:
    """Mean of statistics over devices; the mean of equal values is exact.

    Args:
        statistics: running statistics of this device.
        axes: names of mesh axes; empty for one device.
    """
    if not axes:
        return statistics

    def mean(leaf: Array) -> Array:
        # Deviations from the first device are exactly 0 for equal values, which a plain mean may
        # round.
        is_first = lax.axis_index(axes) == 0
        first = lax.psum(jnp.where(is_first, leaf, jnp.zeros_like(leaf)), axes)
        return first + lax.pmean(leaf - first, axes)

    return jax.tree.map(mean, statistics)
