"""Meshes: the devices of a run, in three axes.

    data     each device has its part of the batch and all parameters
    fsdp     each device has its part of the batch and of the parameters, and fetches the rest of
             them as it needs them ("fully sharded data parallel", ZeRO stage 3)
    model    each device has all of the batch and its part of the channels

    data=4, fsdp=2      eight devices; the batch is cut into eight, parameters into two

Which part of which array a device holds is said by `training.layout`. The numbers are those of one
device but for the order of sums over devices, see docs/scale.md.

Reference: Rajbhandari, Rasley, Ruwase, He, "ZeRO: Memory Optimizations Toward Training Trillion
Parameter Models", 2019, arXiv:1910.02054.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh

from snnjax.training.errors import MeshError

__all__ = ["AXES", "batch_axes", "make_mesh", "parse_mesh", "shared_axes", "shares"]

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
