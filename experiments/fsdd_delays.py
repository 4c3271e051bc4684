"""Spoken digits of unseen speakers as spikes: learned delays against none.

Data: Free Spoken Digit Dataset (Jackson, Souza, Flaks, Pan, Nicolas, Thite, 2018) through the
spiking cochlea of this library, 64 channels, spikes of 10 ms summed, 60 timesteps: 2,000 recordings
of george, jackson, lucas and nicolas train, 1,000 of theo and yweweler test.
Network: [synapses - norm - LIF - dropout] x 2 - linear, mean of the logits. Synapses with a learned
delay each of up to 200 ms (Hammouamri, Khalfaoui-Hassani, Masquelier, "Learning Delays in Spiking
Neural Networks using Dilated Convolutions with Learnable Spacings", ICLR 2024, arXiv:2306.17670),
a learned delay per neuron, or none.

Hardware: 2 CPU cores (AMD EPYC) shared with other jobs (float32, jax 0.10.2, flax 0.12.8)
Time: 1 to 2 minutes of one core each, 54 s of it to encode the recordings
Expected: test accuracy; without delays more neurons (128) and slower membranes (decays 0.9, 0.95)
    have 58.9 to 59.7 % (30 epochs, seed 0)

    none        60.5 %   (seeds 0 to 2: 61.4, 59.5, 60.5; 30 epochs: 61.8, 63.1, 60.7)
    neurons     71.8 %   (seeds 0 to 2: 72.4, 70.0, 73.1)
    synapses    71.3 %   (seeds 0 to 2: 70.2, 70.3, 73.3; 30 epochs, seed 0: 71.7)

    with 9,098, 9,226 and 17,290 parameters

Command: snnjax train experiments/fsdd_delays.py --data-dir "$SNNJAX_DATA" --delays neurons
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from snnjax import data, encoding, nn, training

CHANNELS, RATE, BIN = 64, 8000, 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spikes(training.Experiment):
    """Fields of this experiment.

    Attributes:
        delays: "synapses" and "neurons" have a learned delay each, "none" have none.
        longest: Longest delay, in timesteps.
        width: Standard deviation of the kernel of a delay; None interpolates.
        hidden: Neurons per layer.
        decay: Share of the membrane kept per timestep.
        dropout: Rate of the mask, equal at all timesteps.
        shift: Largest shift of a training example over channels, up or down.
    """

    delays: str = "neurons"
    longest: int = 20
    width: float | None = None
    hidden: int = 64
    decay: float = 0.8
    dropout: float = 0.2
    shift: int = 4


def dataset(experiment):
    """Spike counts `[N, T, 64]` of 10 ms; 2,000 of four speakers, 1,000 of two others test."""
    recordings = data.load("fsdd", data_dir=experiment.data_dir)
    return data.dense(recordings, Counts(experiment.timesteps))


@dataclasses.dataclass(frozen=True)
class Counts:
    """Spikes of the cochlea, summed over 10 ms; silence behind the end."""

    timesteps: int

    def __call__(self, waveform):
        """`[S, 1]` int16 -> `[T, 64]` uint8."""
        steps = BIN * self.timesteps
        spikes = encoding.audio.cochlea(waveform, rate=RATE, channels=CHANNELS, timesteps=steps)
        return spikes.reshape(self.timesteps, BIN, CHANNELS).sum(1).astype(np.uint8)


def encode(experiment, inputs, key):
    """`[B, T, 64] -> [T, B, 64]`; in training shifted over the channels, as other voices are."""
    if key is not None and experiment.shift:
        shifts = jax.random.randint(key, len(inputs), -experiment.shift, experiment.shift + 1)
        channels = jnp.clip(jnp.arange(CHANNELS) - shifts[:, None], 0, CHANNELS - 1)
        inputs = jnp.take_along_axis(inputs, channels[:, None], axis=-1)
    return encoding.series(inputs).astype(jnp.float32)


def network(experiment, rngs):
    """Layers of LIF neurons behind synapses with or without delays, and a linear readout."""
    size, longest = experiment.hidden, experiment.longest
    late = {"longest": longest, "width": experiment.width, "rngs": rngs}
    body = []
    for inputs in (CHANNELS, size):
        if experiment.delays == "neurons":
            body.append(nn.Delay(inputs, **late))
        if experiment.delays == "synapses":
            body.append(nn.DelayedLinear(inputs, size, use_bias=False, **late))
        else:
            body.append(nn.Linear(inputs, size, use_bias=False, rngs=rngs))
        neuron = nn.LIF(decay=experiment.decay)
        body += [nn.BatchNorm(size), neuron, nn.Dropout(experiment.dropout)]
    return nn.Network(nn.Sequential(*body, nn.Linear(size, 10, rngs=rngs)), (CHANNELS,))


def config():
    """The experiment."""
    return Spikes(
        name="fsdd_delays",
        network=network,
        dataset=dataset,
        encode=encode,
        timesteps=60,
        batch=64,
        epochs=12,
        learning_rate=3e-3,
        weight_decay=1e-4,
        clip_norm=1.0,
    )
