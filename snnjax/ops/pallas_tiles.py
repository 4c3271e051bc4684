"""How a flat axis of neurons is cut for a kernel.

    [N]     ->  [R, 128]      and of a sequence   [T, N] -> [T, R, 128]
    one program: `block` neurons, [block / 128, 128], over all T

A timestep is then picked by the leading axis, which costs nothing on either device: a TPU's
registers are tiles of the last two axes, 8 x 128 numbers, and a GPU reads rows of 128 side by side.
Neurons that fill up the last block are zeros, and are cut off again.

Triton (GPUs) wants arrays of a power of two in size, Mosaic (TPUs) blocks of 8 rows.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from snnjax.typing import Array

__all__ = ["LANES", "block_spec", "check_block", "flat", "like", "tiled"]

LANES = 128
"""Neurons side by side in a row of a block."""


def check_block(block: int) -> None:
    """Whether so many neurons can be a block.

    Raises:
        ValueError: they are no power of two, or fewer than a row.
    """
    if block < LANES or block & (block - 1):
        raise ValueError(
            f"a kernel's block must be a power of two, at least {LANES}, got {block}: 1024 fits "
            "GPUs and TPUs"
        )


def tiled(array: Array, block: int) -> Array:
    """`[..., N]` as `[..., R, 128]`, filled up to whole blocks; one number as `[1, 1]`."""
    if not array.ndim:
        return array.reshape(1, 1)
    lacking = -array.shape[-1] % block
    if lacking:
        array = jnp.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, lacking)])
    return array.reshape(*array.shape[:-1], -1, LANES)


def flat(tiles: Array, neurons: int) -> Array:
    """`[..., N]` again, from `[..., R, W]` of which the first `neurons` count."""
    return tiles.reshape(*tiles.shape[:-2], -1)[..., :neurons]


def block_spec(array: Any, block: int) -> Any:
    """The part of a tiled array that one program sees: its neurons, over all of T."""
    from jax.experimental import pallas as pl

    shape = array.shape
    if shape == (1, 1):
        return pl.BlockSpec((1, 1), lambda i: (0, 0))
    rows = block // LANES
    if len(shape) == 2:
        return pl.BlockSpec((rows, shape[-1]), lambda i: (i, 0))
    return pl.BlockSpec((shape[0], rows, shape[-1]), lambda i: (0, i, 0))


def like(rows: int, dtype: Any, *, width: int = LANES, timesteps: int | None = None) -> Any:
    """Shape and dtype of a tiled result, `[R, W]` or `[T, R, W]`."""
    lead = () if timesteps is None else (timesteps,)
    return jax.ShapeDtypeStruct((*lead, rows, width), dtype)
