"""The same training on 1, 2, 4 and 8 devices: differences of values, and bytes per device.

Simulated devices of one CPU (times are not measured: the devices share its cores). Networks on the
digits:

    analog    convolution - leaky integrator - dense, mean squared error, 20 steps of SGD: no
              threshold, so only the order of sums over devices differs
    spiking   convolution - 3 reversible blocks on a grid of 2^-12 - LIF - dense, batch norm over
              the whole batch, cross entropy, 20 steps of SGD, under store, recompute and reverse
    ghost     the same, its batch norm in 8 groups (`norm_groups`): devices exchange no statistics

Each mesh is compared with one device under the same strategy: largest relative difference of a
parameter after 20 steps (|a - b| / |b|, norms of whole arrays; analog), of an entry of the first
step's gradient (to the array's largest; spiking), number of flipped spikes in the first forward
pass, and largest absolute difference of the loss at any step. Bytes of a device, from XLA: its
parameters and optimizer slots, and the temporary arrays of the compiled step.

Command: python experiments/benchmarks/meshes.py [--json meshes.json]
"""

import argparse
import functools
import json
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from snnjax import data, encoding, memory, nn, training

MESHES = [
    "",
    "data=2",
    "data=4",
    "data=8",
    "fsdp=2",
    "fsdp=4",
    "model=2",
    "data=2, fsdp=2, model=2",
]
STRATEGIES = ["depth=store", "depth=recompute(1)", "depth=reverse"]
STEPS, BATCH, WIDTH = 20, 32, 16


def analog(experiment, rngs):
    """Network without spikes."""
    return nn.Network(
        nn.Sequential(
            nn.Conv(1, WIDTH, rngs=rngs), nn.LI(decay=0.5), nn.AvgPool(), nn.Flatten(),
            nn.Linear(16 * WIDTH, 64, rngs=rngs), nn.LI(decay=0.5), nn.Linear(64, 10, rngs=rngs),
        ),
        input_shape=(8, 8, 1),
    )  # fmt: skip


def branch(rngs):
    """Half of a reversible block."""
    return nn.Sequential(nn.LIF(), nn.Conv(WIDTH, WIDTH, rngs=rngs), nn.BatchNorm(WIDTH))


def spiking(experiment, rngs):
    """A reversible network."""
    stack = nn.Reversible(branch, branch, 3, rngs=rngs)
    return nn.Network(
        nn.Sequential(
            nn.Conv(1, 2 * WIDTH, rngs=rngs), nn.BatchNorm(2 * WIDTH), stack, nn.LIF(),
            nn.AvgPool(), nn.Flatten(), nn.Linear(16 * 2 * WIDTH, 10, rngs=rngs),
        ),
        input_shape=(8, 8, 1),
    )  # fmt: skip


def squared_error(experiment, outputs, labels):
    """Mean squared error of the mean output."""
    return jnp.square(outputs.mean(0) - jax.nn.one_hot(labels, 10)).mean(-1)


def encode(experiment, inputs, key):
    """Images at every timestep."""
    return encoding.direct(data.rescale(inputs, 1 / 16), timesteps=experiment.timesteps)


def experiment(kind, strategy=""):
    """Experiment with one of the three networks, under a memory strategy."""
    own = {"network": spiking, "norm_groups": 8 if kind == "ghost" else 1}
    own["memory"] = memory.parse_strategy(strategy)
    if kind == "analog":
        own = {
            "network": analog,
            "task": functools.partial(training.task.classification, loss=squared_error),
        }
    return training.Experiment(
        name=kind, dataset=lambda e: data.load("digits"), encode=encode, batch=BATCH, epochs=1,
        timesteps=4, optimizer=training.optimizer.sgd, learning_rate=0.01, **own,
    )  # fmt: skip


def spikes(program, state, batch):
    """Spikes of every layer, on each device for its own examples."""

    def own(state, shown, batch):
        seen = training._objective.objective(
            state.params, program, state, shown, batch, taps=("spikes",)
        )
        return seen[1][2].taps

    shown, state = (
        training._objective.encode_batch(program, state, batch),
        state._replace(optimizer=()),
    )
    if not program.axes:
        return own(state, shown, batch)
    whole, cut, spread = P(), P(program.axes), P(None, program.axes)
    given = training._objective.NetworkInputs(spread, whole, cut, whole)
    manual = set(program.axes) if program.mesh.shape["model"] > 1 else set(program.mesh.axis_names)
    return jax.shard_map(own, mesh=program.mesh, in_specs=(whole, given, cut), out_specs=spread,
                         axis_names=manual, check_vma=False)(state, shown, batch)  # fmt: skip


