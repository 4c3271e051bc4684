"""Long windows: bytes and time of the gradient of a recurrent network over 5,000 timesteps.

Network: [linear - LIF(0.9) with all-to-all feedback] x 4 of 64 neurons - linear, 32 inputs, batch
8, `collect="mean"`; cross entropy of the time mean, gradient with respect to the parameters.

    store               `order="time"`: the reference, as `jax.lax.scan` over a step keeps it
    store, layer order  each layer over all timesteps, one after the other
    recompute(...)      `order="time"` under the strategy

Each program is compiled, run once, and then timed in turn with the others; a ratio is the median
over rounds of the ratio within one round. Bytes are XLA's temporary ones, with the scheduler that
training uses.

Run:
    python experiments/benchmarks/long_windows.py           # three minutes
    python experiments/benchmarks/long_windows.py --json

Measured on two cores of an AMD EPYC without other work, float32, jax 0.10.2, 7 rounds:

    store                                                   128.04 MB    1.0x less    1.00x time
    store, layer order                                      144.96 MB    0.9x less    0.76x time
    recompute(64)                                             3.21 MB   39.9x less    1.13x time
    recompute(64, inner=sequence)                             3.57 MB   35.8x less    0.82x time
    recompute(256, inner=recompute(16))                       1.79 MB   71.3x less    1.08x time
    recompute(256, inner=recompute(16, inner=sequence))       1.86 MB   68.7x less    0.84x time

(on two busy cores of an Intel Xeon the last two took 0.92 and 0.43 of the time)
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import losses, memory, nn, readout, training

TIMESTEPS, FEATURES, CLASSES, LAYERS = 5000, 32, 10, 4
STRATEGIES = (
    "recompute(64)",
    "recompute(64, inner=sequence)",
    "recompute(256, inner=recompute(16))",
    "recompute(256, inner=recompute(16, inner=sequence))",
)


class Program(NamedTuple):
    """A compiled gradient and its arguments."""

    name: str
    run: Callable[..., Any]
    arguments: tuple[Any, ...]


def network(order: str, hidden: int) -> nn.Network:
    """Recurrent network of four layers; the same weights in both orders."""
    rngs, width, body = nnx.Rngs(0), FEATURES, []
    for _ in range(LAYERS):
        body += [
            nn.Linear(width, hidden, rngs=rngs),
            nn.Recurrent(nn.LIF(decay=0.9), hidden, rngs=rngs),
        ]
        width = hidden
    body.append(nn.Linear(width, CLASSES, rngs=rngs))
    collect = "mean" if order == "time" else "all"
    return nn.Network(nn.Sequential(*body), (FEATURES,), order=order, collect=collect)


def loss(graphdef: Any, params: Any, frames: jax.Array, labels: jax.Array, constants: Any):
    """Mean cross entropy of the time mean."""
    net = nn.merge(graphdef, params, constants)
    outputs, _ = net(frames, net.initial_state(len(labels)), training=True)
    return losses.mean(losses.cross_entropy(readout.rate(outputs), labels))


def compile_gradient(name: str, net: nn.Network, *, batch: int) -> Program:
    """Compiles the gradient as training does."""
    frames = jax.random.normal(jax.random.key(1), (TIMESTEPS, batch, FEATURES))
    graphdef, params, constants = nn.split(net)
    arguments = (params, frames, jnp.arange(batch) % CLASSES, constants)
    options = training.sharding.compiler_options(
        training.sharding.make_mesh(), memory_scheduler=True
    )
    gradient = jax.jit(jax.value_and_grad(functools.partial(loss, graphdef)))
    return Program(name, gradient.lower(*arguments).compile(compiler_options=options), arguments)


def programs(batch: int, hidden: int) -> list[Program]:
    """The reference first, then layer order and the strategies."""
    net = network("time", hidden)
    compiled = [
        compile_gradient("store", net, batch=batch),
        compile_gradient("store, layer order", network("layer", hidden), batch=batch),
    ]
    for text in STRATEGIES:
        placed = nn.with_memory(net, memory.parse_strategy(f"time={text}"))
        compiled.append(compile_gradient(text, placed, batch=batch))
    return compiled


def measure(compiled: list[Program], *, rounds: int) -> list[dict[str, Any]]:
    """Bytes, seconds and ratios to the reference, and the largest difference of a gradient."""
    spent: list[list[float]] = [[] for _ in compiled]
    gradients: list[Any] = [None] * len(compiled)
    for number in range(rounds + 1):
        for index, program in enumerate(compiled):
            began = time.perf_counter()
            gradients[index] = jax.block_until_ready(program.run(*program.arguments))[1]
            if number:  # the first round warms up
                spent[index].append(time.perf_counter() - began)
    sizes = [program.run.memory_analysis().temp_size_in_bytes for program in compiled]
    return [
        {
            "strategy": program.name,
            "temp_bytes": size,
            "bytes_ratio": sizes[0] / size,
            "seconds": statistics.median(seconds),
            "time_ratio": statistics.median(a / b for a, b in zip(seconds, spent[0], strict=True)),
            "gradient_difference": difference(gradient, gradients[0]),
        }
        for program, size, seconds, gradient in zip(compiled, sizes, spent, gradients, strict=True)
    ]


def difference(gradient: Any, reference: Any) -> float:
    """Largest difference of a leaf, relative to the largest element of that leaf."""
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(reference), strict=True)
    return max(float(jnp.abs(a - b).max() / jnp.abs(b).max()) for a, b in pairs)


def main() -> None:
    """Prints a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = measure(programs(options.batch, options.hidden), rounds=options.rounds)
    if options.json:
        print(json.dumps({"jax": jax.__version__, **vars(options), "rows": rows}))
        return
    for row in rows:
        print(
            f"{row['strategy']:<54}{row['temp_bytes'] / 1e6:>8.2f} MB "
            f"{row['bytes_ratio']:>6.1f}x less {row['seconds']:>7.2f} s "
            f"{row['time_ratio']:>6.2f}x time  gradient {row['gradient_difference']:.0e}"
        )


if __name__ == "__main__":
    main()
