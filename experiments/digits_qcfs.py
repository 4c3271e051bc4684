"""QCFS on the embedded 8x8 digits: a source network that `snnjax convert` turns into a spiking one.

Paper: Bu, Fang, Ding, Dai, Yu, Huang, "Optimal ANN-SNN Conversion for High-accuracy and
Ultra-low-latency Spiking Neural Networks", 2022, arXiv:2303.04347 (not this network). Data: E.
Alpaydin and C. Kaynak, UCI, 1998, 1,797 digits as installed with scikit-learn.
Network: that of `snnjax train` with quantised activations in place of spiking neurons, behind the
pools.

Hardware: two CPU cores
Time: 25 seconds, compilation included; conversion 40 seconds, beside other jobs
Expected: measured once, seed 0: source 96.9 % of the 360 test digits; spiking at T=1/2/4/8/16:
    81.7, 94.4, 96.9, 98.3, 97.8 %
Command: snnjax train experiments/digits_qcfs.py --out runs/digits_qcfs
    snnjax convert runs/digits_qcfs --timesteps 1,2,4,8,16
"""

import dataclasses

from snnjax import conversion, data, encoding, nn, training


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizedDigits(training.Experiment):
    """Fields of this experiment."""

    channels: int = 16
    levels: int = 4
    threshold: float = 2.0  # at the start


def network(experiment, rngs):
    """Two stages of convolution, norm, pool and activation, then a linear layer."""
    width = experiment.channels
    activation = lambda: conversion.QCFS(  # noqa: E731
        levels=experiment.levels, threshold=experiment.threshold
    )
    return nn.Network(
        nn.Sequential(
            # Pools in front of the activations: behind spikes, means of them would be multiplied.
            *(nn.Conv(1, width, rngs=rngs), nn.BatchNorm(width), nn.AvgPool(), activation()),
            *(nn.Conv(width, 2 * width, rngs=rngs), nn.BatchNorm(2 * width), nn.AvgPool()),
            *(activation(), nn.Flatten(), nn.Linear(4 * 2 * width, 10, rngs=rngs)),
        ),
        input_shape=(8, 8, 1),
    )


def dataset(experiment):
    """Scikit-learn's digits."""
    return data.load("digits", data_dir=experiment.data_dir)


def encode(experiment, inputs, key):
    """Pixels as a constant current; in training, each digit is shifted by up to one pixel."""
    if key is not None:
        inputs = data.augmentation.random_crop(key, inputs, padding=1)
    return encoding.direct(data.rescale(inputs, 1 / 16), timesteps=experiment.timesteps)


def config():
    """The experiment."""
    return QuantizedDigits(
        name="digits_qcfs",
        network=network,
        dataset=dataset,
        encode=encode,
        timesteps=1,
        batch=64,
        eval_batch=360,
        epochs=40,
        learning_rate=1e-2,
        warmup_epochs=1,
        weight_decay=1e-3,
        label_smoothing=0.1,
        checkpoint_every=220,
    )
