"""Velocity of moving dots at every timestep: spike response neurons (SRM) that regress.

Data: 1,500 training and 300 test sequences from a fixed seed. About 20 of many dots lie within
16x16 pixels; all move rigidly, at a constant velocity of up to 0.25 pixels per step along x and y
and 0.06 rad per step about the center. A pixel fires ON when a dot enters it and OFF when it is
left. The targets are the three velocities, as shares in [-1, 1] of the largest ones.
Network: conv5x5 to 16, stride 2 - SRM - conv3x3 to 32 - SRM - mean over space - linear - potential,
5,504 weights without biases; T = 60. Loss: mean distance from the targets over steps 30 to 60.

Paper: Gehrig, Shrestha, Mouritzen, Scaramuzza, "Event-Based Angular Velocity Regression with
Spiking Networks", ICRA 2020, arXiv:2003.02790; its network at a small size.
Hardware: 2 CPU cores (AMD EPYC, shared; float32, jax 0.10.2, flax 0.12.8)
Time: 5 minutes of two busy cores, compilation included
Expected: mean distance 0.269 over steps 30 to 60 of the test (measured once, seed 0), the last test
    loss; predicting the mean of the training targets gives 0.951. The authors' modules reached 0.26
    beside 0.96 on dots of their own drawing, in a separate run.
Command: snnjax train experiments/moving_dots.py
    prediction against target: snnjax show runs/moving_dots-0
"""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np

from snnjax import data, encoding, losses, nn, surrogate, training

SIDE, TIMESTEPS = 16, 60
LARGEST = np.array([0.25, 0.25, 0.06])  # pixels, pixels and rad per step
DOTS, REACH = 390, 35.0  # no dot beyond this distance from the center reaches the camera


@dataclasses.dataclass(frozen=True, kw_only=True)
class MovingDots(training.Experiment):
    """Fields of this experiment.

    Attributes:
        start: First timestep that counts in the loss.
        tau: Time constant of the responses of both hidden layers, in timesteps.
        threshold: Threshold of their neurons.
        width: Width of the surrogate derivative, in thresholds.
        sequences: Number of training sequences; the test has a fifth of it.
    """

    start: int = 30
    tau: float = 4.0
    threshold: float = 0.25
    width: float = 0.3
    sequences: int = 1500


def draw(rng, count):
    """Draws event frames `[N, T, 16, 16, 2]` uint8 and targets `[N, T, 3]`."""
    targets = rng.uniform(-1, 1, (count, 3))
    motion = targets * LARGEST
    angle = motion[:, 2]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    dots = rng.uniform(-REACH, REACH, (count, DOTS, 2))
    views = [occupied(dots)]
    for _ in range(TIMESTEPS):
        dots = np.einsum("ijn,ndj->ndi", turn, dots) + motion[:, None, :2]
        views.append(occupied(dots))
    change = np.diff(np.stack(views, axis=1).astype(np.int8), axis=1)
    frames = np.stack([change > 0, change < 0], axis=-1).astype(np.uint8)
    return frames, np.repeat(targets[:, None], TIMESTEPS, axis=1).astype(np.float32)


def occupied(dots):
    """True where a pixel holds a dot, `[N, 16, 16]`."""
    places = np.floor(dots + SIDE / 2).astype(int)
    example, dot = np.nonzero(((places >= 0) & (places < SIDE)).all(axis=-1))
    column, row = places[example, dot].T
    view = np.zeros((len(dots), SIDE, SIDE), bool)
    view[example, row, column] = True
    return view


def dataset(experiment):
    """Sequences drawn from a fixed seed, the same in every run."""
    rng, count = np.random.default_rng(0), experiment.sequences
    parts = (*draw(rng, count), *draw(rng, max(count // 5, 1)))
    return data.from_arrays(*parts, name="moving_dots", scale=1.0, input_shape=(SIDE, SIDE, 2))


def encode(experiment, inputs, key):
    """`[B, T, H, W, 2] -> [T, B, H, W, 2]`, float32."""
    del experiment, key
    return encoding.frames(inputs).astype(jnp.float32)


def network(experiment, rngs):
    """Two spiking convolutions; a potential per velocity."""
    neuron = functools.partial(
        nn.SRM,
        threshold=experiment.threshold,
        tau=experiment.tau,
        refractory_tau=experiment.tau,
        refractory="exponential",
        kernel="recurrence",
        spike=surrogate.exponential(
            height=1 / experiment.threshold, width=experiment.width * experiment.threshold
        ),
    )
    init = nn.synapses.fan_in_uniform
    conv = functools.partial(nn.Conv, padding="VALID", kernel_init=init, rngs=rngs)
    return nn.Network(
        nn.Sequential(
            *(conv(2, 16, kernel=5, strides=2), neuron()),
            *(conv(16, 32), neuron()),
            nn.GlobalAvgPool(),
            nn.Linear(32, 3, use_bias=False, kernel_init=init, rngs=rngs),
            nn.PSP(tau=8.0, kernel="recurrence"),
        ),
        input_shape=(SIDE, SIDE, 2),
    )


def distance(experiment, outputs, targets):
    """Mean distance from the targets, from `start` on."""
    return losses.distance(outputs, targets, start=experiment.start)


def config():
    """The experiment."""
    return MovingDots(
        name="moving_dots",
        network=network,
        dataset=dataset,
        encode=encode,
        task=functools.partial(training.task.regression, loss=distance, per_timestep=True),
        timesteps=TIMESTEPS,
        batch=25,
        eval_batch=150,
        epochs=12,
        learning_rate=3e-3,
        warmup_epochs=1,
    )
