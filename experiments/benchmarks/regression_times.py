"""CPU time of training steps in two checkouts, in turn; for `regression.py --times`."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
from typing import Any

DEEP = "RevSResNet37"
WORKLOADS, WARM, ROUNDS = ("W1", "W2T4", "W3", "W3R", "W4"), 3, 9
PEERS = pathlib.Path("experiments/benchmarks/peers")


class Program:
    """A process that takes one training step per line of input: of `peers/ours.py`, or this file.

    Args:
        checkout: root of the tree whose snnjax runs.
        name: program of a workload of `peers.py`; strategy of "RevSResNet37", which this file runs.
        workload: name of a workload.
    """

    def __init__(self, checkout: pathlib.Path, name: str, workload: str):
        file, program = str(checkout / PEERS / "ours.py"), f"snnjax {name}"
        if workload == DEEP:
            file, program = __file__, name
        self.process = subprocess.Popen(
            [sys.executable, file, program, workload, "1"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(checkout)},
        )  # fmt: skip
        self.about = self.read()

    def read(self) -> dict[str, Any]:
        """The next line of output."""
        assert self.process.stdout
        if not (line := self.process.stdout.readline()):
            raise RuntimeError(f"{self.process.args} ended: see above")
        return json.loads(line)

    def step(self) -> float:
        """CPU seconds of the next training step."""
        print(file=self.process.stdin, flush=True)
        return self.read()["cpu"]


def program_names(checkout: pathlib.Path, workload: str) -> list[str]:
    """Names of our programs in a checkout's `peers.py`."""
    spec = importlib.util.spec_from_file_location("peers", checkout / PEERS.with_suffix(".py"))
    assert spec and spec.loader
    spec.loader.exec_module(peers := importlib.util.module_from_spec(spec))
    return peers.PROGRAMS[workload][0]


def first_steps(trees: tuple[pathlib.Path, ...], rounds: int = 5) -> None:
    """Prints CPU seconds to the end of the first step of `snnjax train`, without a cache."""
    seconds: list[list[float]] = []
    for turn in range(rounds):
        found = {}
        for tree in trees if turn % 2 else trees[::-1]:
            with tempfile.TemporaryDirectory() as folder:
                program = str(tree / "experiments" / "benchmarks" / "compile_time.py")
                done = subprocess.run(
                    [sys.executable, program, "--began", "0", "--out", f"{folder}/run"],
                    env=os.environ | {"PYTHONPATH": str(tree), "JAX_ENABLE_COMPILATION_CACHE": "0"},
                    stdout=subprocess.PIPE, text=True, check=True,
                )  # fmt: skip
                found[tree] = json.loads(done.stdout.splitlines()[-1])["cpu"]
        seconds.append([found[tree] for tree in trees])
    here, there = (1e3 * statistics.median(column) for column in zip(*seconds, strict=True))
    ratio = statistics.median(a / b for a, b in seconds)
    print(f"{'snnjax train, first step':47} {here:9.1f} {there:9.1f} {ratio:6.3f}")


def deep_step(strategy: str) -> tuple[Any, Any]:
    """Step of stochastic gradient descent of RevSResNet37, T = 4, a batch of 2 images 32x32x3.

    Uses functions that every version since 0.1 has.
    """
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from snnjax import memory, models, nn

    network = models.rev_resnet(depth=37, rngs=nnx.Rngs(0))
    network = nn.with_memory(network, memory.parse_strategy(strategy))
    graphdef, params, others = nnx.split(network, nnx.Param, ...)
    frames = jnp.broadcast_to(
        jax.random.normal(jax.random.key(1), (2, 32, 32, 3)), (4, 2, 32, 32, 3)
    )

    def step(params: Any, state: Any) -> Any:
        def loss(params: Any) -> Any:
            network = nnx.merge(graphdef, params, others)
            scores = jax.nn.log_softmax(network(frames, state, training=True)[0].mean(0))
            return -scores[:, 0].mean()

        value, gradient = jax.value_and_grad(loss)(params)
        return value, jax.tree.map(lambda p, g: p - 0.01 * g, params, gradient)

    # Once: made eagerly, it takes as long as half a step.
    start = network.initial_state(2)
    compiled = jax.jit(step).lower(params, start).compile()
    analysis = compiled.memory_analysis()
    assert analysis, "this backend does not report the memory of compiled code"

    def run() -> float:
        nonlocal params
        value, params = compiled(params, start)
        return jax.block_until_ready(value)

    return run, lambda: {"temporary": analysis.temp_size_in_bytes / 2**20}


def time_pairs(other: pathlib.Path, pattern: str) -> None:
    """Prints CPU times of every program in this checkout and another one, and their ratio.

    Args:
        other: root of the other checkout.
        pattern: regular expression; programs whose "WORKLOAD NAME" matches.
    """
    trees = (pathlib.Path(__file__).resolve().parents[2], other.resolve())
    print(f"{'':12} {'':34} {'here ms':>9} {'other ms':>9} {'ratio':>6}  temporary MiB, both")
    for workload in WORKLOADS:
        # By position: a program may have been renamed.
        for names in zip(*(program_names(tree, workload) for tree in trees), strict=True):
            if re.search(pattern, f"{workload} {names[0]}"):
                _time_pair(workload, trees, names)
    for strategy in ("depth=store", "depth=reverse"):
        if re.search(pattern, f"{DEEP} {strategy}"):
            _time_pair(DEEP, trees, (strategy, strategy))
    if re.search(pattern, "snnjax train"):
        first_steps(trees)


def _time_pair(workload: str, trees: tuple[pathlib.Path, ...], names: tuple[str, ...]) -> None:
    pair = [Program(tree, name, workload) for tree, name in zip(trees, names, strict=True)]
    steps = []
    for turn in range(WARM + ROUNDS):
        # The order alternates, so that neither always runs in the cache the other left.
        seconds = {program: program.step() for program in (pair if turn % 2 else pair[::-1])}
        if turn >= WARM:  # a virtual machine provides new memory slowly
            steps.append([seconds[program] for program in pair])
    for program in pair:
        program.process.communicate()
    here, there = (1e3 * statistics.median(column) for column in zip(*steps, strict=True))
    ratio = statistics.median(a / b for a, b in steps)
    planned = " ".join(f"{program.about['temporary']:9.2f}" for program in pair)
    note = "" if pair[0].about["loss"] == pair[1].about["loss"] else "  losses differ"
    print(f"{workload:12} {names[0]:34} {here:9.1f} {there:9.1f} {ratio:6.3f}  {planned}{note}")


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parent / "peers"))
    import workloads

    workloads.pin(1)
    workloads.serve_steps(*deep_step(sys.argv[1]))
