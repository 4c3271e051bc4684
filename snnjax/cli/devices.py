"""On which devices and with which other processes: options of commands that train and compile.

snnjax train ... --mesh "data=4, fsdp=2" --coordinator 10.0.0.1:1234 --processes 2 --process 0
"""

from __future__ import annotations

import json
from typing import Any

import jax
from jax.sharding import Mesh

from snnjax import training
from snnjax.cli.failures import Failure
from snnjax.cli.options import Option
from snnjax.cli.output import Screen

__all__ = ["HOSTS", "MESH", "agree", "connect", "mesh_of", "told"]

MESH = Option(
    "mesh", str | None, None,
    'Devices by axis: "data=8", "data=4, fsdp=2", "data=-1" (all that are left); None is one '
    "device, or all where there are several processes.",
)  # fmt: skip
HOSTS = [
    Option(
        "coordinator", str | None, None,
        'HOST:PORT of process 0, the same for all; "auto" under Slurm and on TPU pods.',
    ),
    Option("processes", int | None, None, "How many processes train together."),
    Option("process", int | None, None, "Which of them this one is, from 0."),
]  # fmt: skip


def connect(options: Any, screen: Screen) -> None:
    """Joins the other processes, if there are any; from then on only process 0 speaks."""
    training.multihost.connect(options.coordinator, processes=options.processes, process=options.process)
    screen.several = options.coordinator is not None
    if screen.several and not training.multihost.is_leader():
        screen.hush(f"process {jax.process_index()}")


def agree(values: dict[str, Any]) -> None:
    """Refuses to train where processes were given other fields than process 0.

    Raises:
        Failure: This one was; `data_dir` alone may differ from machine to machine.
    """
    own = {name: value for name, value in values.items() if name != "data_dir"}
    said = json.loads(training.multihost.broadcast(lambda: json.dumps(own)))
    own = json.loads(json.dumps(own))
    if differing := [name for name in own if own[name] != said.get(name)]:
        name = differing[0]
        raise Failure(
            f"process {jax.process_index()} was given {name} {own[name]!r} and process 0 "
            f"{said.get(name)!r}: give all of them the same options"
        )


def mesh_of(text: str | None) -> Mesh:
    """The mesh asked for."""
    sizes = training.sharding.parse_mesh(text or "")
    return training.sharding.make_mesh(
        data=sizes.get("data"), fsdp=sizes.get("fsdp", 1), model=sizes.get("model", 1)
    )


def told(mesh: Mesh) -> str:
    """The devices of a mesh, in words."""
    kind = next(iter(mesh.devices.flat)).device_kind
    if mesh.size == 1:
        spare = jax.device_count() - 1
        return f"{kind} (1 of {spare + 1}: --mesh data=-1 takes all)" if spare else kind
    axes = ", ".join(f"{axis}={size}" for axis, size in mesh.shape.items() if size > 1)
    hosts = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return f"{mesh.size} x {kind} ({axes}){hosts}"
