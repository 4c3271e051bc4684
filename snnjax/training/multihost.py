"""Training by several processes: JAX's distributed runtime, and common decisions.

All processes run the same command and the same loop. They must agree on every step, save and stop,
or one waits in a collective that another never enters. `broadcast` distributes a decision of
process 0, and `AnyProcess` a flag raised by any process, to all of them at the same step.
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

__all__ = ["AnyProcess", "broadcast", "connect", "is_leader"]

# Calls before the answer is read, so that no device waits for it.
_IN_FLIGHT = 2


def connect(
    coordinator: str | None,
    *,
    processes: int | None = None,
    process: int | None = None,
    timeout: int = 300,
) -> None:
    """Joins the other processes; call it before any use of a device.

    Args:
        coordinator: `HOST:PORT` of process 0; "auto" under Slurm, Open MPI, GKE or on a TPU pod,
            which assign the processes (see `jax.distributed.initialize`); None is a run of a single
            process.
        processes: Number of processes.
        process: Index of this process, from 0.
        timeout: Time to wait for the others, s.

    Raises:
        MeshError: Arguments are missing or wrong, or process 0 did not answer in time. (If another
            process is missing, JAX's runtime aborts the waiting ones by SIGABRT.)
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
    # JAX's runtime ends a process that cannot reach process 0 without a message: probe the port
    # first.
    if process:
        _reach(coordinator, timeout)
    named = {
        "coordinator_address": coordinator,
        "num_processes": processes,
        "process_id": process,
    }
    _join(named, timeout, f"not all {processes} processes came to {coordinator}")


def is_leader() -> bool:
    """True on process 0, which writes files and reports."""
    return jax.process_index() == 0


def broadcast(make: Callable[[], str]) -> str:
    """Distributes a text from process 0; its errors are raised on every process.

    Args:
        make: Function that returns the text, called on process 0 only.

    Raises:
        TrainingError: `make` failed.
    """
    if jax.process_count() == 1:
        return make()
    # An error travels as a message: raised on process 0 alone, the others would wait for its text.
    message = {"text": "", "error": None}
    if is_leader():
        try:
            message["text"] = make()
        except (TrainingError, OSError) as error:
            message["error"] = str(error)
    message = _broadcast_json(message)
    if message["error"] is not None:
        raise TrainingError(message["error"])
    return message["text"]


class AnyProcess:
    """Flag that any process may raise, known to all at the same step, a few calls later.

    Args:
        mesh: Mesh with devices of all processes.
    """

    def __init__(self, mesh: Mesh):
        self.size = mesh.size
        self.each = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        everywhere = NamedSharding(mesh, PartitionSpec())
        # One compiled collective: every process gets the answer of the same call.
        self.any = jax.jit(jnp.any, in_shardings=self.each, out_shardings=everywhere)
        self.pending: collections.deque[jax.Array] = collections.deque()

    def __call__(self, flag: bool) -> bool:
        """Sends the flag of this process; all processes must call this equally often.

        Returns:
            True if any process raised its flag a few calls before.
        """
        if jax.process_count() == 1:
            return flag
        own = jax.make_array_from_callback(
            (self.size,), self.each, lambda place: np.full(self.size, flag)[place]
        )
        self.pending.append(self.any(own))
        return len(self.pending) > _IN_FLIGHT and bool(self.pending.popleft())


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
    """Waits until process 0 listens."""
    host, _, port = coordinator.rpartition(":")
    until = time.monotonic() + timeout
    while True:
        try:
            # Closed at once: it only shows that the port answers.
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
    # The training loop handles signals and passes them on by `AnyProcess`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**named, initialization_timeout=timeout)
    except Exception as error:  # RuntimeError, ValueError and those of its runtime
        reason = " ".join(str(error).split())[:200]
        raise MeshError(f"{failure} ({type(error).__name__}: {reason})") from error


def _broadcast_json(value: dict) -> dict:
    from jax.experimental.multihost_utils import broadcast_one_to_all

    # A broadcast needs equal shapes on every process: first the length, then the bytes.
    words = np.frombuffer(json.dumps(value).encode(), np.uint8)
    length = int(broadcast_one_to_all(np.int32(len(words))))
    words = words if is_leader() else np.zeros(length, np.uint8)
    return json.loads(np.asarray(broadcast_one_to_all(words)).astype(np.uint8).tobytes())
