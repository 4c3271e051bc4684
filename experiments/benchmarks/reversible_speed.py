"""Time of RevSResNet37's training step, its blocks stored, recomputed and reversed.

    depth=store            every activation of a block is kept
    depth=recompute(1)     each block's input is kept, the block is run again
    depth=reverse          nothing of a block is kept: its input is computed from its output

The step is the one `snnjax train` compiles (AdamW, batch norm over the window, T = 4, 32x32x3),
on noise with random labels. First every strategy takes one step from the same parameters, alone,
leanest first: loss and norm of the gradient must be the same, and `peak` is what the device has
held at most until then, the compiler's trials of kernels included (nothing where it does not tell).
Then all are timed in turns, `--calls` steps at a time; who begins changes from round to round.
`seconds` is the median over rounds, `ratio` the median of the ratio to the first strategy in the
same round, `temp_bytes` what XLA plans beside arguments and results.

Strategies compute the same function: a first loss that differs by more than a millionth makes the
program exit with 1. A GPU may choose another convolution in each program, which rounds otherwise
and flips spikes; `--deterministic` (XLA's deterministic kernels, slower) shows whether it was that.

**Not yet run on a GPU or TPU.** On a CPU, `--small` trains a network of two narrow blocks, to show
that the program works; its times say nothing.

Hardware: one GPU or TPU with 16 GB (three states of 282 MB, and 49 MB an image for `depth=store`)
Time: unknown; expected minutes, most of them compilation
Expected: equal losses; per image `depth=reverse` a quarter of the bytes of `depth=store`, as
    compiled for a CPU (`reversible_resnet.py`); times are unmeasured: both others do at most a
    third more arithmetic than `depth=store`
Command: python experiments/benchmarks/reversible_speed.py
    python experiments/benchmarks/reversible_speed.py --batch 256
    python experiments/benchmarks/reversible_speed.py --strategies depth=store depth=reverse
    python experiments/benchmarks/reversible_speed.py --small     # anywhere
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

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # or the peak is the whole pool

import jax
import numpy as np

from snnjax import data, encoding, memory, models, training

STRATEGIES = ("depth=store", "depth=recompute(1)", "depth=reverse")
SMALL = {"halves": (8,), "blocks": (2,), "input_shape": (8, 8, 3)}
CLASSES = 10


@dataclasses.dataclass
class Case:
    """A strategy: its compiled step, what was seen of it, and the state it is timed with."""

    experiment: training.Experiment
    step: Any
    seen: dict[str, Any]
    state: Any = None
    seconds: list[float] = dataclasses.field(default_factory=list)


def experiment(options: argparse.Namespace) -> training.Experiment:
    """A RevSResNet on noise of the shape it takes."""
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


def compiled(experiment: training.Experiment, strategy: str, dataset: data.Dataset) -> Case:
    """The step that training runs, and the seconds and bytes of its compilation."""
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
    """What was seen of each, with medians of its seconds and of the ratios to the first."""
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
    """Strategies whose first loss is not that of the first row, to six digits."""
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
    cases = [compiled(made, strategy, dataset) for strategy in options.strategies]
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
