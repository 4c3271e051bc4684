"""The default experiment of `snnjax train`: 8x8 digits, a small spiking CNN.

Paper:     none of its own; 1,797 digits of E. Alpaydin and C. Kaynak, UCI, 1998, as installed with
           scikit-learn, split 80/20 by class with a fixed seed (compare only on this split)
Hardware:  two CPU cores
Time:      20 seconds, compilation included
Expected:  99.2 % of the 360 test digits, mean over the seeds 0, 1 and 2 (99.7, 98.9, 98.9)
Command:   snnjax train
"""

from __future__ import annotations

import dataclasses

from snnjax import data, encoding, nn, training

__all__ = ["config"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Digits(training.Experiment):
    """The experiment, with the sizes of its network.

    Attributes:
        channels: Channels of the first convolution; the second has twice as many.
        decay: Decay of the membranes, per timestep.
    """

    channels: int = 16
    decay: float = 0.5


def network(experiment, rngs):
    """Conv - pool - conv - pool - linear, with leaky integrate-and-fire neurons in between."""
    width = experiment.channels
    neuron = lambda: nn.LIF(decay=experiment.decay)  # noqa: E731
    return nn.Network(
        nn.Sequential(
            *(nn.Conv(1, width, rngs=rngs), nn.BatchNorm(width), neuron(), nn.AvgPool()),
            *(nn.Conv(width, 2 * width, rngs=rngs), nn.BatchNorm(2 * width), neuron()),
            *(nn.AvgPool(), nn.Flatten(), nn.Linear(4 * 2 * width, 10, rngs=rngs)),
        ),
        input_shape=(8, 8, 1),
    )


def dataset(experiment):
    """Scikit-learn's digits."""
    return data.load("digits", data_dir=experiment.data_dir)


def encode(experiment, inputs, key):
    """Pixels as a constant current; in training, each digit is shifted by up to one pixel."""
    if key is not None:  # None in evaluation; no flip, since mirrored digits are other signs
        inputs = data.augmentation.random_crop(key, inputs, padding=1)
    return encoding.direct(data.rescale(inputs, 1 / 16), timesteps=experiment.timesteps)


def config():
    """The configuration that reaches the expected accuracy."""
    return Digits(
        name="digits",
        network=network,
        dataset=dataset,
        encode=encode,
        timesteps=4,
        batch=64,
        eval_batch=360,
        epochs=40,
        learning_rate=1e-2,
        warmup_epochs=1,
        weight_decay=1e-3,
        label_smoothing=0.1,
        checkpoint_every=220,
    )
