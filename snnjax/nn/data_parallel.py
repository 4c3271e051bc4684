"""Data parallelism: statistics and random numbers of devices that share a batch.

    network = with_data_axes(network, ("data", "fsdp"))        inside jax.shard_map over these axes

Inside `jax.shard_map` each device runs the network on its own examples `[T, B / D, ...]`. Layers
that combine examples hold the mesh axes that share the batch, `axes`: batch norm takes its means
over them, and dropout draws for the whole batch and masks its own rows, so that no number depends
on the number of devices.
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
    """A copy of a network for examples shared along named axes; its parameters are the same.

    Args:
        network: any module.
        axes: of the mesh; none is one device.
        norm_groups: of the examples each device has, see `BatchNorm`: statistics are those of the
            groups and cross no device. None leaves groups as they are, and statistics cross.
    """
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
    """This device's rows of an array drawn for the whole batch.

    Args:
        draw: function from a shape to random numbers.
        shape: of the rows of this device.
        axis: of the array, cut between devices.
        axes: of the mesh; none is one device.
    """
    if not axes:
        return draw(shape)
    own = shape[axis]
    batch_draw = draw((*shape[:axis], own * lax.psum(1, axes), *shape[axis + 1 :]))
    return lax.dynamic_slice_in_dim(batch_draw, lax.axis_index(axes) * own, own, axis)


def pmean_statistics(statistics: PyTree, axes: tuple[str, ...]) -> PyTree:
    """Statistics of all devices to their mean; exact where they are equal already."""
    if not axes:
        return statistics

    def mean(leaf: Array) -> Array:
        is_first = lax.axis_index(axes) == 0
        first = lax.psum(jnp.where(is_first, leaf, jnp.zeros_like(leaf)), axes)
        return first + lax.pmean(leaf - first, axes)

    return jax.tree.map(mean, statistics)
