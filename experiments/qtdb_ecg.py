"""ECG, a wave for every timestep: a recurrent layer of adaptive neurons over 1,301 steps.

Data: QTDB as spikes (Yin, Corradi, Bohté, "Accurate and efficient time-domain classification with
adaptive spiking recurrent neural networks", Nature Machine Intelligence, 2021, arXiv:2103.12593):
618 and 141 recordings, four channels, one of six waves at every step. Steps without
a wave, 10 % of the test, count as P, as in the authors' files.
Network: linear - 64 ALIF neurons with all-to-all feedback - linear - leaky integrators; time
constants fixed, 2 to 100 steps of membranes and 200 to 5 of thresholds; cross entropy of every
timestep. 4,806 parameters.

Hardware: 2 CPU cores shared with four other jobs (float32, jax 0.10.2, flax 0.12.8)
Time: 2 minutes; 8 beside other jobs
Expected: 87.7 % of the test steps (measured once, seed 0: 87.71 %)
Command: snnjax train experiments/qtdb_ecg.py --data-dir "$SNNJAX_DATA"
"""

import dataclasses
import functools

import jax.numpy as jnp

from snnjax import data, nn, training


@dataclasses.dataclass(frozen=True, kw_only=True)
class ECG(training.Experiment):
    """Fields of this experiment.

    Attributes:
        hidden: Neurons.
        slowest: Longest time constant of a threshold, in timesteps; membranes have half of it.
        smoothing: Decay of the leaky readout per timestep.
        feedback: False cuts the feedback.
    """

    hidden: int = 64
    slowest: float = 200.0
    smoothing: float = 0.8
    feedback: bool = True


def dataset(experiment):
    """Spikes `[N, 1301, 4]` with a class at every timestep, `[N, 1301]`."""
    return data.load("qtdb_ecg", data_dir=experiment.data_dir)


def encode(experiment, inputs, key):
    """`[B, T, 4] -> [T, B, 4]`: the spikes as they are."""
    del experiment, key
    return jnp.swapaxes(inputs, 0, 1).astype(jnp.float32)


def network(experiment, rngs):
    """Linear, adaptive neurons of many time constants with feedback, linear, leaky readout."""
    size = experiment.hidden
    # From fast to slow within a layer: a wave is known by the time since the last ones.
    spread = jnp.linspace(0.0, 1.0, size)
    membrane = jnp.exp(-1 / (2.0 * (experiment.slowest / 4) ** spread))
    adaptation = jnp.exp(-1 / (5.0 * (experiment.slowest / 5) ** spread[::-1]))
    neuron = nn.ALIF(decay=membrane, adaptation_decay=adaptation, strength=0.2)
    return nn.Network(
        nn.Sequential(
            nn.Linear(4, size, rngs=rngs),
            nn.Recurrent(neuron, size, rngs=rngs) if experiment.feedback else neuron,
            nn.Linear(size, 6, rngs=rngs),
            nn.LI(decay=experiment.smoothing, scale_input=True),
        ),
        (4,),
    )


def config():
    """The experiment."""
    return ECG(
        name="qtdb_ecg",
        network=network,
        dataset=dataset,
        encode=encode,
        task=functools.partial(training.task.classification, per_timestep=True),
        timesteps=1301,
        batch=32,
        epochs=40,
        learning_rate=1e-2,
        clip_norm=1.0,
    )
