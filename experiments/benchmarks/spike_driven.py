"""Bytes per image of T-RevSNN small and of the Spike-driven Transformer 8-512, compiled only.

Hu et al., "High-Performance Temporal Reversible Spiking Neural Networks with O(L) Training Memory
and O(1) Inference Cost", 2024, arXiv:2405.16466, publish 8.6 times less memory per image than the
Spike-driven Transformer of 74.6 % (8-512 by the accuracies of its repository): 85.7 MB.

224x224x3 images, 1000 classes, T = 4, float32; gradient of the cross entropy of the mean logits to
all parameters, with the statistics. "Per image" is the slope of XLA's temporary bytes
between two batch sizes (`bytes_per_image.py`), by the scheduler with which training compiles the
row: the memory-optimised one for strategies that trade time for memory, else the default one.

Run:
    nice python experiments/benchmarks/spike_driven.py
    nice python experiments/benchmarks/spike_driven.py --rows 0 4 --json

Compiled with jax 0.10.2, batches of 4 and 8, MB per image; LLVM's optimisation was off
(`XLA_FLAGS=--xla_backend_optimization_level=0`), which runs behind the assignment of buffers:

    SDT 8-512       depth=store                        726.38
                    depth=recompute(1), pack=True      232.13

The stored network needs what the paper implies (8.6 times 85.7 MB: 737 MB). Recomputed, it is bound
by the first convolution: 64 channels of 224x224 at four timesteps are 51.4 MB per array, and 4.5
such arrays live at once; `static=True` computes that convolution once.
"""

from __future__ import annotations

import argparse
import functools
import json
import time

import jax
from bytes_per_image import per_image
from flax import nnx

from snnjax import memory, models, nn

T = 4
BATCHES = (4, 8)
NETWORKS = {
    "SDT 8-512": models.spike_driven_transformer,
    "SDT 8-512, static": functools.partial(models.spike_driven_transformer, static=True),
    "T-RevSNN small": models.t_revsnn,
}
ROWS = (
    ("SDT 8-512", "depth=store"),
    ("SDT 8-512", "depth=recompute(1), pack=True"),
    ("T-RevSNN small", "time=store"),
    ("T-RevSNN small", "time=reverse, pack=True"),
    ("T-RevSNN small", "time=reverse"),
    ("SDT 8-512", "depth=store, pack=True"),
    ("SDT 8-512, static", "depth=recompute(1), pack=True"),
    ("T-RevSNN small", "time=recompute(1), pack=True"),
)


def trades_time(name: str, strategy: str) -> bool:
    """True if training compiles the network with the memory-optimised scheduler."""
    build = lambda: NETWORKS[name](rngs=nnx.Rngs(0))  # noqa: E731
    placed = lambda: nn.with_memory(build(), memory.parse_strategy(strategy))  # noqa: E731
    return nn.saves_memory(jax.eval_shape(placed))


def main() -> None:
    """Compiles every row twice and prints a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="*", default=range(len(ROWS)))
    parser.add_argument("--batches", type=int, nargs=2, default=BATCHES)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for name, strategy in (ROWS[number] for number in options.rows):
        start, scheduler = time.perf_counter(), trades_time(name, strategy)
        each, large = per_image(
            NETWORKS[name], strategy, timesteps=T, memory_scheduler=scheduler,
            batches=tuple(options.batches),
        )  # fmt: skip
        rows.append({
            "network": name, "strategy": strategy, "memory_scheduler": scheduler,
            "bytes_per_image": each, "temp_bytes": large,
        })  # fmt: skip
        if not options.json:
            print(
                f"{name:19}{strategy:32}{'memory' if scheduler else 'default':9}"
                f"{each / 1e6:8.2f} MB per image, {large / 1e6:6.0f} MB at a batch of "
                f"{options.batches[1]}, compiled in {time.perf_counter() - start:.0f} s",
                flush=True,
            )
    if options.json:
        print(json.dumps({"jax": jax.__version__, "timesteps": T, "rows": rows}))


if __name__ == "__main__":
    main()
