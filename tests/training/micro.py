"""The smallest experiment there is, for tests: a few steps of a tiny network on the digits."""

import dataclasses

from snnjax import data, encoding, nn, training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Micro(training.Experiment):
    """One field of its own.

    Attributes:
        width: Hidden neurons.
    """

    width: int = 8


def network(experiment, rngs):
    return nn.Network(
        nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, experiment.width, rngs=rngs),
            nn.BatchNorm(experiment.width),
            nn.LIF(),
            nn.Dropout(0.1),
            nn.Linear(experiment.width, 10, rngs=rngs),
        ),
        input_shape=(8, 8, 1),
    )


def dataset(experiment):
    return data.load("digits", data_dir=experiment.data_dir)


def encode(experiment, inputs, key):
    if key is not None:
        inputs = data.augmentation.random_crop(key, inputs, padding=1)
    return encoding.direct(data.rescale(inputs, 1 / 16), timesteps=experiment.timesteps)


def config():
    return Micro(
        name="micro",
        network=network,
        dataset=dataset,
        encode=encode,
        timesteps=2,
        batch=256,
        eval_batch=180,
        epochs=2,
        learning_rate=1e-2,
        weight_decay=1e-2,
        warmup_epochs=0.5,
        log_every=2,
    )
