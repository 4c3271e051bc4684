"""Crashes while the largest models are compiled with the persistent cache on.

Each compilation is the gradient of a training loss of a narrow RevSResNet37, RevSResNet21 or
Spikingformer with four blocks, at another batch size, with the default flags of XLA. All programs
stay alive, as in a session that keeps its networks, so that the memory maps of the process grow
towards their limit (`snnjax.ops.programs`).

Time: about 20 s per compilation on two free cores. Expected: 50 of 50, at most half of the maps used
after each `make_room`.
Command: python experiments/benchmarks/compilations.py --number 50
"""

import argparse
import faulthandler
import os
import tempfile
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import losses, models, readout
from snnjax.ops import programs

SHAPE, TIMESTEPS = (8, 8, 3), 2
NETWORKS = {
    "RevSResNet37": lambda: models.rev_resnet(
        depth=37, input_shape=SHAPE, halves=(4, 4, 4, 4), rngs=nnx.Rngs(0)
    ),
    "RevSResNet21": lambda: models.rev_resnet(
        depth=21, input_shape=SHAPE, halves=(4, 4, 4, 4), rngs=nnx.Rngs(0)
    ),
    "Spikingformer": lambda: models.spikingformer(
        depth=4, width=24, heads=2, input_shape=SHAPE, pools=1, rngs=nnx.Rngs(0)
    ),
}


def step(network, frames, labels):
    """Loss and gradient of a training step."""

    def loss(network):
        start = network.initial_state(len(labels))
        outputs, _ = network(frames, start, training=True)
        return losses.mean(losses.cross_entropy(readout.rate(outputs), labels))

    return jax.value_and_grad(loss)(network)


def main():
    """Compiles and prints the maps after each program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=50)
    number = parser.parse_args().number
    faulthandler.enable()
    networks, kept = {name: make() for name, make in NETWORKS.items()}, []
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        for n in range(number):
            programs.make_room()
            name = list(networks)[n % len(networks)]
            batch = 1 + n // len(networks)
            frames = jax.ShapeDtypeStruct((TIMESTEPS, batch, *SHAPE), jnp.float32)
            labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
            began = time.perf_counter()
            kept.append(jax.jit(step).lower(networks[name], frames, labels).compile())
            seconds = time.perf_counter() - began
            maps = programs._USED.read_bytes().count(b"\n") if programs._USED.exists() else 0
            entries = len(os.listdir(folder))
            print(f"{n + 1:3} {name:14} batch {batch:2} {seconds:6.1f} s  {maps:6,} maps  "
                  f"{entries} cached", flush=True)  # fmt: skip
    print(f"{len(kept)} of {number} without a crash")


if __name__ == "__main__":
    main()
