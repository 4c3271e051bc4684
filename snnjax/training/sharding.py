"""Meshes of devices, batches cut over them, and states laid out on them.

A mesh has three axes:

    data     each device has its part of the batch and all parameters
    fsdp     each device has its part of the batch and of the parameters, and fetches the other
             parameters as it needs them ("fully sharded data parallel", ZeRO stage 3)
    model    each device has all of the batch and its part of the channels

    data=4, fsdp=2      eight devices; the batch is cut into eight, parameters into two

Loss, gradients and batch statistics are those of the whole batch, equal to those of one device up
to the order of sums over devices, see docs/scale.md. Of several processes each reads only the
examples of its own devices.

A layout assigns parts of arrays to devices: a rule on the tree of parameters,

    rule(path, shape, mesh) -> PartitionSpec           path such as ".body.layers[1].kernel"

which an experiment gives as its `layout`. Optimizer slots lie as their parameters do; statistics,
constants, counters and keys are on every device. The default, `by_shape`, cuts arrays that are
large enough:

    model    along the last axis, output channels, if the size divides it; else the one before it
    fsdp     along the longest other axis that the size divides

An array without such an axis stays whole on every device. A layout changes the place of numbers,
never their values.

Reference: Rajbhandari, Rasley, Ruwase, He, "ZeRO: Memory Optimizations Toward Training Trillion
Parameter Models", 2019, arXiv:1910.02054.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from snnjax.data import Batch, Loader
from snnjax.training.errors import MeshError
from snnjax.typing import PyTree

__all__ = [
    "AXES",
    "Rule",
    "batch_axes",
    "batch_shares",
    "by_name",
    "by_shape",
    "compile_step",
    "compiler_options",
    "device_rows",
    "feed",
    "make_mesh",
    "parse_mesh",
    "place",
    "shard_batch",
    "shared_axes",
    "state_shardings",
]

AXES = ("data", "fsdp", "model")
_BATCH = ("data", "fsdp")
_REST = -1


def make_mesh(
    *,
    data: int | None = None,
    fsdp: int = 1,
    model: int = 1,
    devices: Sequence[Any] | None = None,
) -> Mesh:
    """A mesh of the first available devices.

    Args:
        data: Size of the axis; -1 takes all remaining devices. None is -1 if `devices` are given or
            there are several processes, else 1.
        fsdp: Size of the axis; one of the sizes may be -1.
        model: Size of the axis.
        devices: Devices to choose from; None is all, of all processes.

    Raises:
        MeshError: There are too few devices, or some process would have none.
    """
    several = jax.process_count() > 1
    if data is None:
        data = _REST if (devices is not None or several) and _REST not in (fsdp, model) else 1
    devices = jax.devices() if devices is None else list(devices)
    sizes = _resolve_sizes((data, fsdp, model), len(devices))
    chosen = devices[: math.prod(sizes)]
    without = set(range(jax.process_count())) - {device.process_index for device in chosen}
    if without:
        raise MeshError(
            f"a mesh of {len(chosen)} of {len(devices)} devices leaves process "
            f"{min(without)} without any: data=-1 takes all that are left"
        )
    return jax.make_mesh(sizes, AXES, (AxisType.Auto,) * len(AXES), devices=chosen)


def parse_mesh(text: str) -> dict[str, int]:
    """Parses sizes of axes such as "data=4, fsdp=2", for `make_mesh`.

    Raises:
        MeshError: The text is not of that form.
    """
    sizes: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = (word.strip() for word in part.partition("="))
        if name not in AXES or name in sizes:
            what = "twice" if name in sizes else f"not one of {', '.join(AXES)}"
            raise MeshError(f'the mesh {text!r} has an axis {name!r} {what}: "data=4, fsdp=2"')
        try:
            sizes[name] = int(number)
        except ValueError:
            raise MeshError(
                f'the mesh {text!r} has no number for {name}: "{name}=2", or "{name}=-1" for all '
                "devices that are left"
            ) from None
    return sizes


def batch_axes(mesh: Mesh) -> tuple[str, ...]:
    """Axes of a mesh that share a batch."""
    return tuple(axis for axis in _BATCH if axis in mesh.axis_names)


def batch_shares(mesh: Mesh) -> int:
    """Number of parts into which a mesh cuts a batch."""
    return math.prod(mesh.shape[axis] for axis in batch_axes(mesh))


def shared_axes(mesh: Mesh | None) -> tuple[str, ...]:
    """Axes along which several devices share a batch; none if one device has all of it."""
    return batch_axes(mesh) if mesh is not None and batch_shares(mesh) > 1 else ()


def _resolve_sizes(sizes: tuple[int, ...], devices: int) -> tuple[int, ...]:
    """Sizes with -1 replaced by the number of remaining devices."""
    named = ", ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
    if any(size < 1 and size != _REST for size in sizes) or sizes.count(_REST) > 1:
        raise MeshError(f"sizes of a mesh are at least 1, and one may be -1; got {named}")
    known = math.prod(size for size in sizes if size != _REST)
    rest = devices // known
    if rest < 1 or (_REST not in sizes and known > devices):
        raise MeshError(
            f"the mesh {named} needs {known} devices, and there {'is' if devices == 1 else 'are'} "
            f"{devices}: choose smaller sizes (on a CPU JAX_NUM_CPU_DEVICES={known} makes as many)"
        )
    return tuple(rest if size == _REST else size for size in sizes)


Rule: TypeAlias = Callable[[str, tuple[int, ...], Mesh], PartitionSpec]

_SMALLEST = 256


def by_shape(
    path: str, shape: tuple[int, ...], mesh: Mesh, *, smallest: int = _SMALLEST
) -> PartitionSpec:
    """The default rule.

    Args:
        path: Not used.
        shape: Shape of the array.
        mesh: Mesh with the axes `fsdp` and `model`.
        smallest: Size below which arrays stay whole: fetching their parts would cost more time than
            it saves memory.
    """
    del path
    places: list[str | None] = [None] * len(shape)
    size = 1
    for length in shape:
        size *= length
    if size < smallest:
        return PartitionSpec()
    if (model := mesh.shape.get("model", 1)) > 1 and len(shape) > 1:
        ends = (axis for axis in (len(shape) - 1, len(shape) - 2) if shape[axis] % model == 0)
        if (axis := next(ends, None)) is not None:
            places[axis] = "model"
    if (fsdp := mesh.shape.get("fsdp", 1)) > 1:
        free = [axis for axis in range(len(shape)) if not places[axis] and not shape[axis] % fsdp]
        if free:
            places[max(free, key=lambda axis: (shape[axis], axis))] = "fsdp"
    return PartitionSpec(*places)


def by_name(rules: Mapping[str, PartitionSpec], *, otherwise: Rule = by_shape) -> Rule:
    """A rule on the path: the first pattern that matches in it decides.

    Args:
        rules: Regular expression to spec: `{"head.*kernel": PartitionSpec(None, "model")}`.
        otherwise: Rule for paths without a match.
    """

    def rule(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
        for pattern, spec in rules.items():
            if re.search(pattern, path):
                return spec
        return otherwise(path, shape, mesh)

    return rule


def state_shardings(state: Any, mesh: Mesh, rule: Rule) -> Any:
    """Shardings of the arrays of a `TrainState`, as a tree of `NamedSharding`.

    Args:
        state: Arrays or their shapes; `params` and `optimizer` are laid out.
        mesh: From `make_mesh`.
        rule: A layout, such as an experiment's.

    Raises:
        MeshError: The rule does not fit an array or the mesh.
    """
    replicated = NamedSharding(mesh, PartitionSpec())
    whole = jax.tree.map(lambda leaf: replicated, state)
    if mesh.size == 1:
        return whole
    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    specs = {path: (leaf.shape, _spec(path, leaf, mesh, rule)) for path, leaf in leaves}

    def parameter_sharding(path, leaf) -> NamedSharding:
        # Trees of slots are like the tree of parameters, so their paths end alike.
        for start in range(len(path)):
            found = specs.get(path[start:])
            if found and found[0] == leaf.shape:
                return NamedSharding(mesh, found[1])
        return replicated

    def lay_out(tree: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(parameter_sharding, tree)

    return whole._replace(params=lay_out(state.params), optimizer=lay_out(state.optimizer))


def _spec(path: Any, leaf: Any, mesh: Mesh, rule: Rule) -> PartitionSpec:
    name = jax.tree_util.keystr(path)
    spec = rule(name, leaf.shape, mesh)
    try:
        NamedSharding(mesh, spec).shard_shape(leaf.shape)
    except ValueError as error:
        raise MeshError(
            f"the layout puts {name} {list(leaf.shape)} as {spec} on a mesh of "
            f"{dict(mesh.shape)}, which does not fit: {str(error).splitlines()[0]}"
        ) from error
    return spec


def place(state: PyTree, mesh: Mesh, *, layout: PyTree = None) -> PyTree:
    """Copies a state to the devices of a mesh, in buffers of its own that can be donated.

    Args:
        state: Arrays, the same on every process.
        mesh: From `make_mesh`.
        layout: Shardings, from `state_shardings`; None is whole on every device.
    """
    if layout is None:
        layout = jax.tree.map(lambda leaf: _replicated(mesh), state)

    if jax.process_count() > 1:  # device_put reaches the devices of this process only
        return jax.jit(lambda tree: tree, out_shardings=layout)(state)

    def put(x: Any, sharding: NamedSharding) -> Any:
        return jax.device_put(x, sharding, may_alias=False)

    return jax.tree.map(put, state, layout)


def shard_batch(batch: PyTree, mesh: Mesh) -> PyTree:
    """Cuts a batch along its leading axis over the devices; this process has all of it."""
    return jax.device_put(batch, _batch_sharding(mesh))


def feed(loader: Loader, step: int, mesh: Mesh) -> Batch:
    """The batch of a step on the devices of the mesh; of several processes each reads its part.

    The examples of the batch depend on the step alone, see `data.Loader`.
    """
    if jax.process_count() == 1:
        return shard_batch(loader.batch(step), mesh)
    size, sharding = loader.batch_size, _batch_sharding(mesh)
    part = loader.batch(step, rows=device_rows(mesh.local_devices, size, mesh))
    whole = jax.make_array_from_process_local_data
    return jax.tree.map(lambda x: whole(sharding, np.asarray(x), (size, *x.shape[1:])), part)


def device_rows(devices: Iterable[Any], size: int, mesh: Mesh) -> np.ndarray:
    """Rows of a batch of `size` that some devices of a mesh hold, in rising order."""
    places = _batch_sharding(mesh).devices_indices_map((size,))
    return np.unique(np.concatenate([np.arange(size)[places[device]] for device in devices]))


def compiler_options(
    mesh: Mesh, *, memory_scheduler: bool, deterministic: bool = False
) -> dict[str, Any] | None:
    """Options of an outermost `jax.jit`; None if the platform offers no choice.

    Args:
        mesh: Devices of the program.
        memory_scheduler: On a CPU, schedule for the least memory. The default scheduler trades
            memory for concurrency and undoes recomputation in code that is not scanned.
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
        mesh: From `make_mesh`; its `batch_shares` divide the batch.
        layout: Shardings of the state, from `state_shardings`; None is whole on every device.
        donate: True if the step returns a new state first, `(state, batch) -> (state, metrics)`:
            the state passed in is overwritten and cannot be used afterwards.
        memory_scheduler: See `compiler_options`.
        deterministic: See `compiler_options`.

    Returns:
        The jitted function; a new state lies as the old one, other results are on every device.

    Example:
        step = compile_step(functools.partial(train_step, program), mesh)
        state, metrics = step(state, shard_batch(loader.batch(0), mesh))
    """
    replicated = _replicated(mesh)
    layout = replicated if layout is None else layout
    options = compiler_options(mesh, memory_scheduler=memory_scheduler, deterministic=deterministic)
    return jax.jit(
        step,
        in_shardings=(layout, _batch_sharding(mesh)),
        out_shardings=(layout, replicated) if donate else replicated,
        donate_argnums=(0,) if donate else (),
        compiler_options=options,
    )


def _replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def _batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of the leading axis over all axes that share a batch."""
    return NamedSharding(mesh, PartitionSpec(batch_axes(mesh)))
