"""Which device gets a kernel: GPUs and TPUs do, for the others the plain function is compiled.

The choice is made for the device that a program is compiled for, by `lax.platform_dependent`. Of a
program that `jax.export` writes for several devices at once JAX compiles every branch for every
device, which Pallas refuses: export it once per device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from jax import lax

__all__ = ["by_device", "gpu_options"]


def by_device(
    kernel: Callable[..., Any],
    plain: Callable[..., Any],
    *operands: Any,
    block: int,
    interpret: bool,
) -> Any:
    """Calls the kernel where there is one, else the plain function.

    Args:
        kernel: `(*operands, block=, interpret=, options=)`; on a TPU `options` is None.
        plain: `(*operands)`, with results of the same tree, shapes and dtypes.
        operands: arrays, or trees of them.
        block: elements per program of the kernel.
        interpret: call the kernel on any device, as ordinary JAX operations.
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
    """What a kernel is compiled with on a GPU, or None where this JAX has no Triton.

    JAX 0.11 announced that it will drop Triton from Pallas. Its other compiler for GPUs wants
    kernels of another form, so that without Triton there is no kernel for GPUs here.
    """
    try:
        from jax.experimental.pallas import triton
    except ImportError:
        return None
    return triton.CompilerParams(num_warps=warps)
