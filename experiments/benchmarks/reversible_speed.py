"""Time of RevSResNet37's training step, its blocks stored, recomputed and reversed.

    depth=store            keeps every activation of a block
    depth=recompute(1)     keeps each block's input and recomputes the block
    depth=reverse          keeps nothing of a block: computes its input from its output

The step is that of `snnjax train` (AdamW, batch norm over the window, T = 4, 32x32x3), on noise
with random labels. First every strategy executes one step alone from the same parameters, in order
of increasing memory: loss and norm of the gradient must be equal, and `peak` is the device's
largest memory use so far, including the compiler's trials of kernels (empty if the device does not
report it). Then the strategies alternate, `--calls` steps at a time, starting with another one in
each round. `seconds` is the median over rounds, `ratio` the median of the ratio to the first
strategy in the same round, `temp_bytes` XLA's plan besides arguments and results.

Strategies compute the same function: the program exits with 1 if a first loss differs by more than
a millionth. A GPU may choose another convolution in each program, which rounds differently and
flips spikes; `--deterministic` (XLA's deterministic kernels, slower) excludes this cause.

**Not yet run on a GPU or TPU.** On a CPU, `--small` tests the program with a network of two narrow
blocks; its times mean nothing.

Hardware: one GPU or TPU with 16 GB (three states of 282 MB, and 49 MB an image for `depth=store`)
Time: unknown; expected minutes, most of them compilation
Expected: equal losses; per image `depth=reverse` a quarter of the bytes of `depth=store`, as
    compiled for a CPU (`reversible_resnet.py`); times are unmeasured: both other strategies need at
    most a third more arithmetic than `depth=store`
Command: python experiments/benchmarks/reversible_speed.py
    python experiments/benchmarks/reversible_speed.py --batch 256
    python experiments/benchmarks/reversible_speed.py --strategies depth=store depth=reverse
    python experiments/benchmarks/reversible_speed.py --small     # any machine
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import statistics
import sys
import time
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the peak would be the pool

import jax
import numpy as np

from snnjax import data, encoding, memory, models, training

STRATEGIES = ("depth=store", "depth=recompute(1)", "depth=reverse")
SMALL = {"halves": (8,), "blocks": (2,), "input_shape": (8, 8, 3)}
CLASSES = 10


@dataclasses.dataclass
class Case:
    """A strategy: its compiled step, measurements, and the state for timing."""

    experiment: training.Experiment
    step: Any
    seen: dict[str, Any]
    state: Any = None
    seconds: list[float] = dataclasses.field(default_factory=list)


def experiment(options: argparse.Namespace) -> training.Experiment:
    """Experiment of a RevSResNet on noise."""
    size = SMALL if options.small else {"depth": options.depth, "input_shape": (32, 32, 3)}

    def noise(experiment: training.Experiment) -> data.Dataset:
        draw = np.random.default_rng(0)
        shape = (experiment.batch, *size["input_shape"])
        inputs = draw.integers(0, 256, shape, np.uint8)
        labels = draw.integers(0, CLASSES, experiment.batch, np.int32)
        names = tuple(map(str, range(CLASSES)))
        return data.from_arrays(inputs, labels, inputs, labels, class_names=names)

    def frames(experiment: training.Experiment, inputs: Any, key: Any) -> jax.Array:
        del key
        return encoding.direct(data.rescale(inputs, 1 / 255), timesteps=experiment.timesteps)

    return training.Experiment(
        name="reversible_speed",
        network=lambda experiment, rngs: models.rev_resnet(classes=CLASSES, rngs=rngs, **size),
        dataset=noise,
        encode=frames,
        timesteps=options.timesteps,
        batch=options.batch,
        deterministic=options.deterministic,
    )


def compile_case(experiment: training.Experiment, strategy: str, dataset: data.Dataset) -> Case:
    """Compiled training step, and seconds and bytes of its compilation."""
    parsed = memory.parse_strategy(strategy)
    began = time.perf_counter()
    step, shapes = training.planning.training_step(experiment, parsed, dataset=dataset)
    made = step.lower(*shapes).compile()
    seen = {"strategy": strategy, "compile_seconds": time.perf_counter() - began}
    seen["temp_bytes"] = memory.accounting.compiled_memory(made, experiment.batch).temp_bytes
    return Case(training.planning.with_strategy(experiment, parsed), made, seen)


def first_state(case: Case) -> training.TrainState:
    """The state before the first step, the same for every strategy."""
    _, state = training.initialize(case.experiment, steps=1000)
    return training.sharding.place(state, training.sharding.make_mesh())


def take_first_step(case: Case, batch: data.Batch) -> None:
    """Loss and gradient of the first step, and the device's peak after it."""
    _, metrics = jax.block_until_ready(case.step(first_state(case), batch))
    case.seen["loss"] = float(metrics.loss)
    case.seen["gradient_norm"] = float(metrics.gradient_norm)
    case.seen["peak_bytes"] = memory.accounting.device_peak()


