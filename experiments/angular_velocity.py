"""Angular velocity of a rotating event camera, on rendered streams: an SNN beside an ANN.

Data: `data.rotation`, random rotations of up to 8 rad/s before two photographs, 16x16 pixels over
40 degrees; 1,000 training and 200 test streams of 100 ms from a fixed seed. A frame holds 2 ms, 1
where a pixel fired. Training streams enter in all 8 quarter turns and mirror images. Test streams
see the photographs of training from other orientations.
Network: conv3x3 to 16, stride 2 - conv3x3 to 32, stride 2 - conv3x3 to 64 - linear, without
padding, whose last layer sees the whole frame. T = 50, a target every step; loss: mean distance
over the last 50 ms.
    --kind snn      spike response neurons (SRM), `models.angular_velocity_net`
    --kind ann      rectifiers in their place, on the events of the last 50 ms in 5 counts of 10 ms

Paper: Gehrig, Shrestha, Mouritzen, Scaramuzza, "Event-Based Angular Velocity Regression with
Spiking Networks", ICRA 2020, arXiv:2003.02790. Published on 180x240 pixels with 10,000 panoramas:
median relative error 0.26 (SNN), 0.22 (ANN).
Hardware: 2 CPU cores (AMD EPYC, shared; float32, jax 0.10.2, flax 0.12.8)
Time: 4 minutes of training (SNN), and a minute to render the streams and compile
Expected: measured once, seed 0, mean test error, median relative error, and mean absolute errors of
    tilt, pan and roll:
        snn     2.29 rad/s   0.64   0.83  0.74  1.70
        ann     1.59 rad/s   0.43   0.47  0.46  1.28
        mean of the training targets
                3.67 rad/s   1.00   1.75  1.85  1.90
Command: snnjax train experiments/angular_velocity.py
    python experiments/angular_velocity.py runs/angular_velocity-0     errors beside the baseline
"""

import dataclasses
import functools
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np

from snnjax import conversion, data, encoding, losses, metrics, models, nn, training
from snnjax.models.angular_velocity_net import Stage

SIDE, TIMESTEPS, STEP = 16, 50, 2  # pixels, frames, milliseconds
STRIDES = (2, 2, 1)
WINDOWS, COUNTED = 5, 5  # of an ANN: counts, and steps of each


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rotation(training.Experiment):
    """Fields of this experiment.

    Attributes:
        kind: "snn" or "ann".
        start: First timestep that counts in the loss.
        channels: Channels of the convolutions.
        threshold: Threshold of the neurons.
        tau: Time constant of their responses, in timesteps. A response lags by twice that, and so
            do the answers by the sum over all layers: slow ones miss a velocity that changes.
        output_tau: That of the output.
        recordings: Number of training streams before symmetries; the test has a fifth of it.
    """

    kind: str = "snn"
    start: int = 25
    channels: tuple[int, ...] = (16, 32, 64)
    threshold: float = 0.3
    tau: float = 2.0
    output_tau: float = 3.0
    recordings: int = 1000


