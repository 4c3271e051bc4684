"""CPU time of a training step in two checkouts, in turn; for `regression.py --times`.

Each program of `peers.py` that is ours is started twice, here and from the other checkout.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
from typing import Any

WORKLOADS, WARM, ROUNDS = ("W1", "W2T4", "W3", "W3R", "W4"), 3, 9


class Program:
    """A process of `peers/ours.py` of a checkout, which takes a step for every line it is sent."""

    def __init__(self, checkout: pathlib.Path, number: int, workload: str):
        file = checkout / "experiments/benchmarks/peers.py"
        spec = importlib.util.spec_from_file_location("peers", file)
        assert spec and spec.loader
        spec.loader.exec_module(peers := importlib.util.module_from_spec(spec))
        self.name = peers.PROGRAMS[workload][0][number]
        command = [sys.executable, str(peers.HERE / "ours.py"), f"snnjax {self.name}", workload]
        places = os.pathsep.join([str(checkout), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [*command, "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": places},
        )  # fmt: skip
        self.about = self.read()

    def read(self) -> dict[str, Any]:
        """The line that answers."""
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def step(self) -> float:
        """CPU seconds of one."""
        print(file=self.process.stdin, flush=True)
        return self.read()["cpu"]


def paired(other: pathlib.Path) -> None:
    """Prints the CPU time of each program's step, here and there, and their ratio."""
    here = pathlib.Path(__file__).resolve().parents[2]
    print(f"{'':6} {'':34} {'here ms':>9} {'other ms':>9} {'ratio':>6}  temporary MiB")
    for workload in WORKLOADS:
        number = 0
        while True:
            try:
                pair = [Program(tree, number, workload) for tree in (here, other.resolve())]
            except IndexError:
                break
            steps = []
            for turn in range(WARM + ROUNDS):  # memory that is new to a process comes slowly
                taken = {p: p.step() for p in (pair if turn % 2 else pair[::-1])}
                steps += [[taken[p] for p in pair]] * (turn >= WARM)
            for program in pair:
                program.process.communicate()
            medians = [1e3 * statistics.median(column) for column in zip(*steps, strict=True)]
            ratio = statistics.median(a / b for a, b in steps)
            bytes_ = " ".join(f"{p.about['temporary']:9.2f}" for p in pair)
            print(
                f"{workload:6} {pair[0].name:34} {medians[0]:9.1f} {medians[1]:9.1f} {ratio:6.3f}  "
                f"{bytes_}{'' if pair[0].about['loss'] == pair[1].about['loss'] else '  loss!'}",
                flush=True,
            )
            number += 1
