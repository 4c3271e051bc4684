"""A source network of `snnjax convert`, for tests: a tiny one with activations, on the digits."""

import dataclasses

from snnjax import conversion, data, encoding, nn, training

_ACTIVATIONS = {
    "relu": conversion.ReLU,
    "qcfs": lambda: conversion.QCFS(levels=4, threshold=2.0),
    "threshold_relu": lambda: conversion.ThresholdReLU(threshold=1.0),
    "plain": conversion.ReLU,  # without the shortcut
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(training.Experiment):
    """Fields of its own.

    Attributes:
        activation: Activation, by name.
        fixed: True for one frame whatever `timesteps` is.
        noise: True for frames that change over time.
    """

    activation: str = "qcfs"
    fixed: bool = False
    noise: bool = False


def network(experiment, rngs):
    activation = _ACTIVATIONS[experiment.activation]
    block = (nn.Linear(24, 24, rngs=rngs), nn.BatchNorm(24))
    if experiment.activation != "plain":
        block = (nn.Residual(nn.Sequential(*block)),)
    return nn.Network(
        nn.Sequential(
            nn.Flatten(),
            *(nn.Linear(64, 24, rngs=rngs), nn.BatchNorm(24), activation(), nn.Dropout(0.1)),
            *(*block, activation()),
            nn.Linear(24, 10, rngs=rngs),
        ),
        input_shape=(8, 8, 1),
    )


def dataset(experiment):
    return data.load("digits", data_dir=experiment.data_dir)


def encode(experiment, inputs, key):
    del key
    frames = encoding.direct(
        data.rescale(inputs, 1 / 16), timesteps=1 if experiment.fixed else experiment.timesteps
    )
    return frames.at[1:].multiply(0.5) if experiment.noise else frames


def config():
    return Source(
        name="source",
        network=network,
        dataset=dataset,
        encode=encode,
        timesteps=1,
        batch=128,
        eval_batch=180,
        epochs=3,
        learning_rate=2e-2,
    )
