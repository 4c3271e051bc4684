"""Several processes that train one network: JAX's own runtime, and what all of them agree on.

Every process runs the same command and the same loop. Whatever leads to a step, a save or an end
must be the same everywhere, or one waits in a collective for another that never comes: process 0
decides what is decided once (`decided`), and a wish of any is known to all at the same step
(`Wishes`).
"""

from __future__ import annotations

import collections
import json
import socket
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from snnjax.training.errors import MeshError, TrainingError

__all__ = ["Wishes", "connect", "decided", "leads"]

_IN_FLIGHT = 2


def connect(
    coordinator: str | None,
    *,
    processes: int | None = None,
    process: int | None = None,
    timeout: int = 300,
) -> None:
    """Joins the other processes; to be called before anything asks for a device.

    Args:
        coordinator: `HOST:PORT` of process 0; "auto" where Slurm, Open MPI, GKE or a TPU pod says
            who is who (see `jax.distributed.initialize`); None is a run of one process.
        processes: How many there are.
        process: Which one this is, from 0.
        timeout: Seconds to wait for the others.

    Raises:
        MeshError: Arguments are missing or wrong, or process 0 did not come in time. (Where another
            one does not come, JAX's runtime ends those that wait, by SIGABRT.)
    """
    if coordinator is None:
        if processes is not None or process is not None:
            raise MeshError(
                "several processes need to find each other: --coordinator HOST:PORT of process 0, "
                "or --coordinator auto under Slurm and on TPU pods"
            )
        return
    if coordinator == "auto":
        if processes is not None or process is not None:
            raise MeshError("--coordinator auto finds out about processes: leave the others out")
        _join(
            {},
            timeout,
            "nothing here says who the other processes are: give --coordinator HOST:PORT",
        )
        return
    _check(coordinator, processes, process)
    if process:
        _reach(coordinator, timeout)
    named = {
        "coordinator_address": coordinator,
        "num_processes": processes,
        "process_id": process,
    }
    _join(named, timeout, f"not all {processes} processes came to {coordinator}")


def leads() -> bool:
    """Whether this process is the one that writes and speaks: process 0."""
    return jax.process_index() == 0


def decided(make: Callable[[], str]) -> str:
    """What process 0 makes, on every process; an error it meets is met by all.

    Args:
        make: Called on process 0 only.

    Raises:
        TrainingError: It failed.
    """
    if jax.process_count() == 1:
        return make()
    said = {"text": "", "error": None}
    if leads():
        try:
            said["text"] = make()
        except (TrainingError, OSError) as error:
            said["error"] = str(error)
    said = _from_the_first(said)
    if said["error"] is not None:
        raise TrainingError(said["error"])
    return said["text"]


class Wishes:
    """Whether any process wishes something, told to all at the same step.

    The answer is that of a few calls before, so that no device waits for it.

    Args:
        mesh: All processes have devices in it.
    """

    def __init__(self, mesh: Mesh):
        self.size = mesh.size
        self.each = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        all_of_them = NamedSharding(mesh, PartitionSpec())
        self.any = jax.jit(jnp.any, in_shardings=self.each, out_shardings=all_of_them)
        self.asked: collections.deque[jax.Array] = collections.deque()

    def __call__(self, wish: bool) -> bool:
        """Tells this process' wish; every process calls this equally often."""
        if jax.process_count() == 1:
            return wish
        own = jax.make_array_from_callback(
            (self.size,), self.each, lambda place: np.full(self.size, wish)[place]
        )
        self.asked.append(self.any(own))
        return len(self.asked) > _IN_FLIGHT and bool(self.asked.popleft())


def _check(coordinator: str, processes: int | None, process: int | None) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise MeshError(
            f'the coordinator is "auto" or HOST:PORT of process 0, such as 10.0.0.1:1234, not '
            f"{coordinator!r}"
        )
    if processes is None or process is None:
        raise MeshError(
            f"--coordinator {coordinator} needs --processes N and --process I, from 0 to N - 1"
        )
    if processes < 1 or not 0 <= process < processes:
        raise MeshError(
            f"of {processes} processes this is said to be number {process}: numbers run from 0 to "
            f"{max(processes, 1) - 1}"
        )


def _reach(coordinator: str, timeout: int) -> None:
    """Waits for process 0 to listen; JAX's runtime would end the whole process without a word."""
    host, _, port = coordinator.rpartition(":")
    until = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                raise MeshError(
                    f"process 0 does not listen at {coordinator} ({error}): start it there, and "
                    "let the port through"
                ) from error
            time.sleep(0.2)


def _join(named: dict, timeout: int, failure: str) -> None:
    # Signals are heard by whoever trains, who tells the others by `Wishes`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**named, initialization_timeout=timeout)
    except Exception as error:  # RuntimeError, ValueError and those of its runtime
        reason = " ".join(str(error).split())[:200]
        raise MeshError(f"{failure} ({type(error).__name__}: {reason})") from error


def _from_the_first(value: dict) -> dict:
    from jax.experimental.multihost_utils import broadcast_one_to_all

    words = np.frombuffer(json.dumps(value).encode(), np.uint8)
    length = int(broadcast_one_to_all(np.int32(len(words))))
    words = words if leads() else np.zeros(length, np.uint8)
    return json.loads(np.asarray(broadcast_one_to_all(words)).astype(np.uint8).tobytes())