def measure(experiment, mesh):
    """Losses and parameters of 20 steps, first gradient and spikes, bytes per device."""
    session = training.prepare(experiment, mesh=mesh)
    layout = training.sharding.state_shardings(session.state, mesh, experiment.layout)
    compiling = functools.partial(
        training.sharding.compile_step, mesh=mesh, layout=layout, donate=False
    )
    batch = training.sharding.feed(session.loader, 0, mesh)
    grading = compiling(functools.partial(training._objective.gradient, session.program))
    looking = compiling(functools.partial(spikes, session.program))
    gradient = jax.device_get(grading(session.state, batch).params)
    taps = jax.device_get(looking(session.state, batch))
    held = (session.state.params, session.state.optimizer)
    bytes_held = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(held))
    state, losses = jax.tree.map(jnp.copy, session.state), []
    for step in range(STEPS):
        state, metrics = session.train(state, training.sharding.feed(session.loader, step, mesh))
        losses.append(float(metrics.loss))
    analysis = session.train.memory_analysis()
    return {
        "losses": losses, "params": jax.device_get(state.params), "gradient": gradient,
        "taps": taps, "last": jax.device_get(looking(state, batch)), "held": bytes_held,
        "temporary": analysis.temp_size_in_bytes, "spiking": experiment.name != "analog",
    }  # fmt: skip


def compare(found, alone):
    """Differences from one device."""

    def pairs(name):
        return list(zip(*map(jax.tree.leaves, (found[name], alone[name])), strict=True))

    def norm(arrays):
        return np.sqrt(sum(float(np.square(x).sum()) for x in arrays))

    def flips(name):
        return int(sum((a != b).sum() for a, b in pairs(name))) if alone["spiking"] else None

    gradients = pairs("gradient")
    return {
        "parameters": max(norm([a - b]) / norm([b]) for a, b in pairs("params")),
        "gradient": norm(a - b for a, b in gradients) / norm(b for _, b in gradients),
        "entry": max(float(abs(a - b).max() / abs(b).max()) for a, b in gradients),
        "flips": flips("taps"),
        "last": flips("last"),
        "loss": float(np.abs(np.subtract(found["losses"], alone["losses"])).max()),
        "held": found["held"] / alone["held"],
        "temporary": found["temporary"] / alone["temporary"],
    }


def rows(meshes):
    """Yields one row per network, strategy and mesh."""
    cases = [
        ("analog", ""),
        *(("spiking", strategy) for strategy in STRATEGIES),
        ("ghost", STRATEGIES[-1]),
    ]
    for kind, strategy in cases:
        one = experiment(kind, strategy)
        alone = measure(one, training.sharding.make_mesh())
        for text in meshes:
            mesh = training.sharding.make_mesh(**training.sharding.parse_mesh(text))
            found = alone if mesh.size == 1 else measure(one, mesh)
            yield {"network": kind, "memory": strategy, "mesh": text} | compare(found, alone)


def main():
    """Measures all rows and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--meshes", nargs="*", default=MESHES)
    parser.add_argument("--json")
    options = parser.parse_args()
    print(f"jax {jax.__version__}, {jax.device_count()} devices, batch {BATCH}, float32")
    print(f"{'':52} {'params':>8} {'gradient':>8} {'entry':>8} {'flips':>5} {'last':>6} "
          f"{'loss':>8} {'held':>6} {'temp':>6}")  # fmt: skip
    found = []
    for row in rows(options.meshes):
        found.append(row)
        print(
            "{network:8} {memory:18} {mesh:24} {parameters:8.1e} {gradient:8.1e} {entry:8.1e} "
            "{flips!s:>5} {last!s:>6} {loss:8.1e} {held:6.3f} {temporary:6.3f}".format(**row),
            flush=True,
        )
    if options.json:
        with open(options.json, "w") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