def dataset(experiment):
    """Frames `[N, T, H, W, 2]` uint8 and velocities `[N, T, 3]`, the same in every run."""
    count = experiment.recordings
    streams = data.rotation.dataset(
        train=count,
        test=max(count // 5, 1),
        timesteps=TIMESTEPS * STEP,
        height=SIDE,
        width=SIDE,
        knot=500,
        contrast=0.1,
    )
    frames = functools.partial(
        encoding.events.frames_by_time,
        timesteps=TIMESTEPS, height=SIDE, width=SIDE,
        start=0, duration=1000 * TIMESTEPS * STEP, limit=1, dtype=np.uint8,
    )  # fmt: skip
    dense = data.dense(streams, frames)
    # The velocity at the last millisecond of each frame.
    train, test = (part.labels[:, STEP - 1 :: STEP] for part in (dense.train, dense.test))
    inputs, targets = symmetries(dense.train.inputs, train)
    return data.from_arrays(
        inputs, targets, dense.test.inputs, test, name="rotation", scale=1.0,
        input_shape=dense.input_shape,
    )  # fmt: skip


def symmetries(frames, velocity):
    """Streams in the 8 symmetries of a square: `[8 N, T, H, W, 2]` and `[8 N, T, 3]`."""
    x, y, z = np.moveaxis(velocity, -1, 0)
    # A mirror turns the signs of the components in its own plane: angular velocity is an axial
    # vector.
    pairs = [(frames, (x, y, z)), (frames[:, :, :, ::-1], (x, -y, -z))]
    for _ in range(3):
        # A quarter turn from x to y, the two of the last turn once more.
        pairs += [(np.rot90(f, -1, axes=(2, 3)), (-b, a, c)) for f, (a, b, c) in pairs[-2:]]
    turned, axes = zip(*pairs, strict=True)
    return np.concatenate(turned), np.concatenate([np.stack(a, axis=-1) for a in axes])


def encode(experiment, inputs, key):
    """`[B, T, H, W, 2] -> [T, B, H, W, C]`: the frames, or counts of the last 50 ms."""
    del key
    frames = encoding.frames(inputs).astype(jnp.float32)
    if experiment.kind == "snn":
        return frames
    # Sums up to each step, with zeros before the first one.
    sums = jnp.cumsum(jnp.pad(frames, [(WINDOWS * COUNTED, 0), *[(0, 0)] * 4]), axis=0)
    ends = [WINDOWS * COUNTED - COUNTED * window for window in range(WINDOWS + 1)]
    sums = [sums[end : end + TIMESTEPS] for end in ends]
    return jnp.concatenate([new - old for new, old in zip(sums, sums[1:], strict=False)], axis=-1)


def network(experiment, rngs):
    """The network of the paper at a small size, or its counterpart of rectifiers."""
    if experiment.kind == "snn":
        theta, tau = experiment.threshold, experiment.tau
        stages = [
            Stage(channels, stride, theta, tau, tau / 2, 1.0)
            for channels, stride in zip(experiment.channels, STRIDES, strict=True)
        ]
        return models.angular_velocity_net(
            input_shape=(SIDE, SIDE, 2),
            stages=stages,
            tau=experiment.output_tau,
            kernel="recurrence",
            rngs=rngs,
        )
    body, depth = [], 2 * WINDOWS
    for channels, stride in zip(experiment.channels, STRIDES, strict=True):
        conv = nn.Conv(depth, channels, strides=stride, padding="VALID", use_bias=True, rngs=rngs)
        body += [conv, conversion.ReLU()]
        depth = channels
    body += [nn.GlobalAvgPool(), nn.Linear(depth, 3, rngs=rngs)]
    return nn.Network(nn.Sequential(*body), (SIDE, SIDE, 2 * WINDOWS))


def distance(experiment, outputs, targets):
    """Mean distance from the targets, from `start` on."""
    return losses.distance(outputs, targets, start=experiment.start)


def config():
    """The experiment."""
    return Rotation(
        name="angular_velocity",
        network=network,
        dataset=dataset,
        encode=encode,
        task=functools.partial(training.task.regression, loss=distance, per_timestep=True),
        timesteps=TIMESTEPS,
        batch=32,
        eval_batch=100,
        epochs=6,
        learning_rate=3e-3,
        warmup_epochs=0.2,
    )


def report(path):
    """Prints the errors of a run beside those of the mean of the training targets."""
    run = training.Run.open(path)
    session = training.prepare(run.experiment(), training=False)
    state = training.checkpoints.load_newest(run.checkpoints, session.state, warn=print)
    experiment, start = session.experiment, session.experiment.start
    network = session.program.network(state)

    @jax.jit
    def outputs(inputs):
        frames = experiment.encode(experiment, inputs, None)
        return network(frames, network.initial_state(frames.shape[1]), training=False)[0][start:]

    inputs, targets = session.dataset.test.inputs, session.dataset.test.labels[:, start:]
    parts = range(0, len(inputs), 100)
    answers = np.concatenate([outputs(inputs[part : part + 100]) for part in parts], axis=1)
    mean = session.dataset.train.labels[:, start:].mean((0, 1))
    for name, values in ((experiment.kind, answers), ("mean", np.zeros_like(answers) + mean)):
        error = float(losses.distance(values, targets).mean())
        relative = float(metrics.median_relative_error(values, targets))
        axes = np.abs(np.swapaxes(values, 0, 1) - targets).mean((0, 1)).round(2).tolist()
        print(
            f"{name}: mean error {error:.2f} rad/s ({math.degrees(error):.0f} deg/s), median "
            f"relative error {relative:.2f}, mean absolute error of tilt, pan, roll {axes}"
        )


if __name__ == "__main__":
    report(sys.argv[1])
