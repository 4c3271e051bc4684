"""Bytes of a gradient per image, for the benchmarks of networks.

Nothing runs: the temporary bytes are those of two compiled programs, and bytes per image are the
slope between two batch sizes, which cancels the parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import losses, memory, nn, readout, training

BATCHES = (8, 24)


def temporary(
    make: Callable[..., nn.Network],
    strategy: str,
    batch: int,
    *,
    timesteps: int,
    memory_scheduler: bool,
) -> int:
    """XLA's temporary bytes of the full gradient, with the statistics that a train step keeps.

    Cross entropy of the mean logits, with respect to the parameters, float32.

    Args:
        make: `(rngs=) -> network`, only traced.
        strategy: text of `memory.parse_strategy`.
        batch: images.
        timesteps: T.
        memory_scheduler: True for XLA:CPU's memory-optimised scheduler, False for its default one.
    """

    def built() -> nn.Network:
        return nn.with_memory(make(rngs=nnx.Rngs(0)), memory.parse_strategy(strategy))

    network = jax.eval_shape(built)
    graphdef, params, constants = nn.split(network)
    statistics = jax.eval_shape(lambda: built().initial_state(1).statistics)

    def loss(params, constants, statistics, frames, labels):
        network = nn.merge(graphdef, params, constants)
        state = network.initial_state(batch, statistics=statistics)
        outputs, aux = network(frames, state, training=True)
        logits = readout.rate(outputs)
        return losses.mean(losses.cross_entropy(logits, labels)), aux.statistics

    frames = jax.ShapeDtypeStruct((timesteps, batch, *network.input_shape), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    options = training.sharding.compiler_options(
        training.sharding.make_mesh(), memory_scheduler=memory_scheduler
    )
    gradient = jax.jit(jax.grad(loss, has_aux=True), compiler_options=options)
    lowered = gradient.lower(params, constants, statistics, frames, labels)
    return lowered.compile().memory_analysis().temp_size_in_bytes


def per_image(
    make: Callable[..., nn.Network],
    strategy: str,
    *,
    timesteps: int,
    memory_scheduler: bool,
    batches: tuple[int, int] = BATCHES,
) -> tuple[float, int]:
    """Bytes per image, and total temporary bytes at the larger batch."""
    small, large = (
        temporary(make, strategy, b, timesteps=timesteps, memory_scheduler=memory_scheduler)
        for b in batches
    )
    return (large - small) / (batches[1] - batches[0]), large
