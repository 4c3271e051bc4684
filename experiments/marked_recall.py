"""Recall over 1,000 timesteps: one of 20 symbols is marked early, and named at the end.

Data: drawn from a fixed seed, 4,000 training and 1,000 test streams of 20 symbols of four kinds at
random timesteps, with nothing in between; a flag marks the first or the second, and its kind is the
label. Chance is 25 %, and the most frequent kind of all 20 is right in 36 %.
Network: linear - integrator with multi-bit spikes - linear (Ponghiran, Roy, "Spiking Neural
Networks with Improved Inherent Recurrence Dynamics for Sequential Learning", AAAI 2022,
arXiv:2109.01905); mean of the logits of the last 500 timesteps. The gates start open for currents
of 1 to 1,000 timesteps, biases ln(u), u uniform (Tallec, Ollivier, "Can recurrent neural networks
warp time?", ICLR 2018, arXiv:1804.11188).

Hardware: 2 CPU cores (AMD EPYC) shared with ten other jobs (float32, jax 0.10.2, flax 0.12.8)
Time: 43 s of processor time, 8 minutes on these cores and 1 to compile
Expected: test accuracy, once, seed 0; larger rates let the feedback grow to NaN

    v2       100.0 %   (93.1 after the first of three epochs)   2,564 parameters
    leaky     28.1 %   (34.5 after 8 epochs)                     356 parameters

Command: snnjax train experiments/marked_recall.py --cell v2
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from snnjax import data, nn, readout, training

SYMBOLS, SHOWN, EARLY = 4, 20, 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recall(training.Experiment):
    """Fields of this experiment.

    Attributes:
        cell: "v2", "v1" or "leaky", integrators with multi-bit spikes.
        hidden: Neurons.
        gain: Initial scale of the feedback of "v2".
    """

    cell: str = "v2"
    hidden: int = 32
    gain: float = 0.1


def draw(rng, count, timesteps):
    """Streams `[N, T]`, 0 for nothing, 1 to 4 for symbols, 5 to 8 for marked ones; labels `[N]`."""
    places = np.argsort(rng.random((count, timesteps)), axis=1)[:, :SHOWN]
    places.sort(axis=1)
    symbols = rng.integers(0, SYMBOLS, (count, SHOWN))
    rows, marked = np.arange(count), rng.integers(0, EARLY, count)
    labels = symbols[rows, marked].astype(np.int32)
    symbols[rows, marked] += SYMBOLS
    streams = np.zeros((count, timesteps), np.uint8)
    np.put_along_axis(streams, places, symbols.astype(np.uint8) + 1, axis=1)
    return streams, labels


def dataset(experiment):
    """Streams drawn from a fixed seed, the same in every run."""
    rng = np.random.default_rng(0)
    parts = (*draw(rng, 4000, experiment.timesteps), *draw(rng, 1000, experiment.timesteps))
    return data.from_arrays(*parts, name="recall", scale=1.0)


def encode(experiment, inputs, key):
    """`[B, T] -> [T, B, 6]`: the symbol, the flag, and 1."""
    del experiment, key
    codes = inputs.T.astype(jnp.int32) - 1
    # Minus one, nothing, has no one-hot entry.
    symbols = jax.nn.one_hot(jnp.where(codes < SYMBOLS, codes, codes - SYMBOLS), SYMBOLS)
    flag = (codes >= SYMBOLS).astype(jnp.float32)[..., None]
    # Large inputs let their weights learn faster than the feedback, which may grow over the window.
    return jnp.concatenate([8 * symbols, 8 * flag, jnp.ones_like(flag)], axis=-1)


def open_gates(timesteps):
    """`kernel_init` of gates and candidates, with the bias of the gates in the last row."""

    def kernel(key, shape, dtype):
        drawn, spread = jax.random.split(key)
        weights = nn.synapses.lecun_normal(drawn, shape, dtype)
        times = jax.random.uniform(spread, (shape[1] // 2,), dtype, 1.0, timesteps)
        bias = jnp.concatenate([jnp.log(times), jnp.zeros_like(times)])
        return weights.at[-1].set(bias)

    return kernel


def late(outputs):
    """Mean of the second half, `[T, B, K] -> [B, K]`."""
    return readout.rate(outputs[len(outputs) // 2 :])


def network(experiment, rngs):
    """One layer of integrators, and a logit of every symbol at each timestep."""
    size, cell = experiment.hidden, experiment.cell
    rows = {"kernel_init": open_gates(experiment.timesteps)} if cell != "leaky" else {}
    width = size if cell == "leaky" else 2 * size
    body = nn.Sequential(
        nn.Linear(SYMBOLS + 2, width, use_bias=False, rngs=rngs, **rows),
        nn.Integrator(size, cell=cell, gain=experiment.gain, rngs=rngs),
        nn.Linear(size, SYMBOLS, rngs=rngs),
    )
    return nn.Network(body, (SYMBOLS + 2,))


def config():
    """The experiment."""
    return Recall(
        name="marked_recall",
        network=network,
        dataset=dataset,
        encode=encode,
        readout=late,
        timesteps=1000,
        batch=64,
        epochs=3,
        learning_rate=1e-3,
        clip_norm=1.0,
    )
