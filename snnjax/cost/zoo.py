"""One configuration of every model, small enough to be measured in seconds on two cores.

Networks are as published where that is possible; `slim` says what was made smaller. They are
freshly drawn and normalise by the statistics of what they are given, so their firing rates are
those of a first training step, not of a trained network. Their frames are drawn too: pixels
uniform in [0, 1], the same at every timestep; counts of events, Poisson of mean 0.3; sensor data,
normal.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import models, nn
from snnjax.typing import Array, Key

__all__ = ["ZOO", "Case", "event_counts", "sensor_data", "static_images"]


def static_images(key: Key, timesteps: int, batch: int, shape: tuple[int, ...]) -> Array:
    """Pixels in [0, 1], `[T, B, *shape]`, the same at every timestep."""
    return jnp.broadcast_to(jax.random.uniform(key, (batch, *shape)), (timesteps, batch, *shape))


def event_counts(key: Key, timesteps: int, batch: int, shape: tuple[int, ...]) -> Array:
    """Counts of events, `[T, B, *shape]`, whole numbers of mean 0.3 (Poisson, up to 3)."""
    uniform = jax.random.uniform(key, (timesteps, batch, *shape))
    # A count is above n where a uniform number is above the chance of n or fewer.
    found = [uniform > below for below in (0.740818, 0.963064, 0.996401)]
    return jnp.sum(jnp.stack(found), 0, dtype=jnp.float32)


def sensor_data(key: Key, timesteps: int, batch: int, shape: tuple[int, ...]) -> Array:
    """Series of numbers, `[T, B, *shape]`, normal."""
    return jax.random.normal(key, (timesteps, batch, *shape))


@dataclasses.dataclass(frozen=True)
class Case:
    """A model of the zoo and what it is measured on.

    Attributes:
        make: `(rngs) -> network`.
        timesteps: T.
        batch: examples.
        told: the configuration, in words.
        slim: what is smaller than published; empty where nothing is.
        inputs: `(key, timesteps, batch, shape) -> frames`.
        eager: draw the weights array by array: sooner done than compiling all of them at once where
            many have one shape.
        full: the published network, of which parameters are counted; None where `make` is it.
    """

    make: Callable[..., nn.Network]
    timesteps: int
    batch: int
    told: str
    slim: str = ""
    inputs: Callable[..., Array] = static_images
    eager: bool = False
    full: Callable[..., nn.Network] | None = None

    def drawn(self, seed: int) -> tuple[nn.Network, Array]:
        """The network and its frames, compiled as quickly as may be."""
        # This generator compiles faster than the default one, for values nobody compares.
        weights, pixels = jax.random.split(jax.random.key(seed, impl="rbg"))
        make = lambda key: self.make(rngs=nnx.Rngs(key))  # noqa: E731
        network = (make if self.eager else jax.jit(make))(weights)
        draw = lambda key: self.inputs(key, self.timesteps, self.batch, network.input_shape)  # noqa: E731
        return network, jax.jit(draw)(pixels)

    def parameters(self) -> int:
        """Of the network as published; nothing is allocated."""
        make = self.full or self.make
        shapes = jax.eval_shape(lambda: nnx.state(make(rngs=nnx.Rngs(0)), nnx.Param))
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))


_some = functools.partial

ZOO = {
    "mlp": Case(
        _some(models.mlp, (28, 28, 1)), 4, 8, "784-128-10"
    ),
    "conv_net": Case(
        _some(models.conv_net, (28, 28, 1)), 4, 8, "channels 32, 64, hidden 256, 28x28"
    ),
    "vgg": Case(models.vgg, 4, 1, "VGG16, 32x32"),
    "ms_resnet": Case(models.ms_resnet, 4, 1, "depth 18, 32x32"),
    "rev_resnet": Case(_some(models.rev_resnet, static=True), 4, 1, "depth 21, 32x32"),
    "spikingformer": Case(models.spikingformer, 4, 1, "4-384, 32x32"),
    "rev_sformer": Case(models.rev_sformer, 4, 1, "4-384, 32x32"),
    "t_revsnn": Case(
        _some(models.t_revsnn, channels=(32, 32, 32, 32), input_shape=(64, 64, 3)),
        *(4, 1, "small, 1000 classes"),
        slim="32 channels of 96 to 512, 64x64 of 224x224",
        eager=True,
        full=models.t_revsnn,
    ),
    "efficient_lif_vgg": Case(models.efficient_lif_vgg, 5, 1, "VGG16, both shared, 32x32"),
    "efficient_lif_resnet": Case(
        models.efficient_lif_resnet, 5, 1, "ResNet19, both shared, 32x32"
    ),
    "efficient_lif_har": Case(
        _some(models.efficient_lif_har, (6,)), 128, 8, "6-256-256-6, both shared",
        inputs=sensor_data,
    ),
    "efficient_lif_compat": Case(
        _some(models.efficient_lif_compat, "vgg16"), 5, 1, "released VGG16, both shared, 32x32"
    ),
    "asa_snn": Case(
        _some(models.asa_snn, dropout=(0.0,) * 5), 60, 1, "A, 32x32x2, without dropout",
        inputs=event_counts,
    ),
    "asa_snn_five": Case(models.asa_snn_five, 20, 1, "B, 128x128x2", inputs=event_counts),
}  # fmt: skip
"""Every model of `snnjax.models`, by its name."""
