"""The four workloads, and the process that measures one program.

Neuron everywhere, unless a program's `differs` says otherwise: `h = 0.5 v + x`, fires at `h >= 1`,
hard reset to 0, detached, surrogate arctan(2). Loss: cross entropy of the outputs' mean over time;
Adam, rate 1e-3. No biases except in batch norm. NumPy draws all arrays, in float32, so that all
programs have the same initial weights and inputs.

    W1     dense 784-512-10, T=25, B=128; inputs spike with probability 0.2
    W2T4   conv3x3(64) - BN - LIF, conv3x3(128, stride 2) - BN - LIF, twice, global average pool,
           dense 10, on noise of 32x32x3 per step, T=4, B=32;    W2T16 the same, T=16
    W3     dense 700-256-256-20, T=100, B=64, spikes of 0.1;     W3R with recurrent weights
    W4     an LIF layer alone on [T=32, B=64, N=16384]: sum of its spikes, gradient of its currents

This file imports neither JAX nor PyTorch: each process has its own.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

DECAY, THRESHOLD, ALPHA, RATE = 0.5, 1.0, 2.0, 1e-3


class Dense(NamedTuple):
    """Fully connected layers; all but the last spike."""

    widths: tuple[int, ...]
    timesteps: int
    batch: int
    firing: float
    recurrent: bool = False


class Conv(NamedTuple):
    """Three convolutions, `(channels, stride)`, on images of `size`."""

    layers: tuple[tuple[int, int], ...]
    size: int
    timesteps: int
    batch: int
    classes: int = 10


class Layer(NamedTuple):
    """Neurons alone."""

    timesteps: int
    batch: int
    neurons: int


_LAYERS = ((64, 1), (128, 2), (128, 2))
WORKLOADS: dict[str, Any] = {
    "W1": Dense((784, 512, 10), 25, 128, 0.2),
    "W2T4": Conv(_LAYERS, 32, 4, 32),
    "W2T16": Conv(_LAYERS, 32, 16, 32),
    "W3": Dense((700, 256, 256, 20), 100, 64, 0.1),
    "W3R": Dense((700, 256, 256, 20), 100, 64, 0.1, recurrent=True),
    "W4": Layer(32, 64, 16384),
    # Small sizes for tests.
    "W1-small": Dense((12, 8, 3), 3, 16, 0.5),
    "W2-small": Conv(((4, 1), (8, 2), (8, 2)), 8, 2, 3),
    "W3R-small": Dense((12, 8, 8, 3), 4, 16, 0.5, recurrent=True),
    "W4-small": Layer(3, 2, 16),
}


class Problem(NamedTuple):
    """Arrays of a workload.

    Attributes:
        workload: sizes.
        kernels: in the order of the layers, `[in, out]` or `[3, 3, in, out]`, the last one dense.
        recurrent: `[n, n]` for each spiking layer; empty without feedback.
        inputs: `[T, B, ...]`, channels last.
        labels: `[B]`.
    """

    workload: Any
    kernels: list[np.ndarray]
    recurrent: list[np.ndarray]
    inputs: np.ndarray
    labels: np.ndarray


def problem(name: str) -> Problem:
    """Arrays of a workload, deterministic in its name."""
    draw, workload = np.random.default_rng(0), WORKLOADS[name]
    lead = (workload.timesteps, workload.batch)
    if isinstance(workload, Layer):
        inputs = draw.standard_normal((*lead, workload.neurons), np.float32)
        return Problem(workload, [], [], inputs, np.zeros(0, np.int32))
    if isinstance(workload, Dense):
        shapes = list(zip(workload.widths[:-1], workload.widths[1:], strict=True))
        inputs = (draw.random((*lead, workload.widths[0])) < workload.firing).astype(np.float32)
    else:
        channels = [3, *(c for c, _ in workload.layers)]
        shapes = [(3, 3, a, b) for a, b in zip(channels[:-1], channels[1:], strict=True)]
        shapes.append((channels[-1], workload.classes))
        inputs = draw.standard_normal((*lead, workload.size, workload.size, 3), np.float32)
    kernels = [
        np.float32(2.5 / np.sqrt(np.prod(s[:-1]))) * draw.standard_normal(s, np.float32)
        for s in shapes
    ]
    recurrent = []
    if isinstance(workload, Dense) and workload.recurrent:
        hidden = workload.widths[1:-1]
        recurrent = [draw.standard_normal((n, n), np.float32) * np.float32(n**-0.5) for n in hidden]
    labels = draw.integers(0, shapes[-1][-1], workload.batch).astype(np.int32)
    return Problem(workload, kernels, recurrent, inputs, labels)


def resident() -> float:
    """Peak resident memory of this process, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def pin(cores: int) -> None:
    """Pins this process to a number of cores; call it before any library creates threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[-cores:]))
    os.environ["OMP_NUM_THREADS"] = str(cores)
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # otherwise waiting threads consume processor time


def serve(programs: dict[str, Any]) -> None:
    """Measures the program of `FILE PROGRAM WORKLOAD CORES`, a step for every line of stdin.

    Args:
        programs: name -> `(problem) -> (step, about)`, see `serve_steps`.
    """
    name, workload, cores = sys.argv[1:]
    pin(int(cores))
    serve_steps(*programs[name](problem(workload)))


def serve_steps(step: Callable[[], Any], about: Callable[[], dict[str, Any]]) -> None:
    """Writes a line about a program, then a line per line of stdin.

    The first line has the loss and the time of the first step; the others have wall and processor
    seconds of a step, and the peak growth of memory since the program was built, MiB.

    Args:
        step: A training step that waits for its results and returns the loss.
        about: Further facts about the program.
    """
    before = resident()
    loss, first = _timed(step)
    step()
    known = {"loss": float(loss), "first": first, "resident": resident() - before}
    print(json.dumps(known | about()), flush=True)
    for _ in sys.stdin:
        print(json.dumps(_timed(step)[1] | {"resident": resident() - before}), flush=True)


def _timed(step):
    wall, cpu = time.perf_counter(), time.process_time()
    loss = step()
    return loss, {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
