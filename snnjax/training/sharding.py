"""Where a step runs: batches cut over the devices of a mesh, states laid out on them.

Loss, gradients and batch statistics are those of the whole batch: what crosses devices is put in by
the compiler (GSPMD), from the shardings of a step's arguments and results alone. Of several
processes each reads only the examples its own devices need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from snnjax.data import Batch, Loader
from snnjax.training.meshes import batch_axes
from snnjax.typing import PyTree

__all__ = ["compile_step", "compiler_options", "feed", "place", "rows_of", "sharded"]


def place(state: PyTree, mesh: Mesh, *, layout: PyTree = None) -> PyTree:
    """A state on the devices of the mesh, in buffers of its own, so that they can be donated.

    Args:
        state: Arrays, the same on every process.
        mesh: From `make_mesh`.
        layout: Where each lies, from `layout.shardings`; None is everywhere.
    """
    if layout is None:
        layout = jax.tree.map(lambda leaf: _everywhere(mesh), state)

    if jax.process_count() > 1:  # device_put knows this process' devices only
        return jax.jit(lambda tree: tree, out_shardings=layout)(state)

    def put(x: Any, sharding: NamedSharding) -> Any:
        return jax.device_put(x, sharding, may_alias=False)

    return jax.tree.map(put, state, layout)


def sharded(batch: PyTree, mesh: Mesh) -> PyTree:
    """A batch that this process has as a whole, cut along its leading axis over the devices."""
    return jax.device_put(batch, _cut(mesh))


def feed(loader: Loader, step: int, mesh: Mesh) -> Batch:
    """The batch of a step on the devices of the mesh; of several processes each reads its part.

    Which examples make up the batch depends on the step alone, see `data.Loader`.
    """
    if jax.process_count() == 1:
        return sharded(loader.batch(step), mesh)
    size, sharding = loader.batch_size, _cut(mesh)
    part = loader.batch(step, rows=rows_of(mesh.local_devices, size, mesh))
    whole = jax.make_array_from_process_local_data
    return jax.tree.map(lambda x: whole(sharding, np.asarray(x), (size, *x.shape[1:])), part)


def rows_of(devices: Iterable[Any], size: int, mesh: Mesh) -> np.ndarray:
    """The rows of a batch of `size` that some devices of a mesh need, in rising order."""
    places = _cut(mesh).devices_indices_map((size,))
    return np.unique(np.concatenate([np.arange(size)[places[device]] for device in devices]))


def compiler_options(
    mesh: Mesh, *, memory_scheduler: bool, deterministic: bool = False
) -> dict[str, Any] | None:
    """Options for an outermost `jax.jit`; None wherever there is nothing to choose.

    Args:
        mesh: Where it will run.
        memory_scheduler: On a CPU, whose default scheduler trades memory for concurrency and undoes
            recomputation in code that is not scanned, order for the least memory.
        deterministic: On GPUs, kernels that give the same bits every time.
    """
    platforms = {device.platform for device in mesh.devices.flat}
    if platforms == {"cpu"} and memory_scheduler:
        return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    if platforms & {"gpu", "cuda", "rocm"} and deterministic:
        return {"xla_gpu_deterministic_ops": True}
    return None


def compile_step(
    step: Callable[..., Any],
    mesh: Mesh,
    *,
    layout: PyTree = None,
    donate: bool = True,
    memory_scheduler: bool = False,
    deterministic: bool = False,
) -> Any:
    """Jits `(state, batch) -> ...` over a mesh.

    Args:
        step: `functools.partial(train_step, program)`, or any function of a state and a batch.
        mesh: From `make_mesh`; `meshes.shares` of it divides the batch.
        layout: Where each array of the state lies, from `layout.shardings`; None is everywhere.
        donate: Whether the step gives a new state first, `(state, batch) -> (state, metrics)`, and
            the one passed in may be overwritten; it cannot be used afterwards.
        memory_scheduler: See `compiler_options`.
        deterministic: See `compiler_options`.

    Returns:
        The jitted function; a new state lies as the old one, other results are on every device.

    Example:
        step = compile_step(functools.partial(train_step, program), mesh)
        state, metrics = step(state, sharded(loader.batch(0), mesh))
    """
    everywhere = _everywhere(mesh)
    layout = everywhere if layout is None else layout
    options = compiler_options(mesh, memory_scheduler=memory_scheduler, deterministic=deterministic)
    return jax.jit(
        step,
        in_shardings=(layout, _cut(mesh)),
        out_shardings=(layout, everywhere) if donate else everywhere,
        donate_argnums=(0,) if donate else (),
        compiler_options=options,
    )


def _everywhere(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def _cut(mesh: Mesh) -> NamedSharding:
    """The leading axis over all axes that share a batch."""
    return NamedSharding(mesh, PartitionSpec(batch_axes(mesh)))
