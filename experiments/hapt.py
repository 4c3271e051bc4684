"""Human activity from a phone on the waist: 6 activities, windows of 128 samples, unseen people.

Data: HAPT raw recordings (Reyes-Ortiz, Oneto, Samà, Parra, Anguita, "Transition-Aware Human
Activity Recognition Using Smartphones", 2016): 7,415 windows of 21 people to train, 2,996 of 9
others to test. Logistic regression on mean, deviation and mean difference of each window: 85.3 %.
Network: 16 timesteps of 8 samples x 6 channels - [linear to 256 - batch norm - LIF - dropout] x 2 -
linear, rate readout.

Hardware: 2 CPU cores (float32, jax 0.10.2, flax 0.12.8)
Time: 27 seconds
Expected: 90.7 % test accuracy (measured once, seed 0: 90.65 %)
Command: snnjax train experiments/hapt.py --data-dir "$SNNJAX_DATA"
"""

import dataclasses

from snnjax import data, encoding, nn, training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hapt(training.Experiment):
    """Fields of this experiment."""

    hidden: int = 256
    decay: float = 0.5
    dropout: float = 0.3


def dataset(experiment):
    """Windows `[N, 128, 6]`, standardised with the training set."""
    return data.load("hapt", data_dir=experiment.data_dir)


def encode(experiment, inputs, key):
    """`[B, 128, 6] -> [T, B, 128 / T * 6]`: a frame holds consecutive samples."""
    del key
    batch, samples, channels = inputs.shape
    timesteps = experiment.timesteps
    patches = inputs.reshape(batch, timesteps, samples // timesteps * channels)
    return encoding.series(patches)


def network(experiment, rngs):
    """Two hidden layers with batch norm and dropout."""
    features, layers = 128 // experiment.timesteps * 6, []
    for size in (experiment.hidden, experiment.hidden):
        layers += [
            nn.Linear(features, size, use_bias=False, rngs=rngs),
            nn.BatchNorm(size),
            nn.LIF(decay=experiment.decay),
            nn.Dropout(experiment.dropout),
        ]
        features = size
    layers.append(nn.Linear(features, 6, rngs=rngs))
    return nn.Network(nn.Sequential(*layers), (128 // experiment.timesteps * 6,))


def config():
    """The experiment."""
    return Hapt(
        name="hapt",
        network=network,
        dataset=dataset,
        encode=encode,
        timesteps=16,
        batch=128,
        epochs=15,
        learning_rate=2e-3,
        weight_decay=1e-4,
        clip_norm=1.0,
        label_smoothing=0.1,
    )
