"""Options for the devices and processes of commands that train and compile.

snnjax train ... --mesh "data=4, fsdp=2" --coordinator 10.0.0.1:1234 --processes 2 --process 0
"""

from __future__ import annotations

import json
from typing import Any

import jax
from jax.sharding import Mesh

from snnjax import training
from snnjax.cli._failures import Failure
from snnjax.cli._options import Option
from snnjax.cli._output import Screen

__all__ = ["HOSTS", "MESH", "check_same_fields", "connect", "describe_mesh", "parse_mesh"]

MESH = Option(
    "mesh", str | None, None,
    'Devices by axis: "data=8", "data=4, fsdp=2", "data=-1" (all remaining); None is one device, '
    "or all if there are several processes.",
)  # fmt: skip
HOSTS = [
    Option(
        "coordinator", str | None, None,
        'HOST:PORT of process 0, the same for all; "auto" under Slurm and on TPU pods.',
    ),
    Option("processes", int | None, None, "Number of processes that train together."),
    Option("process", int | None, None, "Index of this process, from 0."),
]  # fmt: skip


def connect(options: Any, screen: Screen) -> None:
    """Joins the other processes, if there are any, and silences all but process 0."""
    training.multihost.connect(
        options.coordinator, processes=options.processes, process=options.process
    )
    screen.several = options.coordinator is not None
    if screen.several and not training.multihost.is_leader():
        # Every process runs the same command; one line per event is enough.
        screen.silence(f"process {jax.process_index()}")


def check_same_fields(values: dict[str, Any]) -> None:
    """Checks that this process has the fields of process 0.

    Raises:
        Failure: A field other than `data_dir` differs.
    """
    # Data may be in another folder on each machine.
    own = {name: value for name, value in values.items() if name != "data_dir"}
    first = json.loads(training.multihost.broadcast(lambda: json.dumps(own)))
    # Through JSON too: tuples of this process are lists in the text of process 0.
    own = json.loads(json.dumps(own))
    if differing := [name for name in own if own[name] != first.get(name)]:
        name = differing[0]
        raise Failure(
            f"process {jax.process_index()} was given {name} {own[name]!r} and process 0 "
            f"{first.get(name)!r}: give all of them the same options"
        )
    # A barrier: process 0 makes no run directory if another one has refused its fields.
    training.multihost.broadcast(str)


def parse_mesh(text: str | None) -> Mesh:
    """Makes the mesh of the option `--mesh`."""
    sizes = training.sharding.parse_mesh(text or "")
    return training.sharding.make_mesh(
        data=sizes.get("data"), fsdp=sizes.get("fsdp", 1), model=sizes.get("model", 1)
    )


def describe_mesh(mesh: Mesh) -> str:
    """Describes the devices of a mesh for people."""
    kind = next(iter(mesh.devices.flat)).device_kind
    if mesh.size == 1:
        spare = jax.device_count() - 1
        return f"{kind} (1 of {spare + 1}: --mesh data=-1 takes all)" if spare else kind
    # Axes of size 1 cut nothing.
    axes = ", ".join(f"{axis}={size}" for axis, size in mesh.shape.items() if size > 1)
    hosts = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return f"{mesh.size} x {kind} ({axes}){hosts}"
