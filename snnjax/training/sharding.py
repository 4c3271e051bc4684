"""Sharding: meshes of devices, and the distribution of batches, states and steps over them.

    mesh   = make_mesh(data=4, fsdp=2)            eight devices; the batch is cut into eight parts,
    layout = state_shardings(state, mesh, rule)   parameters into two
    step   = compile_step(step, mesh, layout=layout)

The axes of a mesh:

    data     each device holds a part of the batch and all parameters
    fsdp     each device holds a part of the batch and of the parameters, and fetches the other
             parameters on demand ("fully sharded data parallel", ZeRO stage 3)
    model    each device holds the whole batch and a part of the channels

A rule `(path, shape, mesh) -> PartitionSpec`, the `layout` of an experiment, cuts each parameter.
Optimizer slots are laid out as their parameters; statistics, constants, counters and keys are on
every device. The default rule, `by_shape`, cuts large arrays:

    model    along the last axis, output channels, if the size divides it; else the one before it
    fsdp     along the longest other axis that the size divides

Sharding changes the place of numbers, not their values: loss, gradients and batch statistics are
those of the whole batch, equal to those of one device up to the order of sums over devices, see
docs/scale.md. Each of several processes reads only the examples of its own devices.

Reference: Rajbhandari, Rasley, Ruwase, He, "ZeRO: Memory Optimizations Toward Training Trillion
Parameter Models", 2019, arXiv:1910.02054.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from snnjax.data import Batch, Loader
from snnjax.ops.programs import make_room
from snnjax.training.errors import MeshError
from snnjax.typing import PyTree

__all__ = [
    "AXES",
    "ByTimesteps",
    "Rule",
    "batch_axes",
    "batch_shares",
    "by_name",
    "by_shape",
    "compile_shapes",
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
# Size of an axis that takes all remaining devices.
_REST = -1


def make_mesh(
    *,
    data: int | None = None,
    fsdp: int = 1,
    model: int = 1,
    devices: Sequence[Any] | None = None,
) -> Mesh:
    """Makes a mesh of the first available devices.

    Args:
        data: Size of the axis; -1 takes all remaining devices. None is -1 if `devices` are given or
            there are several processes, else 1.
        fsdp: Size of the axis; one of the sizes may be -1.
        model: Size of the axis.
        devices: Devices to choose from; None is all, of all processes.

    Raises:
        MeshError: There are too few devices, or a process would have none.
    """
    several = jax.process_count() > 1
    if data is None:
        data = _REST if (devices is not None or several) and _REST not in (fsdp, model) else 1
    devices = jax.devices() if devices is None else list(devices)
    sizes = _resolve_sizes((data, fsdp, model), len(devices))
    chosen = devices[: math.prod(sizes)]
    without = set(range(jax.process_count())) - {device.process_index for device in chosen}
    # A process without a device could not enter the collectives of the others.
    if without:
        raise MeshError(
            f"a mesh of {len(chosen)} of {len(devices)} devices leaves process "
            f"{min(without)} without any: data=-1 takes all that are left"
        )
    # Auto: the compiler propagates the shardings of batch and state through the network.
    return jax.make_mesh(sizes, AXES, (AxisType.Auto,) * len(AXES), devices=chosen)


def parse_mesh(text: str) -> dict[str, int]:
    """Parses sizes of axes such as "data=4, fsdp=2", for `make_mesh`.

    Raises:
        MeshError: The text has another form.
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
    """Axes along which several devices share a batch; empty if each device has all of it."""
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

# Fetching the parts of a smaller array costs more time than it saves memory.
_SMALLEST = 256


