"""Bytes per image of RevSFormer-4-384 and of its counterpart Spikingformer-4-384; nothing runs.

32x32x3 images, T = 4, float32, BatchNorm over the window; the gradient of the cross entropy of the
mean logits for all parameters, statistics returned. Bytes are XLA's temporary ones, and "per image"
is their slope from batch 8 to batch 24, so that parameters drop out. Each program is compiled by
XLA:CPU's default scheduler and by its memory-optimised one, which training chooses for a strategy
that computes again.

Run:
    python experiments/benchmarks/reversible_transformer.py           # five minutes
    python experiments/benchmarks/reversible_transformer.py --json

Measured on two CPU cores, jax 0.10.2, MB per image:

                                                             scheduler
                                                             default  memory
    Spikingformer  depth=store                                 92.52   85.95
    Spikingformer  depth=store, pack=True                      76.49   68.81
    Spikingformer  depth=recompute(1), pack=True               23.69   21.63
    RevSFormer     depth=store                                 92.91   86.35
    RevSFormer     depth=reverse                               24.38   18.09
    RevSFormer     depth=reverse(inner=recompute(1)), pack=True 23.69   16.97

RevSFormer reversed against its counterpart, times less (default, memory scheduler):

    counterpart                          reverse         with spikes packed
    depth=store                          3.79, 4.75      3.91, 5.06
    depth=store, pack=True               3.14, 3.80      3.23, 4.05
    depth=recompute(1), pack=True        0.97, 1.20      1.00, 1.27

Zhang and Zhang (2024, arXiv:2312.07922) report 3.00 times on a GPU, against their stored one. The
last row is no success of the reversal: at four blocks both stand at the tokenizer, whose third
convolution alone has outputs of 3.1 MB per image. More blocks cost the one nothing, and the other
a boundary each.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import losses, memory, models, nn, readout, training

SHAPE, TIMESTEPS = (32, 32, 3), 4
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


def gradient(network: nn.Network, frames: jax.Array, labels: jax.Array) -> Any:
    """The full gradient for the parameters, with the statistics a train step keeps."""

    def loss(network: nn.Network) -> tuple[jax.Array, Any]:
        state = network.initial_state(frames.shape[1])
        outputs, aux = network(frames, state, training=True)
        return losses.mean(losses.cross_entropy(readout.rate(outputs), labels)), aux.statistics

    return jax.value_and_grad(loss, has_aux=True)(network)


def temp_bytes(row: Row, *, batch: int, memory_scheduler: bool, **options: Any) -> int:
    """Temporary bytes of the compiled gradient, from shapes alone."""
    strategy = memory.parse_strategy(row.strategy)
    make = functools.partial(
        MODELS[row.model], input_shape=SHAPE, time_scan=strategy.time, depth_scan=strategy.depth,
        pack=strategy.pack, **options,
    )  # fmt: skip
    network = jax.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
    frames = jax.ShapeDtypeStruct((TIMESTEPS, batch, *SHAPE), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    compiler = training.compiler_options(training.make_mesh(), memory_scheduler=memory_scheduler)
    lowered = jax.jit(gradient).lower(network, frames, labels)
    return lowered.compile(compiler_options=compiler).memory_analysis().temp_size_in_bytes


def measure(row: Row, batches: tuple[int, int], **options: Any) -> dict[str, Any]:
    """Bytes per image as the slope over the batch, by both of XLA:CPU's schedulers."""
    found = {}
    for scheduler in (False, True):
        sizes = [temp_bytes(row, batch=b, memory_scheduler=scheduler, **options) for b in batches]
        name = "memory" if scheduler else "default"
        found[name] = (sizes[1] - sizes[0]) / (batches[1] - batches[0])
        found[f"{name}_temp_bytes"] = sizes
    return row._asdict() | found


def main() -> None:
    """Measures all rows and prints a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs=2, default=(8, 24))
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for row in ROWS:
        rows.append(measure(row, tuple(options.batches), depth=options.depth))
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
