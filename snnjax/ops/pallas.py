"""Common parts of Pallas kernels: choice by device, tiling of a flat axis of neurons.

GPUs and TPUs run the kernel, others the plain function. `lax.platform_dependent` chooses for the
device that a program is compiled for. For a program that `jax.export` writes for several devices at
once, JAX compiles every branch for every device, which Pallas refuses: export once per device.

    [N]     ->  [R, 128]      and for a sequence   [T, N] -> [T, R, 128]
    one program: `block` neurons, [block / 128, 128], over all T

A timestep is selected on the leading axis, which is free on both devices: registers of a TPU are
tiles of the last two axes, 8 x 128 numbers, and a GPU reads rows of 128 contiguous numbers. The
last block is padded with zeros, which are cut off again.

Triton (GPUs) needs arrays whose size is a power of two, Mosaic (TPUs) blocks of 8 rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from snnjax.typing import Array

__all__ = [
    "LANES",
    "block_spec",
    "by_device",
    "check_block",
    "gpu_options",
    "tile",
    "tiled_shape",
    "untile",
]


def by_device(
    kernel: Callable[..., Any],
    plain: Callable[..., Any],
    *operands: Any,
    block: int,
    interpret: bool,
) -> Any:
    """Calls a kernel on devices that have one, and the plain function on others.

    Args:
        kernel: Kernel `(*operands, block=, interpret=, options=)`; on a TPU `options` is None.
        plain: Plain function `(*operands)`, with results of the same tree, shapes and dtypes.
        *operands: Arrays or pytrees of arrays.
        block: Elements per program of the kernel.
        interpret: Runs the kernel on every device, as ordinary JAX operations.
    """
    kernel = functools.partial(kernel, block=block, interpret=interpret)
    gpu = gpu_options()
    if interpret:
        return kernel(*operands, options=gpu)
    kernels = {"tpu": functools.partial(kernel, options=None)}
    if gpu is not None:
        kernels |= {name: functools.partial(kernel, options=gpu) for name in ("cuda", "rocm")}
    return lax.platform_dependent(*operands, default=plain, **kernels)


def gpu_options(*, warps: int = 4) -> Any:
    """Compiler parameters of a kernel on a GPU; None if this JAX has no Triton."""
    # JAX 0.11 announced that it will drop Triton from Pallas. Its other compiler for GPUs needs
    # kernels of another form, so without Triton GPUs run the plain function.
    try:
        from jax.experimental.pallas import triton
    except ImportError:
        return None
    return triton.CompilerParams(num_warps=warps)


LANES = 128
"""Neurons in one row of a block."""


def check_block(block: int) -> None:
    """Checks a number of neurons per block.

    Raises:
        ValueError: `block` is not a power of two, or below 128.
    """
    if block < LANES or block & (block - 1):
        raise ValueError(
            f"a kernel's block must be a power of two, at least {LANES}, got {block}: 1024 fits "
            "GPUs and TPUs"
        )


def tile(array: Array, block: int) -> Array:
    """Tiles `[..., N]` to `[..., R, 128]`, zero-padded to whole blocks; a scalar to `[1, 1]`."""
    if not array.ndim:
        return array.reshape(1, 1)
    missing = -array.shape[-1] % block
    if missing:
        array = jnp.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, missing)])
    return array.reshape(*array.shape[:-1], -1, LANES)


def untile(tiles: Array, neurons: int) -> Array:
    """Flattens `[..., R, W]` to `[..., N]`, the first `neurons` elements."""
    return tiles.reshape(*tiles.shape[:-2], -1)[..., :neurons]


def block_spec(array: Any, block: int) -> Any:
    """Block of a tiled array for one program: its neurons, over all of T."""
    from jax.experimental import pallas as pl

    shape = array.shape
    if shape == (1, 1):
        return pl.BlockSpec((1, 1), lambda i: (0, 0))
    rows = block // LANES
    if len(shape) == 2:
        return pl.BlockSpec((rows, shape[-1]), lambda i: (i, 0))
    return pl.BlockSpec((shape[0], rows, shape[-1]), lambda i: (0, i, 0))


def tiled_shape(rows: int, dtype: Any, *, width: int = LANES, timesteps: int | None = None) -> Any:
    """Shape and dtype of a tiled result, `[R, W]` or `[T, R, W]`."""
    lead = () if timesteps is None else (timesteps,)
    return jax.ShapeDtypeStruct((*lead, rows, width), dtype)
