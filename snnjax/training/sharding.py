"""Where a step runs: a mesh of devices, the batch cut along it, the state on every device.

A mesh has one axis, `data`. Loss, gradients and batch statistics are those of the whole batch,
as the compiler inserts the sums over devices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from snnjax.typing import PyTree

__all__ = ["compile_step", "compiler_options", "make_mesh", "place", "sharded"]


def make_mesh(*, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with the axis `data`, by default over the first device only."""
    devices = jax.devices()[:1] if devices is None else devices
    return jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices)


def place(state: PyTree, mesh: Mesh) -> PyTree:
    """A state on every device of the mesh, in buffers of its own, so that they can be donated."""
    replicated = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda x: jax.device_put(x, replicated, may_alias=False), state)


def sharded(batch: PyTree, mesh: Mesh) -> PyTree:
    """A batch, cut along its leading axis over the devices of the mesh."""
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))


def compiler_options(mesh: Mesh, *, memory_scheduler: bool) -> dict[str, str] | None:
    """Options for an outermost `jax.jit`; None wherever there is nothing to choose.

    The default scheduler of XLA:CPU trades memory for concurrency and undoes recomputation in code
    that is not scanned.
    """
    if not memory_scheduler or {d.platform for d in mesh.devices.flat} != {"cpu"}:
        return None
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}


def compile_step(
    step: Callable[..., Any],
    mesh: Mesh,
    *,
    donate: bool = True,
    memory_scheduler: bool = False,
) -> Any:
    """Jits `(state, batch) -> ...` over a mesh.

    Args:
        step: `functools.partial(train_step, program)`, or any function of a state and a batch.
        mesh: From `make_mesh`; the number of its devices divides the batch.
        donate: Whether the state passed in may be overwritten; it cannot be used afterwards.
        memory_scheduler: See `compiler_options`.

    Returns:
        The jitted function; results are on every device.

    Example:
        step = compile_step(functools.partial(train_step, program), mesh)
        state, metrics = step(state, sharded(loader.batch(0), mesh))
    """
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.jit(
        step,
        in_shardings=(everywhere, NamedSharding(mesh, PartitionSpec("data"))),
        out_shardings=everywhere,
        donate_argnums=(0,) if donate else (),
        compiler_options=compiler_options(mesh, memory_scheduler=memory_scheduler),
    )
