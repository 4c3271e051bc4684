"""Bytes of the gradient under each memory strategy, and time relative to `store`.

depth   `nn.Reversible`, two branches LIF - conv3x3 - batch norm on halves [T=4, B=8, 16, 16, 32],
        32 blocks scanned over depth; gradient of the mean square for parameters and input
time    Dense(128 -> 256) - LIF(0.9) - Dense(10) - LI(0.9), T = 1024, B = 32, `order="time"`; cross
        entropy of the time mean, gradient with respect to the parameters; `collect="mean"` keeps
        the mean in the carry

Each program is compiled, run once, and then timed alternately with the others; a ratio is the
median over rounds of the ratio within one round. Bytes are XLA's temporary ones. On a CPU the
scanned stack is compiled with XLA's default scheduler, the long window with the memory-optimised
one, as in `snnjax memory` and in training.

Run:
    python experiments/benchmarks/memory_strategies.py           # two minutes
    python experiments/benchmarks/memory_strategies.py --json

Measured on two shared cores of an Intel Xeon, float32, jax 0.10.2, 7 rounds, busy machine:

    depth, 32 blocks         temporary   less    time
    store                    209.4 MB    1.0x    1.00x
    recompute(1)              75.7 MB    2.8x    0.97x
    reverse                    6.7 MB   31.2x    0.94x

    time, T = 1024           temporary   less    time          mean in the carry
    store                     85.4 MB    1.0x    1.00x          84.1 MB    1.0x    1.00x
    recompute(sqrt)            5.6 MB   15.1x    0.84x           4.3 MB   19.4x    1.01x
      on two levels            4.3 MB   19.7x    0.89x           3.0 MB   28.2x    1.02x
      on three levels          4.0 MB   21.2x    1.14x           2.7 MB   31.4x    1.12x

Reversed bytes are the same at any depth (`tests/memory/test_coupling_bytes.py`).
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import losses, memory, nn, readout, training

BLOCKS, TIMESTEPS, BATCH = 32, 1024, 32
DEPTH = ("depth=store", "depth=recompute(1)", "depth=reverse")
TIME = (
    "time=store",
    "time=recompute(sqrt)",
    "time=recompute(sqrt, inner=recompute(1))",
    "time=recompute(sqrt, inner=recompute(sqrt, inner=recompute(1)))",
)


class Program(NamedTuple):
    """A compiled gradient and its arguments; the first of a group is its reference."""

    group: str
    strategy: str
    run: Callable[..., Any]
    arguments: tuple[Any, ...]


def compile_program(
    function: Callable[..., Any], *arguments: Any, memory_scheduler: bool
) -> Callable[..., Any]:
    """Compiles a function, on a CPU with the chosen scheduler."""
    options = training.sharding.compiler_options(
        training.sharding.make_mesh(), memory_scheduler=memory_scheduler
    )
    return jax.jit(function).lower(*arguments).compile(compiler_options=options)


def couplings() -> Iterator[Program]:
    """Programs of the reversible stack under each strategy over depth."""

    def half(rngs: nnx.Rngs) -> nn.Sequential:
        return nn.Sequential(nn.LIF(), nn.Conv(32, 32, rngs=rngs), nn.BatchNorm(32))

    def loss(graphdef: Any, params: Any, frames: jax.Array, constants: Any):
        network = nn.merge(graphdef, params, constants)
        outputs, aux = network(frames, network.initial_state(8), training=True)
        return jnp.mean(jnp.square(outputs)), aux.statistics

    stack = nn.Reversible(half, half, BLOCKS, rngs=nnx.Rngs(0))
    network = nn.Network(stack, (16, 16, 64))
    frames = jax.random.normal(jax.random.key(1), (4, 8, 16, 16, 64))
    for text in DEPTH:
        graphdef, params, constants = nn.split(nn.with_memory(network, memory.parse_strategy(text)))
        gradient = jax.value_and_grad(functools.partial(loss, graphdef), (0, 1), has_aux=True)
        arguments = (params, frames, constants)
        run = compile_program(gradient, *arguments, memory_scheduler=False)
        yield Program("depth", text, run, arguments)


def long_window(collect: str) -> Iterator[Program]:
    """Programs of the dense network over a long window under each strategy over time."""

    def loss(graphdef: Any, params: Any, frames: jax.Array, labels: jax.Array, constants: Any):
        network = nn.merge(graphdef, params, constants)
        outputs, _ = network(frames, network.initial_state(BATCH), training=True)
        return losses.mean(losses.cross_entropy(readout.rate(outputs), labels))

    rngs = nnx.Rngs(0)
    dense = functools.partial(nn.Linear, use_bias=False, rngs=rngs)
    body = nn.Sequential(dense(128, 256), nn.LIF(decay=0.9), dense(256, 10), nn.LI(decay=0.9))
    network = nn.Network(body, (128,), order="time", collect=collect)
    frames = jax.random.normal(jax.random.key(1), (TIMESTEPS, BATCH, 128))
    labels = jnp.arange(BATCH) % 10
    for text in TIME:
        graphdef, params, constants = nn.split(nn.with_memory(network, memory.parse_strategy(text)))
        gradient = jax.value_and_grad(functools.partial(loss, graphdef))
        arguments = (params, frames, labels, constants)
        group = "time" if collect == "all" else "time, mean in the carry"
        run = compile_program(gradient, *arguments, memory_scheduler=True)
        yield Program(group, text, run, arguments)


def measure(programs: list[Program], *, rounds: int) -> list[dict[str, Any]]:
    """Bytes, median milliseconds and ratios of a group's programs."""
    spent: list[list[float]] = [[] for _ in programs]
    for number in range(rounds + 1):
        for program, seconds in zip(programs, spent, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(program.run(*program.arguments))
            if number:  # the first round warms up
                seconds.append(time.perf_counter() - began)
    bytes_ = [p.run.memory_analysis().temp_size_in_bytes for p in programs]
    return [
        {
            "group": program.group,
            "strategy": program.strategy,
            "temp_bytes": size,
            "bytes_ratio": bytes_[0] / size,
            "milliseconds": 1000 * statistics.median(seconds),
            "time_ratio": statistics.median(a / b for a, b in zip(seconds, spent[0], strict=True)),
        }
        for program, size, seconds in zip(programs, bytes_, spent, strict=True)
    ]


def main() -> None:
    """Measures all groups and prints a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for group in (couplings, *(functools.partial(long_window, c) for c in ("all", "mean"))):
        for row in measure(list(group()), rounds=options.rounds):
            rows.append(row)
            if not options.json:
                print(
                    f"{row['group']:<24}{row['strategy']:<66}{row['temp_bytes'] / 1e6:>8.2f} MB "
                    f"{row['bytes_ratio']:>6.1f}x less {row['milliseconds']:>7.0f} ms "
                    f"{row['time_ratio']:>6.2f}x time",
                    flush=True,
                )
    if options.json:
        print(json.dumps({"jax": jax.__version__, "rounds": options.rounds, "rows": rows}))


if __name__ == "__main__":
    main()
