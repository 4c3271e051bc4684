"""A rectified network without time on the digits: the source of a conversion."""

import dataclasses

from snnjax import conversion, data, encoding, nn, training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rectified(training.Experiment):
    """One field of its own.

    Attributes:
        hidden: Neurons of each hidden layer.
    """

    hidden: tuple[int, ...] = (96, 96, 96)


def network(experiment, rngs):
    layers, width = [nn.Flatten()], 64
    for size in experiment.hidden:
        layers += [nn.Linear(width, size, rngs=rngs), nn.BatchNorm(size), conversion.ReLU()]
        width = size
    return nn.Network(nn.Sequential(*layers, nn.Linear(width, 10, rngs=rngs)), (8, 8, 1))


def dataset(experiment):
    return data.load("digits", data_dir=experiment.data_dir)


def encode(experiment, inputs, key):
    return encoding.direct(data.rescale(inputs, 1 / 16), timesteps=experiment.timesteps)


def config():
    return Rectified(
        name="rectified",
        network=network,
        dataset=dataset,
        encode=encode,
        timesteps=1,
        batch=64,
        eval_batch=360,
        epochs=20,
        learning_rate=2e-3,
        keep=1,
    )
