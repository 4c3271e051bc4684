"""Bytes of a gradient by number of timesteps: derivatives of rates beside backpropagation in time.

IDE, SPIDE and DSR are one network each, 784 - 400 (IDE with feedback), 784 - 200 - 100 with
feedback (SPIDE) and 784 - 300 - 10 (DSR), batch 128, a constant image, float32; cross entropy,
gradient with respect to the parameters. `store` and `recompute(sqrt)` are the same networks with
`memory=Strategy(time=...)`. Bytes are XLA's temporary ones; nothing runs.

Run:
    python experiments/benchmarks/rate_gradients.py                      # a minute
    python experiments/benchmarks/rate_gradients.py --picture bytes.png
    python experiments/benchmarks/rate_gradients.py --json

On CPU, jax 0.10.2, MB:

    timesteps                        4      16      64     256
    IDE      rates                6.30    6.30    6.30    6.30
             recompute(sqrt)      9.36   10.87   14.32   20.88
             store                7.74   12.84   32.50  111.14
    SPIDE    rates                0.97    0.97    0.97    0.97
             recompute(sqrt)      2.32    3.14    5.19    9.59
             store                2.00    6.00   20.74   79.73
    DSR      rates                0.93    0.93    0.93    0.93
             recompute(sqrt)      3.01    4.29    7.93   14.28
             store                3.64   11.72   42.02  164.09
"""

from __future__ import annotations

import argparse
import json
import pathlib

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import losses, memory, nn, training

FOLDER = pathlib.Path(__file__).resolve().parents[1]
TIMESTEPS, BATCH = (4, 16, 64, 256), 128
RULES = {
    "IDE": ("ide_fashion_mnist", (28, 28, 1)),
    "SPIDE": ("spide_mnist", (28, 28, 1)),
    "DSR": ("dsr_mnist", (784,)),
}
STRATEGIES = {
    "rates": None,
    "recompute(sqrt)": memory.Strategy(time=memory.recompute("sqrt")),
    "store": memory.Strategy(time=memory.store),
}


def temp_bytes(rule: str, strategy: memory.Strategy | None, timesteps: int) -> int:
    """Temporary bytes of the gradient of a network with that many timesteps."""
    name, shape = RULES[rule]
    experiment = training.config.load_experiment(FOLDER / f"{name}.py")
    experiment = training.config.override(experiment, {"timesteps": timesteps})
    network = experiment.network(experiment, nnx.Rngs(0))
    if strategy is not None:
        network = nn.with_memory(network, strategy)
    graphdef, params, constants = nn.split(network)

    def loss(params, images, labels, key):
        net = nn.merge(graphdef, params, constants)
        outputs, aux = net(images, net.initial_state(BATCH), training=True, key=key)
        return losses.mean(losses.rate_cross_entropy(outputs, labels)), aux.statistics

    images = jax.ShapeDtypeStruct((1, BATCH, *shape), jnp.float32)
    labels = jax.ShapeDtypeStruct((BATCH,), jnp.int32)
    gradient = jax.jit(jax.grad(loss, has_aux=True))
    return memory.measure(gradient, params, images, labels, jax.random.key(0)).temp_bytes


def table() -> dict[str, dict[str, list[int]]]:
    """Bytes by rule, strategy and number of timesteps."""
    return {
        rule: {
            name: [temp_bytes(rule, strategy, timesteps) for timesteps in TIMESTEPS]
            for name, strategy in STRATEGIES.items()
        }
        for rule in RULES
    }


def draw(rows: dict[str, dict[str, list[int]]], path: str) -> None:
    """Saves a picture: one panel per rule, bytes over timesteps, both logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(rows), figsize=(9, 3), sharey=True)
    for axis, (rule, curves) in zip(axes, rows.items(), strict=True):
        for name, values in curves.items():
            axis.loglog(TIMESTEPS, [v / 1e6 for v in values], marker="o", label=name, base=2)
        axis.set_title(rule)
        axis.set_xlabel("timesteps")
        axis.set_xticks(TIMESTEPS, [str(t) for t in TIMESTEPS])
    axes[0].set_ylabel("temporary bytes, MB")
    axes[0].set_yticks([1, 4, 16, 64], ["1", "4", "16", "64"])
    axes[0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    parser.add_argument("--picture", help="File of a picture.")
    options = parser.parse_args()
    rows = table()
    if options.picture:
        draw(rows, options.picture)
    if options.json:
        print(json.dumps({"timesteps": TIMESTEPS, "temp_bytes": rows}))
        return
    print("temporary MB" + " " * 14 + "".join(f"{f'T={t}':>9}" for t in TIMESTEPS))
    for rule, curves in rows.items():
        for name, values in curves.items():
            print(f"{rule:<8}{name:<18}" + "".join(f"{v / 1e6:>9.2f}" for v in values))


if __name__ == "__main__":
    main()
