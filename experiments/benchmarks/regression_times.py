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
from typing import Any

WORKLOADS, WARM, ROUNDS = ("W1", "W2T4", "W3", "W3R", "W4"), 3, 9
PEERS = pathlib.Path("experiments/benchmarks/peers")


class Program:
    """A process of `peers/ours.py` that takes one training step per line of input."""

    def __init__(self, checkout: pathlib.Path, name: str, workload: str):
        command = [sys.executable, str(checkout / PEERS / "ours.py"), f"snnjax {name}", workload]
        self.process = subprocess.Popen(
            [*command, "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
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


def time_pairs(other: pathlib.Path, pattern: str) -> None:
    """Prints CPU times of every program in this checkout and another one, and their ratio.

    Args:
        other: root of the other checkout.
        pattern: regular expression; programs whose "WORKLOAD NAME" matches.
    """
    trees = (pathlib.Path(__file__).resolve().parents[2], other.resolve())
    print(f"{'':6} {'':34} {'here ms':>9} {'other ms':>9} {'ratio':>6}  temporary MiB, both")
    for workload in WORKLOADS:
        # By position: a program may have been renamed.
        for names in zip(*(program_names(tree, workload) for tree in trees), strict=True):
            if re.search(pattern, f"{workload} {names[0]}"):
                _time_pair(workload, trees, names)


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
    print(f"{workload:6} {names[0]:34} {here:9.1f} {there:9.1f} {ratio:6.3f}  {planned}{note}")
