"""The gradient of convolutions inside `lax.scan`: ours and autodiff's, scanned and unrolled.

Four stacked convolutions on [64, 16, 16, 32] (3x3, 32 channels, with a residual that preserves
shapes), gradient of the mean square with respect to the input and all kernels. Each program is
compiled, run once, and then timed alternately with the others; every figure is the median over
rounds of a ratio within one round, so that a busy machine slows both sides alike.

Run:
    python experiments/benchmarks/convolution_in_scan.py           # a minute and a half
    python experiments/benchmarks/convolution_in_scan.py --json

Measured on two shared cores of an AMD EPYC (Zen 4), float32, 11 rounds:

                               jax 0.10.2                          jax 0.12.0.1
                     scanned/unrolled   scanned:       scanned/unrolled   scanned:
                     ours   autodiff    autodiff/ours  ours   autodiff    autodiff/ours
    3x3              1.07      36            91        1.07      54            67
    3x3 strided      1.23      26            43        1.13      29            24
    1x1              1.57      20            25        1.31      20            26
    3x3 in 4 groups  0.96       0.33         10        0.97       0.35          6.4
    3x3 depthwise    1.06      19            28        1.05      14            26

Unrolled, ours takes 0.66 (0.12.0.1: 0.83) of autodiff's time for 3x3, 0.81 (0.96) strided, 0.51
(0.57) for 1x1, 0.04 (0.06) in groups, where autodiff's weight gradient is slow also outside loops,
and 0.57 (0.50) depthwise. The rest of a depthwise step is mostly XLA's forward convolution.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from snnjax.ops.convolution import convolution

BLOCKS = 4
SLOW = 1.0  # seconds; slower programs are timed in `SLOW_ROUNDS` rounds only
SLOW_ROUNDS = 2


class Workload(NamedTuple):
    """Convolution with a timed gradient."""

    name: str
    window: tuple[int, int]
    strides: int
    groups: int


SHAPE = (64, 16, 16, 32)
WORKLOADS = (
    Workload("3x3", (3, 3), 1, 1),
    Workload("3x3 strided", (3, 3), 2, 1),
    Workload("1x1", (1, 1), 1, 1),
    Workload("3x3 in 4 groups", (3, 3), 1, 4),
    Workload("3x3 depthwise", (3, 3), 1, SHAPE[-1]),
)


def autodiff(inputs: jax.Array, kernel: jax.Array, *, strides: int, groups: int) -> jax.Array:
    """The same convolution with the derivative of autodiff."""
    return lax.conv_general_dilated(
        inputs,
        kernel,
        (strides, strides),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def gradient(conv: Callable, workload: Workload, *, scanned: bool) -> Callable:
    """Gradient of the stack with respect to inputs and kernels, in a loop or unrolled."""

    def block(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, None]:
        y = conv(x, kernel, strides=workload.strides, groups=workload.groups)
        if workload.strides > 1:  # the next block needs the input size of this one
            y = jnp.repeat(jnp.repeat(y, workload.strides, 1), workload.strides, 2)
        return x + y, None

    def loss(inputs: jax.Array, kernels: jax.Array) -> jax.Array:
        x = inputs
        if scanned:
            x, _ = lax.scan(block, x, kernels)
        else:
            for kernel in kernels:
                x, _ = block(x, kernel)
        return jnp.mean(x**2)

    return jax.grad(loss, (0, 1))


def seconds(workload: Workload, rounds: int) -> dict[str, list[float]]:
    """Times of the four programs, one entry per round."""
    keys = jax.random.split(jax.random.key(0))
    inputs = jax.random.normal(keys[0], SHAPE)
    shape = (BLOCKS, *workload.window, SHAPE[-1] // workload.groups, SHAPE[-1])
    kernels = 0.05 * jax.random.normal(keys[1], shape)
    programs, times = {}, {}
    for name, conv in (("ours", convolution), ("autodiff", autodiff)):
        for form in ("scanned", "unrolled"):
            step = gradient(conv, workload, scanned=form == "scanned")
            programs[f"{name} {form}"] = jax.jit(step).lower(inputs, kernels).compile()
            jax.block_until_ready(programs[f"{name} {form}"](inputs, kernels))
            times[f"{name} {form}"] = []
    for round_number in range(rounds):
        for name, program in programs.items():
            if round_number >= SLOW_ROUNDS and statistics.median(times[name]) > SLOW:
                continue
            start = time.perf_counter()
            jax.block_until_ready(program(inputs, kernels))
            times[name].append(time.perf_counter() - start)
    return times


def ratio(times: dict[str, list[float]], above: str, below: str) -> float:
    """Median over rounds of the ratio of two programs."""
    pairs = zip(times[above], times[below], strict=False)  # a slow program has fewer rounds
    return statistics.median(a / b for a, b in pairs)


def measure(workload: Workload, rounds: int) -> dict[str, float | str]:
    """Milliseconds of the four programs, and their ratios."""
    times = seconds(workload, rounds)
    return {
        "workload": workload.name,
        **{f"{name} ms": 1e3 * statistics.median(t) for name, t in times.items()},
        "ours scanned/unrolled": ratio(times, "ours scanned", "ours unrolled"),
        "autodiff scanned/unrolled": ratio(times, "autodiff scanned", "autodiff unrolled"),
        "ours/autodiff, both unrolled": ratio(times, "ours unrolled", "autodiff unrolled"),
        "autodiff/ours, both scanned": ratio(times, "autodiff scanned", "ours scanned"),
    }


def main() -> None:
    """Measures all workloads and prints a line of text or of JSON for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object per workload")
    parser.add_argument("--rounds", type=int, default=11, help="timed rounds (11)")
    options = parser.parse_args()
    if not options.json:
        print(f"jax {jax.__version__}, {jax.devices()[0].platform}, {BLOCKS} blocks on {SHAPE}")
    for workload in WORKLOADS:
        result = measure(workload, options.rounds)
        if options.json:
            print(json.dumps({"jax": jax.__version__, **result}), flush=True)
            continue
        print(workload.name)
        for name, value in list(result.items())[1:]:
            print(f"  {name:32} {value:8.2f}", flush=True)


if __name__ == "__main__":
    main()
