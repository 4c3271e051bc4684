"""Choice of a Pallas kernel by device: GPUs and TPUs run the kernel, others the plain function.

`lax.platform_dependent` chooses for the device that a program is compiled for. For a program that
`jax.export` writes for several devices at once, JAX compiles every branch for every device, which
Pallas refuses: export once per device.
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
