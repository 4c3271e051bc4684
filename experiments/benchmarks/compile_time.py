"""Compile time of a train step against depth, and seconds to the first step of `snnjax train`.

steps     RevSResNet 21 and 109 (the published widths, frames 32x32x3, T = 4, batch 4, AdamW) under
          each memory strategy over depth: processor seconds of tracing, lowering and compiling
          the training step, each in a separate process without a cache. Two further figures do not
          depend on the machine: lines of the lowered program, and instructions of the compiled one.
command   `snnjax train` in a new run directory, from the start of the process to the end of its
          first step: with an empty cache of compiled programs, then with the filled cache.

Processes alternate, round after round; a figure is the median over rounds, a ratio the median over
rounds of the ratio to the shallowest net in the same round. Processor seconds are those of all
threads of the process: wall time is no longer on an idle machine, and much longer on a busy one.

Hardware: 2 CPU cores (measured: Intel Xeon, a virtual machine)
Time: 8 minutes of the processor
Expected: blocks are scanned, so five times as many layers change little; the remaining difference
    is between a loop of one trip, which XLA unrolls, and a loop of many. Processor seconds, jax
    0.10.2, one round on a slow day (command: medians of 4 rounds, on the slow day of 3):

                                 trace  lower  compile    all   to depth 21   instructions
        depth=reverse        21    9.8    2.3     18.9   31.0                       26,013
                            109    9.9    2.4     20.6   33.0         1.06x         27,915
        depth=recompute(1)   21    7.4    2.0     16.6   26.0                       22,545
                            109    7.0    2.1     19.5   28.6         1.10x         24,821
        depth=store          21    4.4    1.5     14.9   20.8                       18,685
                            109    4.6    1.4     17.0   23.1         1.11x         22,007

    `depth=recompute(sqrt)`, whose last segment is a separate program: 1.37x (one round).

        first step of snnjax train     empty cache 10.7 s     filled cache 5.2 s
        on the clock                                8.4 s                  5.1 s
        on the clock of a slow day                 12.1 s                  7.2 s
Command: python experiments/benchmarks/compile_time.py
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

DEPTHS = (21, 109)
STRATEGIES = ("depth=reverse", "depth=recompute(1)", "depth=store")
PHASES = ("trace", "lower", "compile")


def step_sizes_and_seconds(depth: int, strategy: str) -> dict[str, Any]:
    """Traces, lowers and compiles one train step in this process without running it."""
    import jax
    import jax.numpy as jnp

    from snnjax import data, encoding, memory, models, training
    from snnjax.training.state import wants_memory_scheduler

    experiment = training.Experiment(
        name="compile_time",
        network=lambda experiment, rngs: models.rev_resnet(depth=depth, rngs=rngs),
        dataset=lambda experiment: data.load("digits"),
        encode=lambda e, inputs, key: encoding.direct(inputs, timesteps=e.timesteps),
        timesteps=4,
        batch=4,
        memory=memory.parse_strategy(strategy),
    )
    made = []

    def state() -> training.TrainState:
        program, state = training.initialize(experiment, steps=100)
        made.append(program)
        return state

    shapes, mesh = jax.eval_shape(state), training.sharding.make_mesh()
    batch = jax.eval_shape(
        lambda: data.Batch(jnp.zeros((4, 32, 32, 3)), jnp.zeros(4, jnp.int32), jnp.ones(4))
    )
    step = training.sharding.compile_step(
        functools.partial(training.train_step, made[0]),
        mesh,
        memory_scheduler=wants_memory_scheduler(made[0], shapes),
    )
    clock = [_now()]
    traced = step.trace(shapes, batch)
    clock.append(_now())
    lowered = traced.lower()
    clock.append(_now())
    compiled = lowered.compile()
    clock.append(_now())
    pairs = zip(PHASES, clock, clock[1:], strict=False)
    spent = {phase: [b - a for a, b in zip(*ends, strict=True)] for phase, *ends in pairs}
    instructions = re.findall(r"^\s+(?:ROOT )?%?[\w.-]+ = ", compiled.as_text(), re.MULTILINE)
    return {
        "cpu": {phase: seconds[0] for phase, seconds in spent.items()},
        "clock": {phase: seconds[1] for phase, seconds in spent.items()},
        "lines": lowered.as_text().count("\n"),
        "instructions": len(instructions),
        "jax": jax.__version__,
    }


def first_step(began: float, out: str) -> None:
    """Runs the default command until the end of its first step and prints the seconds."""
    import jax

    from snnjax import training
    from snnjax.cli import main

    fit = training.fit

    def after_a_step() -> bool:
        jax.block_until_ready(jax.live_arrays())
        found = {"cpu": time.process_time(), "clock": time.time() - began}
        print(json.dumps(found), flush=True)
        os._exit(0)

    training.fit = lambda *given, **options: fit(*given, **{**options, "stop": after_a_step})
    main(argv=["train", "--out", out])


def _now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def child(*arguments: str, **environment: str) -> dict[str, Any]:
    """Last line of output of this file, run with some arguments in a process of its own."""
    run = [sys.executable, __file__, *arguments]
    variables = {name: v for name, v in os.environ.items() if not name.startswith("JAX_COMPIL")}
    variables |= {"JAX_PLATFORMS": "cpu", **environment}
    said = subprocess.run(run, env=variables, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(said.stdout.splitlines()[-1])


def measure_steps(
    depths: Sequence[int], strategies: Sequence[str], *, rounds: int
) -> list[dict[str, Any]]:
    """Medians per strategy and depth, and ratios to the first depth."""
    cases = [(depth, strategy) for strategy in strategies for depth in depths]
    found: dict[tuple[int, str], list[dict[str, Any]]] = {case: [] for case in cases}
    for _ in range(rounds):
        for depth, strategy in cases:
            options = ("--depth", str(depth), "--strategy", strategy)
            run = child(*options, JAX_ENABLE_COMPILATION_CACHE="0")
            print(f"depth {depth}, {strategy}: {run['cpu']}", file=sys.stderr, flush=True)
            found[depth, strategy].append(run)
    rows = []
    for (depth, strategy), runs in found.items():
        first = found[depths[0], strategy]
        whole = lambda run: sum(run["cpu"].values())  # noqa: E731
        cpu = {phase: statistics.median(run["cpu"][phase] for run in runs) for phase in PHASES}
        ratios = [whole(run) / whole(other) for run, other in zip(runs, first, strict=True)]
        row = {"strategy": strategy, "depth": depth, "cpu": cpu}
        row["seconds"] = statistics.median(whole(run) for run in runs)
        row["ratio"] = statistics.median(ratios)
        for size in ("lines", "instructions"):
            row[size] = runs[0][size]
            row[f"{size}_ratio"] = runs[0][size] / first[0][size]
        rows.append({**row, "runs": runs})
    return rows


def measure_command(*, rounds: int) -> dict[str, Any]:
    """Medians to the first step of the default command, without and with a cache."""
    found: dict[str, list[dict[str, float]]] = {"empty": [], "filled": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            cache = os.path.join(folder, "cache")
            for kind, runs in found.items():
                options = ("--began", str(time.time()), "--out", os.path.join(folder, kind))
                runs.append(child(*options, JAX_COMPILATION_CACHE_DIR=cache))
    return {
        kind: {
            "cpu": statistics.median(run["cpu"] for run in runs),
            "clock": statistics.median(run["clock"] for run in runs),
            "runs": runs,
        }
        for kind, runs in found.items()
    }


def main() -> None:
    """Prints tables and one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--part", choices=("steps", "command", "both"), default="both")
    parser.add_argument("--depths", type=int, nargs="+", default=DEPTHS)
    parser.add_argument("--strategies", nargs="+", default=STRATEGIES)
    parser.add_argument("--rounds", type=int, default=3)
    for name in ("depth", "strategy", "began", "out"):  # options of a child process
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.out:
        first_step(float(options.began), options.out)
    if options.depth:
        print(json.dumps(step_sizes_and_seconds(int(options.depth), options.strategy)))
        return
    found: dict[str, Any] = {"rounds": options.rounds}
    if options.part != "command":
        rows = measure_steps(options.depths, options.strategies, rounds=options.rounds)
        found |= {"jax": rows[0]["runs"][0]["jax"], "steps": rows}
        heads = (*PHASES, "seconds", "ratio", "instructions", "ratio")
        print(f"{'strategy':<20}{'depth':>6}" + "".join(f"{head:>13}" for head in heads))
        for row in rows:
            seconds = (*row["cpu"].values(), row["seconds"])
            print(
                f"{row['strategy']:<20}{row['depth']:>6}"
                + "".join(f"{number:>13.2f}" for number in (*seconds, row["ratio"]))
                + f"{row['instructions']:>13,}{row['instructions_ratio']:>13.2f}"
            )
    if options.part != "steps":
        found["command"] = measure_command(rounds=options.rounds)
        for kind, row in found["command"].items():
            print(
                f"first step of snnjax train, {kind + ' cache:':<14}{row['cpu']:>7.1f} s of the "
                f"processor, {row['clock']:.1f} s on the clock"
            )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
