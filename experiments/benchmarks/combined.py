"""Depth reversal, packing, shared membranes and recomputation over time on one network.

A RevSResNet with halves of 64, 128 and 256 channels, two blocks each, on 32x32x3, whose branches
share membranes (`sharing=`): bytes of the gradient, in MB per image (`bytes_per_image.py`), and the
state of inference, in membrane elements per image.

Run:
    python experiments/benchmarks/combined.py                     # ten minutes
    python experiments/benchmarks/combined.py --json

Compiled with jax 0.10.2, T = 4, memory-optimised scheduler:

    sharing   strategy                                MB per image    membranes
    none      depth=store                                53.15        1,146,880
              depth=reverse                               9.70
              depth=reverse, pack=True                   11.01
    channel   depth=store                                53.14          688,128
              depth=reverse, pack=True                   11.01
    both      depth=store                                69.09          458,752
              depth=reverse, pack=True                   13.28
              time=recompute(1), depth=reverse, pack     13.10

Sharing makes the state of inference 1.7 and 2.5 times smaller, but not the bytes of a gradient:
reversal keeps no membrane anyhow, and two neurons that share a membrane within each timestep form
one piece of a branch for recomputation instead of two. Packing costs more than it saves under
reversal (11.01 with the cuts of a branch alone, 10.75 with its synapses alone); under store, which
keeps the residuals of all layers, it saves a quarter (38.95).
"""

from __future__ import annotations

import argparse
import functools
import json
import math

import jax
from bytes_per_image import per_image
from flax import nnx

from snnjax import models, nn

T = 4
make = functools.partial(
    models.rev_resnet,
    halves=(64, 128, 256),
    blocks=(2, 2, 2),
    static=True,
    norm=functools.partial(nn.BatchNorm, over="step"),
)
ROWS = (
    ("none", "depth=store"),
    ("none", "depth=reverse"),
    ("none", "depth=reverse, pack=True"),
    ("channel", "depth=store"),
    ("channel", "depth=reverse, pack=True"),
    ("both", "depth=store"),
    ("both", "depth=reverse, pack=True"),
    ("both", "time=recompute(1), depth=reverse, pack=True"),
)


def membranes(sharing: str) -> int:
    """Elements of all membranes of one image in one timestep."""

    def state():
        network = make(sharing=sharing, rngs=nnx.Rngs(0))
        return nn.contract.repeat_state(network.initial_state(1).neurons)

    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(jax.eval_shape(state)))


def main() -> None:
    """Compiles every row twice and prints a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for sharing, strategy in ROWS:
        network = functools.partial(make, sharing=sharing)
        each, _ = per_image(network, strategy, timesteps=T, memory_scheduler=True)
        state = membranes(sharing)
        rows.append({"sharing": sharing, "strategy": strategy, "bytes": each, "membranes": state})
        if not options.json:
            print(f"{sharing:9}{strategy:46}{each / 1e6:7.2f} MB {state:9,} membranes", flush=True)
    if options.json:
        print(json.dumps({"jax": jax.__version__, "timesteps": T, "rows": rows}))


if __name__ == "__main__":
    main()
