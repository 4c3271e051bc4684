"""SPIDE: a convolution with feedback, 512C9s (F512C5), on CIFAR10-DVS, the released recipe.

Paper: Xiao, Meng, Zhang, Wang, Lin, "SPIDE: A Purely Spike-based Method for Training Feedback
Spiking Neural Networks", 2023, arXiv:2302.00232.
Data: Li, Liu, Ji, Li, Shi, "CIFAR10-DVS: An Event-Stream Dataset for Object Classification", 2017;
recordings divided into 30 frames of equally many events, counts of 128x128 pixels and two
polarities (of 8 bits in memory: 9.8 GB), resized to 48x48; in training shifted by up to 4 pixels.
The last tenth of each class tests.
Network: convolution 9x9, stride 2, to 512 channels, without normalisation and dropout, feedback
convolution 5x5 of Frobenius norm at most 10 - linear classifier of the mean rates; threshold 1,
resting potential -1. Backward stage: ternary neurons of threshold .5 over 250 timesteps, gradients
times 400.
Recipe: SGD .05, momentum .9, batch 128, 70 epochs, rate x0.1 after 50 of them; decay 5e-4 / 400,
see `spide_cifar.py`.
Left out: [infer] the released code resizes images of 8 bits with Pillow, in a file that we could
not read; here counts are resized bilinearly with an antialias filter, and not scaled. Its norm of
the feedback is an estimate.

Hardware: a GPU
Time: ours: not run (needs a GPU)
Expected: published: we could read no accuracy. Ours: not run (needs a GPU, and the data set)
Command: snnjax train experiments/spide_dvs.py --data-dir "$SNNJAX_DATA"
    leaky neurons: --decay 0.95 (we could read no decay for this data set)
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax import data, encoding, learning, models, training

SIZE = 48  # pixels of a frame


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpikingGradientDVS(training.Experiment):
    """Fields of this experiment."""

    channels: int = 512
    decay: float = 1.0
    padding: int = 4
    backward_timesteps: int = 250
    backward_scale: float = 400.0
    feedback_norm: float = 10.0
    milestones: tuple[float, ...] = (5 / 7,)  # of the run, where the learning rate falls


def dataset(experiment):
    """Counts `[N, T, 128, 128, 2]` of 8 bits."""
    recordings = data.load("cifar10_dvs", data_dir=experiment.data_dir)
    size = {"height": 128, "width": 128, "limit": 255, "dtype": np.uint8}
    to_frames = functools.partial(
        encoding.events.frames_by_count, timesteps=experiment.timesteps, **size
    )
    return data.dense(recordings, to_frames)


def encode(experiment, inputs, key):
    """Frames `[T, B, 48, 48, 2]`; all frames of a recording are shifted alike in training."""
    shape = (*inputs.shape[:2], SIZE, SIZE, inputs.shape[-1])
    frames = jax.image.resize(inputs.astype(jnp.float32), shape, "linear")
    if key is not None:
        crop = functools.partial(data.augmentation.random_crop, key, padding=experiment.padding)
        frames = data.augmentation.map_recordings(crop, frames)
    return encoding.frames(frames)


def network(experiment, rngs):
    """512C9s (F512C5)."""
    return models.feedback_net(
        (SIZE, SIZE, 2),
        stages=((experiment.channels, 9, 2),),
        feedback_kernel=5,
        timesteps=experiment.timesteps,
        neuron=learning.lif_rate_model(
            threshold=1.0, amount=2.0, decay=experiment.decay, strict=True
        ),
        norm=None,
        dropout=0.0,
        bound=functools.partial(learning.Frobenius, bound=experiment.feedback_norm),
        inner="rates",
        solver=learning.solvers.spiking_ternary(
            timesteps=experiment.backward_timesteps, scale=experiment.backward_scale
        ),
        kernel_init=nnx.initializers.variance_scaling(2.0, "fan_in", "normal"),
        rngs=rngs,
    )


def config():
    """The experiment, with the released recipe."""
    return SpikingGradientDVS(
        name="spide_dvs",
        network=network,
        dataset=dataset,
        encode=encode,
        schedule=training.optimizer.multistep,
        optimizer=functools.partial(training.optimizer.sgd, decays=lambda params: True),
        timesteps=30,
        batch=128,
        epochs=70,
        learning_rate=0.05,
        weight_decay=5e-4 / 400,
    )
