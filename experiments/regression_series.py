"""Regression of synthetic series: frequency and noise level of a sine wave, from 64 samples.

Data: 2,000 training and 500 test series drawn from a fixed seed, x[t] = sin(2 pi f t + p) + s n[t]
with random phase p and normal noise n; the two targets are f, scaled to [0, 1], and the noise level
s in [0, 0.5].
Network: overlapping windows of 16 samples as currents, 13 timesteps - [linear to 128 - batch norm -
LIF] x 2 - linear, whose mean over time is the prediction.

Paper: none
Hardware: 2 CPU cores (float32, jax 0.10.2, flax 0.12.8)
Time: 15 seconds, compilation included (36 seconds on busy cores)
Expected: RMSE 0.048 over both targets (measured once, seed 0); predicting their means gives 0.23
Command: snnjax train experiments/regression_series.py
    prediction against target: snnjax show runs/regression_series-0
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from snnjax import data, nn, training

SAMPLES, WINDOW = 64, 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series(training.Experiment):
    """Fields of this experiment.

    Attributes:
        width: Neurons of a hidden layer.
        decay: Decay of the membranes, per timestep.
    """

    width: int = 128
    decay: float = 0.5


def draw(rng, count):
    """Draws series `[N, 64]` and targets `[N, 2]`."""
    frequency, noise = rng.uniform(0.02, 0.2, count), rng.uniform(0.0, 0.5, count)
    phase = rng.uniform(0.0, 2 * np.pi, count)
    angle = 2 * np.pi * frequency[:, None] * np.arange(SAMPLES) + phase[:, None]
    series = np.sin(angle) + noise[:, None] * rng.standard_normal((count, SAMPLES))
    targets = np.stack([(frequency - 0.02) / 0.18, noise], axis=1)
    return series.astype(np.float32), targets.astype(np.float32)


def dataset(experiment):
    """Series drawn from a fixed seed, the same in every run."""
    del experiment
    rng = np.random.default_rng(0)
    return data.from_arrays(*draw(rng, 2000), *draw(rng, 500), name="series")


def encode(experiment, inputs, key):
    """Overlapping windows of 16 samples, `[13, B, 16]`."""
    del experiment, key
    starts = range(0, SAMPLES - WINDOW + 1, 4)
    return jnp.stack([inputs[:, start : start + WINDOW] for start in starts])


def network(experiment, rngs):
    """Two spiking layers and a linear layer."""
    width = experiment.width
    return nn.Network(
        nn.Sequential(
            *(nn.Linear(WINDOW, width, rngs=rngs), nn.BatchNorm(width)),
            nn.LIF(decay=experiment.decay),
            *(nn.Linear(width, width, rngs=rngs), nn.BatchNorm(width)),
            nn.LIF(decay=experiment.decay),
            nn.Linear(width, 2, rngs=rngs),
        ),
        input_shape=(WINDOW,),
    )


def config():
    """The experiment."""
    return Series(
        name="regression_series",
        network=network,
        dataset=dataset,
        encode=encode,
        task=training.task.regression,
        batch=100,
        eval_batch=500,
        epochs=20,
        learning_rate=5e-3,
        warmup_epochs=1,
        weight_decay=1e-4,
    )
