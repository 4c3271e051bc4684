"""Neurons that are parallel in time against LIF neurons that loop over it: time and bytes.

One layer on currents `[T, B=32, N=1024]`, float32: spikes, and the gradient of their weighted sum
with respect to the currents and the learned parameters. The reference is `nn.LIF()`, whose
derivative is written by hand (`lif_scan`):

    nn.LIF(scan=memory.store)         the same neuron, a plain scan
    nn.LIF(reset=neurons.reset.none)        without a reset, step by step
    nn.ResetFreeLIF()                 the same without a loop: a prefix sum
    nn.PSN(T)                         a product with T x T weights
    nn.PSN(T, order=4)                the same, most of the weights masked
    nn.SlidingPSN(order=4)            4 weights

Layers alternate, each with enough calls per measurement; a ratio is the median over rounds of the
ratio within one round, of processor time, which varies less than wall time on a busy machine. Bytes
are XLA's temporary ones, the same on every run.

Hardware: 1 pinned CPU core (Intel Xeon, busy with other work), float32, jax 0.10.2
Time: 2 minutes of the core
Expected: on one core none of them is faster than a loop that fuses a timestep into one pass. They
    are meant for long dependencies and for accelerators, where T small steps may take longer than
    one large step (not measured). 11 rounds, milliseconds and MiB with the ratio to `nn.LIF()`:

                             T = 4        16             64             256
        LIF                  0.38         1.35           9.75           82.8        ms
        LIF, store           0.37  1.0x   1.37  1.0x     7.27  0.8x     81.6  1.0x
        LIF, no reset        0.33  0.9x   1.20  0.9x     7.26  0.7x     77.0  0.9x
        ResetFreeLIF         0.35  0.9x   2.23  1.7x    16.4   1.7x    152    1.9x
        PSN                  0.72  1.9x   2.43  1.8x    22.7   2.4x    244    2.9x
        PSN(order=4)         0.66  1.8x   2.40  1.8x    22.0   2.5x    247    2.9x
        SlidingPSN           0.64  1.7x   2.67  2.0x    27.5   2.9x    139    1.7x

        LIF                  1.00         2.50           8.50           32.5        MiB
        LIF, store           0.88  0.9x   2.38  1.0x     8.38  1.0x     32.4  1.0x
        LIF, no reset        0.88  0.9x   2.38  1.0x     8.38  1.0x     32.4  1.0x
        ResetFreeLIF         1.00  1.0x   4.50  1.8x    18.0   2.1x     72.0  2.2x
        PSN                  1.00  1.0x   4.00  1.6x    16.0   1.9x     64.0  2.0x
        PSN(order=4)         1.00  1.0x   4.00  1.6x    16.0   1.9x     64.3  2.0x
        SlidingPSN           2.38  2.4x   8.38  3.4x    32.4   3.8x    128    4.0x
Command: taskset -c 1 python experiments/benchmarks/parallel_in_time.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from flax import nnx

from snnjax import memory, neurons, nn

TIMESTEPS, BATCH, WIDTH, ORDER = (4, 16, 64, 256), 32, 1024, 4
LONG_ENOUGH = 0.05  # seconds of one measurement, far above the resolution of the clock

LAYERS: dict[str, Callable[[int], Any]] = {
    "LIF": lambda timesteps: nn.LIF(),
    "LIF, store": lambda timesteps: nn.LIF(scan=memory.store),
    "LIF, no reset": lambda timesteps: nn.LIF(reset=neurons.reset.none),
    "ResetFreeLIF": lambda timesteps: nn.ResetFreeLIF(),
    "PSN": lambda timesteps: nn.PSN(timesteps, rngs=nnx.Rngs(0)),
    f"PSN(order={ORDER})": lambda timesteps: nn.PSN(timesteps, order=ORDER, rngs=nnx.Rngs(0)),
    "SlidingPSN": lambda timesteps: nn.SlidingPSN(order=ORDER),
}
"""Makers of layers; the first is what the others are held against."""


class Program(NamedTuple):
    """Compiled gradient of a layer, and its number of calls per measurement."""

    name: str
    run: Callable[[], Any]
    temporary: int
    calls: int


def program(name: str, timesteps: int, width: int) -> Program:
    """Compiles outputs and gradient of a layer."""
    layer = LAYERS[name](timesteps)
    shape = (timesteps, BATCH, width)
    keys = jax.random.split(jax.random.key(0))
    currents, weights = (jax.random.normal(key, shape) for key in keys)

    def gradient(layer: Any, currents: jax.Array, weights: jax.Array):
        graphdef, params, constants = nn.split(layer)

        def spikes(params: Any, currents: jax.Array) -> jax.Array:
            own = nn.merge(graphdef, params, constants)
            return own(currents, own.initial_state(shape[1:]), nn.Call(training=True))[0]

        fired, pull = jax.vjp(spikes, params, currents)
        return fired, pull(weights)

    compiled = jax.jit(gradient).lower(layer, currents, weights).compile()
    run = lambda: jax.block_until_ready(compiled(layer, currents, weights))  # noqa: E731
    run()
    once = min(spent(run, 1) for _ in range(3))
    calls = max(1, round(LONG_ENOUGH / max(once, 1e-6)))
    return Program(name, run, compiled.memory_analysis().temp_size_in_bytes, calls)


def spent(run: Callable[[], Any], calls: int) -> float:
    """Processor seconds per call."""
    began = time.process_time()
    for _ in range(calls):
        run()
    return (time.process_time() - began) / calls


def measure(
    timesteps: int, *, rounds: int, width: int = WIDTH, names: Sequence[str] = tuple(LAYERS)
) -> list[dict[str, Any]]:
    """Medians of each layer at one window length."""
    programs = [program(name, timesteps, width) for name in names]
    seconds: list[list[float]] = [[] for _ in programs]
    for _ in range(rounds):
        for entry, found in zip(programs, seconds, strict=True):
            found.append(spent(entry.run, entry.calls))
    return [
        {
            "layer": entry.name,
            "timesteps": timesteps,
            "milliseconds": 1000 * statistics.median(found),
            "ratio": statistics.median(a / b for a, b in zip(found, seconds[0], strict=True)),
            "temp_bytes": entry.temporary,
            "bytes_ratio": entry.temporary / programs[0].temporary,
        }
        for entry, found in zip(programs, seconds, strict=True)
    ]


def main() -> None:
    """Prints a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--timesteps", type=int, nargs="+", default=TIMESTEPS)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    rows = []
    print(f"{'':<16}{'T':>5}{'ms':>10}{'of LIF':>8}{'temporary':>14}{'of LIF':>8}")
    for timesteps in options.timesteps:
        for row in measure(timesteps, rounds=options.rounds):
            rows.append(row)
            print(
                f"{row['layer']:<16}{timesteps:>5}{row['milliseconds']:>10.2f}{row['ratio']:>8.2f}"
                f"{row['temp_bytes'] / 2**20:>10.2f} MiB{row['bytes_ratio']:>8.2f}",
                flush=True,
            )
    print(json.dumps({"jax": jax.__version__, "rounds": options.rounds, "rows": rows}))


if __name__ == "__main__":
    main()
