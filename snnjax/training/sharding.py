"""Where a step runs: batches cut over the devices of a mesh, states laid out on them.

Loss, gradients and batch statistics are those of the whole batch: what crosses devices is put in by
the compiler (GSPMD), from the shardings of a step's arguments and results alone. Of several
processes each reads only the examples its own devices need.

Which part of which array a device of a mesh holds: rules on the tree of parameters.

    rule(path, shape, mesh) -> PartitionSpec           path such as ".body.layers[1].kernel"

An experiment's `layout` is such a rule. Slots of the optimizer lie as their parameters do; all else
(statistics, constants, counters, keys) is on every device. The default, `by_shape`:

    model    the last axis, output channels, where the size divides it; else the one before it
    fsdp     the longest other axis that the size divides

of arrays that are large enough; what no axis fits stays whole on every device. A rule changes where
numbers are, never what they are.

Meshes: the devices of a run, in three axes.

    data     each device has its part of the batch and all parameters
    fsdp     each device has its part of the batch and of the parameters, and fetches the rest of
             them as it needs them ("fully sharded data parallel", ZeRO stage 3)
    model    each device has all of the batch and its part of the channels

    data=4, fsdp=2      eight devices; the batch is cut into eight, parameters into two

Which part of which array a device holds is said by `training.sharding`. The numbers are those of
one device but for the order of sums over devices, see docs/scale.md.

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
    "by_name",
    "by_shape",
    "compile_step",
    "compiler_options",
    "feed",
    "make_mesh",
    "parse_mesh",
    "place",
    "rows_of",
    "sharded",
    "shardings",
    "shared_axes",
    "shares",
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
    """A mesh of the first devices there are.

    Args:
        data: Its size; -1 is as many as devices are left. None is -1 where `devices` are given or
            there are several processes, else 1.
        fsdp: Its size; one of the sizes may be -1.
        model: Its size.
        devices: Which; None is all, of all processes.

    Raises:
        MeshError: There are not so many devices, or some process would have none.
    """
    several = jax.process_count() > 1
    if data is None:
        data = _REST if (devices is not None or several) and _REST not in (fsdp, model) else 1
    devices = jax.devices() if devices is None else list(devices)
    sizes = _filled((data, fsdp, model), len(devices))
    chosen = devices[: math.prod(sizes)]
    without = set(range(jax.process_count())) - {device.process_index for device in chosen}
    if without:
        raise MeshError(
            f"a mesh of {len(chosen)} of {len(devices)} devices leaves process "
            f"{min(without)} without any: data=-1 takes all that are left"
        )
    return jax.make_mesh(sizes, AXES, (AxisType.Auto,) * len(AXES), devices=chosen)


def parse_mesh(text: str) -> dict[str, int]:
    """Sizes of axes from text such as "data=4, fsdp=2", for `make_mesh`.

    Raises:
        MeshError: It is not of that form.
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
    """The axes of a mesh that share a batch."""
    return tuple(axis for axis in _BATCH if axis in mesh.axis_names)


def shares(mesh: Mesh) -> int:
    """Into how many parts a batch is cut."""
    return math.prod(mesh.shape[axis] for axis in batch_axes(mesh))


def shared_axes(mesh: Mesh | None) -> tuple[str, ...]:
    """The axes along which several devices share a batch; none where one has all of it."""
    return batch_axes(mesh) if mesh is not None and shares(mesh) > 1 else ()


def _filled(sizes: tuple[int, ...], devices: int) -> tuple[int, ...]:
    """The sizes with -1 filled in."""
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
        path: Not looked at.
        shape: Of the array.
        mesh: With the axes `fsdp` and `model`.
        smallest: Arrays of fewer numbers stay whole: fetching their parts takes longer than they
            are worth.
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
    """A rule that looks at the path: the first pattern found in it decides.

    Args:
        rules: Regular expression to spec: `{"head.*kernel": PartitionSpec(None, "model")}`.
        otherwise: What decides where no pattern is found.
    """

    def rule(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
        for pattern, spec in rules.items():
            if re.search(pattern, path):
                return spec
        return otherwise(path, shape, mesh)

    return rule


def shardings(state: Any, mesh: Mesh, rule: Rule) -> Any:
    """Where every array of a `TrainState` lies, as a tree of `NamedSharding`.

    Args:
        state: Its `params` and `optimizer` are laid out; arrays or their shapes.
        mesh: From `make_mesh`.
        rule: Such as an experiment's `layout`.

    Raises:
        MeshError: The rule asks for what the array or the mesh cannot do.
    """
    everywhere = NamedSharding(mesh, PartitionSpec())
    whole = jax.tree.map(lambda leaf: everywhere, state)
    if mesh.size == 1:
        return whole
    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    specs = {path: (leaf.shape, _spec(path, leaf, mesh, rule)) for path, leaf in leaves}

    def like_its_parameter(path, leaf) -> NamedSharding:
        # An optimizer's tree holds trees like the parameters', so their paths end alike.
        for start in range(len(path)):
            found = specs.get(path[start:])
            if found and found[0] == leaf.shape:
                return NamedSharding(mesh, found[1])
        return everywhere

    def laid_out(tree: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(like_its_parameter, tree)

    return whole._replace(params=laid_out(state.params), optimizer=laid_out(state.optimizer))


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
