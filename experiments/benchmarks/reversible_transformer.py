"""Bytes per image of RevSFormer-4-384 and of its counterpart Spikingformer-4-384, compiled only.

32x32x3 images, T = 4, float32, BatchNorm over the window; gradient of the cross entropy of the mean
logits with respect to all parameters, with the statistics. Bytes are XLA's temporary ones, and "per
image" is their slope from batch 8 to batch 24, which cancels the parameters. Each program is
compiled by XLA:CPU's default scheduler and by its memory-optimised one, which training chooses for
strategies that recompute.

Run:
    python experiments/benchmarks/reversible_transformer.py           # five minutes
    python experiments/benchmarks/reversible_transformer.py --json

Measured on two CPU cores, jax 0.10.2, MB per image:

                                                             scheduler
                                                             default  memory
    Spikingformer  depth=store                                 82.69   78.88
    Spikingformer  depth=store, pack=True                      66.66   55.25
    Spikingformer  depth=recompute(1), pack=True               16.82   20.66
    RevSFormer     depth=store                                 83.08   79.46
    RevSFormer     depth=reverse                               16.32   14.91
    RevSFormer     depth=reverse(inner=recompute(1)), pack=True 15.81   14.36

RevSFormer reversed against its counterpart, times less (default, memory scheduler):

    counterpart                          reverse         with spikes packed
    depth=store                          5.07, 5.29      5.23, 5.49
    depth=store, pack=True               4.08, 3.71      4.22, 3.85
    depth=recompute(1), pack=True        1.03, 1.39      1.06, 1.44

Zhang and Zhang (2024, arXiv:2312.07922) report 3.00 times on a GPU, against the stored counterpart.
The last row shows no gain by reversal: at four blocks the tokenizer determines both peaks, since
its third convolution alone has outputs of 3.1 MB per image. Each further block costs reversal
nothing, and the counterpart a block boundary.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from bytes_per_image import BATCHES, per_image

from snnjax import models, nn

TIMESTEPS = 4
MODELS: dict[str, Callable[..., nn.Network]] = {
    "Spikingformer": models.spikingformer,
    "RevSFormer": models.rev_sformer,
}


class Row(NamedTuple):
    """A network under a strategy."""

    model: str
    strategy: str


ROWS = (
    Row("Spikingformer", "depth=store"),
    Row("Spikingformer", "depth=store, pack=True"),
    Row("Spikingformer", "depth=recompute(1), pack=True"),
    Row("RevSFormer", "depth=store"),
    Row("RevSFormer", "depth=reverse"),
    Row("RevSFormer", "depth=reverse(inner=recompute(1)), pack=True"),
)


def measure(row: Row, batches: tuple[int, int], depth: int) -> dict[str, Any]:
    """Bytes per image by both of XLA:CPU's schedulers."""
    make, found = functools.partial(MODELS[row.model], depth=depth), {}
    for scheduler, name in ((False, "default"), (True, "memory")):
        found[name], found[f"{name}_temp_bytes"] = per_image(
            make, row.strategy, timesteps=TIMESTEPS, memory_scheduler=scheduler, batches=batches
        )
    return row._asdict() | found


def main() -> None:
    """Measures all rows and prints a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs=2, default=BATCHES)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for row in ROWS:
        rows.append(measure(row, tuple(options.batches), options.depth))
        if not options.json:
            print(
                f"{row.model:<14}{row.strategy:<46}"
                f"{rows[-1]['default'] / 1e6:>7.2f} {rows[-1]['memory'] / 1e6:>7.2f} MB per image",
                flush=True,
            )
    if options.json:
        print(json.dumps({"jax": jax.__version__, "depth": options.depth, "rows": rows}))


if __name__ == "__main__":
    main()
