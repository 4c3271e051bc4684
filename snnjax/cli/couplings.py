"""What `snnjax memory` measures without an experiment: couplings of LIF, 3x3 convolution and norm.

    y1 = x1 + q(F(x2)),   y2 = x2 + q(G(y1)),      F, G: LIF - conv 3x3 - batch norm

A reversible block of half the channels in each stream, `depth` of them scanned; the loss is the
mean square of what leaves, and the gradient is that of the parameters and of the sequence going in.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import memory, nn
from snnjax.cli.failures import Failure

__all__ = ["Couplings"]


@dataclasses.dataclass(frozen=True)
class Couplings:
    """A stack of reversible blocks and its gradient.

    Attributes:
        batch: examples.
        channels: of both streams together.
        size: height and width.

    Raises:
        Failure: a number is not positive, or the channels are odd.
    """

    batch: int = 8
    channels: int = 64
    size: int = 16

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise Failure(f"--{field.name} must be at least 1, got {getattr(self, field.name)}")
        if self.channels % 2:
            raise Failure(
                f"--channels are split into two streams: choose an even number, not {self.channels}"
            )

    def gradient(
        self, depth: int, timesteps: int, strategy: memory.Strategy
    ) -> tuple[Any, tuple[Any, ...]]:
        """The jitted gradient and the shapes of its arguments; nothing is compiled.

        The CPU's scheduler is XLA's default: one scanned stack has nothing for the
        memory-optimised one to reorder (it cost reverse 1.5 MB of 9.3, and gained store 1 %).

        Raises:
            ValueError: the stack does not admit the strategy.
        """
        shape = (self.size, self.size, self.channels)
        body = nn.Reversible(self._branch, self._branch, depth, rngs=nnx.Rngs(0))
        network = nn.with_memory(nn.Network(body, shape), strategy)
        graphdef, params, constants = nnx.split(network, nnx.Param, ...)
        frames = jax.ShapeDtypeStruct((timesteps, self.batch, *shape), jnp.float32)

        def loss(params, frames, constants, statistics):
            network = nnx.merge(graphdef, params, constants)
            start = network.initial_state(self.batch)._replace(statistics=statistics)
            outputs, aux = network(frames, start, training=True)
            return jnp.mean(jnp.square(outputs)), aux.statistics

        gradient = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
        return gradient, (params, frames, constants, network.initial_state(1).statistics)

    def _branch(self, rngs: nnx.Rngs) -> nn.Layer:
        half = self.channels // 2
        return nn.Sequential(nn.LIF(), nn.Conv(half, half, rngs=rngs), nn.BatchNorm(half))