def by_shape(
    path: str, shape: tuple[int, ...], mesh: Mesh, *, smallest: int = _SMALLEST
) -> PartitionSpec:
    """Default rule: cuts large arrays along the axes of the mesh, see the module's docstring.

    Args:
        path: Unused.
        shape: Shape of the array.
        mesh: Mesh with the axes `fsdp` and `model`.
        smallest: Number of entries below which an array stays whole.
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
            # Of equally long axes the last, so that every process and version chooses alike.
            places[max(free, key=lambda axis: (shape[axis], axis))] = "fsdp"
    return PartitionSpec(*places)


def by_name(rules: Mapping[str, PartitionSpec], *, otherwise: Rule = by_shape) -> Rule:
    """Makes a rule on paths, by the first matching pattern.

    Args:
        rules: Regular expressions to specs: `{"head.*kernel": PartitionSpec(None, "model")}`; a
            pattern may match any part of a path such as ".body.layers[1].kernel".
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
        state: State of arrays or their shapes; `params` and `optimizer` are cut.
        mesh: Mesh from `make_mesh`.
        rule: Rule, such as the `layout` of an experiment.

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
        # Trees of slots are like the tree of parameters, so their paths end alike. The shape is
        # compared as well: factored slots have the path of a parameter and another shape.
        for start in range(len(path)):
            entry = specs.get(path[start:])
            if entry and entry[0] == leaf.shape:
                return NamedSharding(mesh, entry[1])
        return replicated

    def lay_out(tree: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(parameter_sharding, tree)

    return whole._replace(params=lay_out(state.params), optimizer=lay_out(state.optimizer))


def _spec(path: Any, leaf: Any, mesh: Mesh, rule: Rule) -> PartitionSpec:
    name = jax.tree_util.keystr(path)
    spec = rule(name, leaf.shape, mesh)
    try:
        # Raises here, with the name of the array, instead of in the middle of compilation.
        NamedSharding(mesh, spec).shard_shape(leaf.shape)
    except ValueError as error:
        raise MeshError(
            f"the layout puts {name} {list(leaf.shape)} as {spec} on a mesh of "
            f"{dict(mesh.shape)}, which does not fit: {str(error).splitlines()[0]}"
        ) from error
    return spec


def place(state: PyTree, mesh: Mesh, *, layout: PyTree = None) -> PyTree:
    """Copies a state to the devices of a mesh, into buffers that can be donated.

    Args:
        state: Tree of arrays, equal on every process.
        mesh: Mesh from `make_mesh`.
        layout: Shardings from `state_shardings`; None replicates the arrays on every device.
    """
    if layout is None:
        layout = jax.tree.map(lambda leaf: _replicated(mesh), state)

    if jax.process_count() > 1:  # device_put reaches the devices of this process only
        return jax.jit(lambda tree: tree, out_shardings=layout)(state)

    def put(x: Any, sharding: NamedSharding) -> Any:
        # A donated alias would take the buffer away from the caller's array.
        return jax.device_put(x, sharding, may_alias=False)

    return jax.tree.map(put, state, layout)


def shard_batch(batch: PyTree, mesh: Mesh) -> PyTree:
    """Distributes a batch of a single process over the devices, along its leading axis."""
    return jax.device_put(batch, _batch_sharding(mesh))


def feed(loader: Loader, step: int, mesh: Mesh) -> Batch:
    """Loads the batch of a step onto the devices; each of several processes reads its part.

    The examples depend only on the number of the step, see `data.Loader`.
    """
    if jax.process_count() == 1:
        return shard_batch(loader.batch(step), mesh)
    size, sharding = loader.batch_size, _batch_sharding(mesh)
    part = loader.batch(step, rows=device_rows(mesh.local_devices, size, mesh))
    # Each process has only its rows: no process sees the whole batch.
    whole = jax.make_array_from_process_local_data
    return jax.tree.map(lambda x: whole(sharding, np.asarray(x), (size, *x.shape[1:])), part)


def device_rows(devices: Iterable[Any], size: int, mesh: Mesh) -> np.ndarray:
    """Rows of a batch of `size` on some devices of a mesh, in ascending order."""
    places = _batch_sharding(mesh).devices_indices_map((size,))
    # Devices along "model" hold the same rows.
    return np.unique(np.concatenate([np.arange(size)[places[device]] for device in devices]))


def compiler_options(
    mesh: Mesh, *, memory_scheduler: bool, deterministic: bool = False
) -> dict[str, Any] | None:
    """XLA options of an outermost `jax.jit`; None keeps the defaults.

    Args:
        mesh: Devices of the program.
        memory_scheduler: On a CPU, schedule for least memory.
        deterministic: On GPUs, use bit-reproducible kernels.
    """
    # Of the mesh, not `jax.default_backend()`: an unknown option is an error on another platform.
    platforms = {device.platform for device in mesh.devices.flat}
    # The default scheduler trades memory for concurrency and undoes recomputation in code that is
    # not scanned.
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
    """Jits a function `(state, batch) -> ...` over a mesh.

    Args:
        step: Step, such as `functools.partial(train_step, program)`.
        mesh: Mesh from `make_mesh`; its `batch_shares` divide the batch.
        layout: Shardings of the state, from `state_shardings`; None replicates it on every device.
        donate: True for a step `(state, batch) -> (state, metrics)`: the new state overwrites the
            old one, which cannot be used afterwards.
        memory_scheduler: See `compiler_options`.
        deterministic: See `compiler_options`.

    Returns:
        The jitted function; a new state has the layout of the old one, other results are on every
        device.

    Example:
        step = compile_step(functools.partial(train_step, program), mesh)
        state, metrics = step(state, shard_batch(loader.batch(0), mesh))
    """
    make_room()
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


def compile_shapes(step: Any, state: PyTree, loader: Loader, mesh: Mesh) -> Any:
    """Compiles a step for every shape of a loader's batches.

    Args:
        step: Step from `compile_step`.
        state: State on the mesh.
        loader: Loader; one without buckets has batches of one shape.
        mesh: Mesh of the step.

    Returns:
        The compiled function `(state, batch) -> ...`, with the method `memory_analysis()`.
    """
    programs = {
        timesteps: step.lower(state, feed(loader, number, mesh)).compile()
        for timesteps, number in loader.shapes().items()
    }
    return ByTimesteps(programs) if len(programs) > 1 else next(iter(programs.values()))


@dataclasses.dataclass(frozen=True, eq=False)
class ByTimesteps:
    """Compiled step with a program for each number of timesteps.

    Attributes:
        programs: Timesteps of the batches to program, longest first.
    """

    programs: dict[Any, Any]

    def __call__(self, state: PyTree, batch: Batch) -> Any:
        """Runs the program of the batch."""
        return self.programs[batch.inputs.shape[1]](state, batch)

    def memory_analysis(self) -> Any:
        """Bytes of the longest batches, which need most."""
        return next(iter(self.programs.values())).memory_analysis()


def _replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def _batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of the leading axis over all axes that share a batch."""
    return NamedSharding(mesh, PartitionSpec(batch_axes(mesh)))