def take_turns(cases: list[Case], batch: data.Batch, *, rounds: int, calls: int) -> None:
    """Seconds per step, one per case and round; the first round warms up."""
    for case in cases:
        case.state = first_state(case)
    for number in range(rounds + 1):
        first = number % len(cases)
        for case in cases[first:] + cases[:first]:
            began = time.perf_counter()
            for _ in range(calls):
                case.state, metrics = case.step(case.state, batch)
            jax.block_until_ready(metrics)
            if number:
                case.seconds.append((time.perf_counter() - began) / calls)


def table(cases: list[Case]) -> list[dict[str, Any]]:
    """Measurements of each case, with medians of its seconds and of its ratios to the first."""
    first = cases[0].seconds
    return [
        {
            **case.seen,
            "seconds": statistics.median(case.seconds),
            "ratio": statistics.median(a / b for a, b in zip(case.seconds, first, strict=True)),
            "all_seconds": case.seconds,
        }
        for case in cases
    ]


def differing(rows: list[dict[str, Any]]) -> list[str]:
    """Strategies whose first loss differs from that of the first row in six digits."""
    expected = rows[0]["loss"]
    return [r["strategy"] for r in rows if not math.isclose(r["loss"], expected, rel_tol=1e-6)]


def main() -> None:
    """Prints a table and one line of JSON; exits with 1 if a strategy changed the loss."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="a tiny network and batch, anywhere")
    parser.add_argument("--depth", type=int, default=37, choices=(21, 37, 109))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--timesteps", type=int, default=4)
    parser.add_argument("--strategies", nargs="+", default=STRATEGIES)
    parser.add_argument("--calls", type=int, default=10, help="steps per round")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--deterministic", action="store_true", help="on GPUs, kernels that are")
    options = parser.parse_args()
    device = jax.devices()[0]
    if options.small:
        options.batch, options.calls, options.rounds = 4, 1, 3
    made = experiment(options)
    dataset = training.config.load_dataset(made)
    cases = [compile_case(made, strategy, dataset) for strategy in options.strategies]
    loader = data.Loader(dataset.train, batch_size=options.batch, seed=0)
    batch = training.sharding.feed(loader, 0, training.sharding.make_mesh())
    for case in sorted(cases, key=lambda case: case.seen["temp_bytes"]):
        take_first_step(case, batch)
    take_turns(cases, batch, rounds=options.rounds, calls=options.calls)
    rows = table(cases)
    print(f"{'strategy':<22}{'ms a step':>11}{'ratio':>8}{'MB':>9}{'peak MB':>9}{'loss':>11}")
    for row in rows:
        peak = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.0f}"
        print(
            f"{row['strategy']:<22}{row['seconds'] * 1e3:>11.2f}{row['ratio']:>7.2f}x"
            f"{row['temp_bytes'] / 1e6:>9.1f}{peak:>9}{row['loss']:>11.6f}"
            f"   |gradient| {row['gradient_norm']:.6g}"
        )
    about = {"device": device.device_kind, **training.Run.versions(), **vars(options)}
    print(json.dumps({**about, "rows": rows}))
    if changed := differing(rows):
        sys.exit(
            f"the first loss differs from {rows[0]['strategy']}'s under {', '.join(changed)}: "
            "on a GPU try --deterministic; if it stays, a strategy is wrong"
        )


if __name__ == "__main__":
    main()
