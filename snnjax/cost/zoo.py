"""Zoo of configurations: one of every model, measurable in seconds on two cores.

Networks are as published where possible; `slim` states every reduction. Weights are random, and
norms use the statistics of the batch, so firing rates are those of a first training step, not of a
trained network. Frames are random too: pixels uniform in [0, 1] and equal at every timestep; event
counts, Poisson of mean 0.3; sensor data, normal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import models, nn
from snnjax.typing import Array, Key

__all__ = ["ZOO", "Case", "event_counts", "sensor_data", "static_images"]


def static_images(key: Key, timesteps: int, batch: int, shape: tuple[int, ...]) -> Array:
    """Draws pixels in [0, 1], `[T, B, *shape]`, equal at every timestep."""
    # Equal values at every timestep, by which `Connection.static` recognises a static input.
    return jnp.broadcast_to(jax.random.uniform(key, (batch, *shape)), (timesteps, batch, *shape))


def event_counts(key: Key, timesteps: int, batch: int, shape: tuple[int, ...]) -> Array:
    """Draws event counts, `[T, B, *shape]`, Poisson of mean 0.3 cut at 3."""
    uniform = jax.random.uniform(key, (timesteps, batch, *shape))
    # Inversion: a count exceeds n where a uniform number exceeds the probability of at most n. The
    # sampler of `jax.random.poisson` loops, and takes longer to compile.
    exceeded = [uniform > probability for probability in (0.740818, 0.963064, 0.996401)]
    return jnp.sum(jnp.stack(exceeded), 0, dtype=jnp.float32)


def sensor_data(key: Key, timesteps: int, batch: int, shape: tuple[int, ...]) -> Array:
    """Draws normally distributed series, `[T, B, *shape]`."""
    return jax.random.normal(key, (timesteps, batch, *shape))


@dataclasses.dataclass(frozen=True)
class Case:
    """Configuration of a model of the zoo and of its inputs.

    Attributes:
        make: Constructor `(rngs) -> network`.
        timesteps: Number of timesteps, T.
        batch: Number of examples.
        description: Configuration in words.
        slim: Reductions against the published network; empty if there are none.
        inputs: Generator `(key, timesteps, batch, shape) -> frames`.
        eager: Draws the weights array by array, which is faster than compiling all draws at once
            where many arrays have one shape.
        full: Constructor of the published network, for its number of parameters; None if it is
            `make`.
    """

    make: Callable[..., nn.Network]
    timesteps: int
    batch: int
    description: str
    slim: str = ""
    inputs: Callable[..., Array] = static_images
    eager: bool = False
    full: Callable[..., nn.Network] | None = None

    def draw(self, seed: int) -> tuple[nn.Network, Array]:
        """Draws the network and its frames `[T, B, *input_shape]`."""
        # The rbg generator compiles faster than the default one, and no value is compared.
        weights, pixels = jax.random.split(jax.random.key(seed, impl="rbg"))
        make = lambda key: self.make(rngs=nnx.Rngs(key))  # noqa: E731
        network = (make if self.eager else jax.jit(make))(weights)
        draw = lambda key: self.inputs(key, self.timesteps, self.batch, network.input_shape)  # noqa: E731
        return network, jax.jit(draw)(pixels)

    def parameters(self) -> int:
        """Number of parameters of the published network."""
        # eval_shape allocates nothing: published networks may not fit this machine.
        make = self.full or self.make
        shapes = jax.eval_shape(lambda: nnx.state(make(rngs=nnx.Rngs(0)), nnx.Param))
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))


ZOO = {
    "mlp": Case(
        partial(models.mlp, (28, 28, 1)), 4, 8, "784-128-10"
    ),
    "conv_net": Case(
        partial(models.conv_net, (28, 28, 1)), 4, 8, "channels 32, 64, hidden 256, 28x28"
    ),
    "vgg": Case(models.vgg, 4, 1, "VGG16, 32x32"),
    "resnet": Case(partial(models.resnet, neuron=nn.IF), 4, 1, "depth 18, IF neurons, 32x32"),
    "ms_resnet": Case(models.ms_resnet, 4, 1, "depth 18, 32x32"),
    "rev_resnet": Case(partial(models.rev_resnet, static=True), 4, 1, "depth 21, 32x32"),
    "spikingformer": Case(models.spikingformer, 4, 1, "4-384, 32x32"),
    "rev_sformer": Case(models.rev_sformer, 4, 1, "4-384, 32x32"),
    "spikformer": Case(models.spikformer, 4, 1, "4-384, 32x32"),
    "spike_driven_transformer": Case(
        partial(
            models.spike_driven_transformer,
            depth=2, classes=10, input_shape=(32, 32, 3), pools=2,
        ),
        *(4, 1, "2-512, 32x32"),
    ),
    "sew_resnet": Case(
        partial(models.sew_resnet, input_shape=(64, 64, 3)), 4, 1, "depth 18, added spikes",
        slim="64x64 of 224x224",
    ),
    "t_revsnn": Case(
        partial(models.t_revsnn, channels=(32, 32, 32, 32), input_shape=(64, 64, 3)),
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
        partial(models.efficient_lif_har, (6,)), 128, 8, "6-256-256-6, both shared",
        inputs=sensor_data,
    ),
    "efficient_lif_compat": Case(
        partial(models.efficient_lif_compat, "vgg16"), 5, 1, "released VGG16, both shared, 32x32"
    ),
    # No dropout: norms use the batch (training mode), where its scaling would make spikes real.
    "asa_snn": Case(
        partial(models.asa_snn, dropout=(0.0,) * 5), 60, 1, "A, 32x32x2, without dropout",
        inputs=event_counts,
    ),
    "asa_snn_five": Case(models.asa_snn_five, 20, 1, "B, 128x128x2", inputs=event_counts),
    "feedback_net": Case(
        partial(models.feedback_net, (28, 28, 1), hidden=(400,), dropout=0.0),
        1, 8, "400 (F400), 28x28, without dropout",
    ),
    "angular_velocity_net": Case(
        partial(models.angular_velocity_net, input_shape=(64, 64, 2)), 30, 1, "six layers, 64x64x2",
        slim="64x64 of 180x240 pixels", inputs=event_counts,
    ),
    "recurrent_net": Case(
        partial(models.recurrent_net, 40, classes=48), 20, 4, "v2, 40-550-550-48",
        inputs=sensor_data,
    ),
    "dsr_resnet": Case(models.dsr_resnet, 20, 1, "PreAct-ResNet-18, 32x32"),
    "dsr_vgg": Case(
        partial(models.dsr_vgg, dropout=0.0), 20, 1, "VGG-11, 48x48x2, without dropout",
        inputs=event_counts,
    ),
    "strided_net": Case(
        partial(models.strided_net, neuron=nn.IF), 4, 1, "AlexNet of PTL, IF neurons, 32x32"
    ),
}  # fmt: skip
"""Configurations of the models of `snnjax.models`, by name."""
