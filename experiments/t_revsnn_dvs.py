"""CIFAR10-DVS and DVS128 Gesture with T-RevSNN tiny: eight columns, a frame for each; for a GPU.

Paper: Hu et al., "High-Performance Temporal Reversible Spiking Neural Networks with O(L) Training
Memory and O(1) Inference Cost", 2024, arXiv:2405.16466. We could not read its recipe for event
data: the released one is for ImageNet, and the authors state that runs on events are very sensitive
and use the TET loss. The recipe here is a combination: [infer] optimizer, schedule and smoothing
are those for ImageNet.
Data: as in `experiments/rev_snn_dvs.py`, 8 frames of equally many events; in training one of six
operations (`trivial_augment`) and a flip, as released. The reader differs from the released one of
CIFAR10-DVS, whose training examples include the test examples, and which crops to 64x64 in training
only.
Network: levels of 32, 64, 128 and 256 channels, 10.2 million parameters, the released stem (3x3,
stride 1). One spike classifier reads all columns, as the TET loss needs; the released head reads
the last one (`heads="last"` of `models.t_revsnn`). States are floating and kept for every column;
`--memory time=reverse` reverses from the last column, `--bits 12` on a grid.
Recipe: [infer] LAMB, learning rate rising from 1e-5 over 20 epochs to 2e-3, half a cosine to 1e-6
until epoch 300, all per 1,024 recordings in a batch; adaptive clipping at 0.02, decay 0.01 of
kernels, smoothing 0.1, TET loss (regularization 0.05: ours), batch 64 (ours), seed 118.
Left out: half precision, the moving average of weights (0.9992), LAMB's bound on its trust ratio.

Hardware: a GPU
Time: ours: not run (needs a GPU)
Expected: published: we could read no accuracy. A user of the released code reported about 46 % on
    CIFAR10-DVS, which its authors attribute to the set-up. Ours: not run (needs a GPU, and the data
    sets)
Command: snnjax train experiments/t_revsnn_dvs.py --data-dir "$SNNJAX_DATA"
    gestures: --source dvs128_gesture
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from snnjax import data, encoding, losses, models, training
from snnjax.data.augmentation import map_recordings, random_flip, trivial_augment

CLASSES = {"cifar10_dvs": 10, "dvs128_gesture": 11}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TRevSNNEvents(training.Experiment):
    """Fields of this experiment."""

    source: str = "cifar10_dvs"
    bits: int | None = None
    clipping: float = 0.02
    regularization: float = 0.05


def dataset(experiment):
    """Counts `[N, T, 128, 128, 2]` of 8 bits."""
    recordings = data.load(experiment.source, data_dir=experiment.data_dir)
    size = {"height": 128, "width": 128, "limit": 255, "dtype": np.uint8}
    to_frames = functools.partial(
        encoding.events.frames_by_count, timesteps=experiment.timesteps, **size
    )
    return data.dense(recordings, to_frames)


def encode(experiment, inputs, key):
    """Frames `[T, B, 128, 128, 2]`; all frames of a recording are augmented alike."""
    del experiment
    if key is not None:
        flip, change = jax.random.split(key)
        both = lambda images: random_flip(flip, trivial_augment(change, images))  # noqa: E731
        inputs = map_recordings(both, inputs)
    return encoding.frames(inputs.astype(jnp.float32))


def network(experiment, rngs):
    """T-RevSNN tiny for events, one column per timestep."""
    return models.t_revsnn(
        size="tiny_dvs",
        classes=CLASSES[experiment.source],
        columns=experiment.timesteps,
        heads="spiking",
        bits=experiment.bits,
        rngs=rngs,
    )


def loss(experiment, outputs, labels):
    """TET loss: the cross entropy of every column."""
    return losses.temporal_cross_entropy(
        outputs,
        labels,
        regularization=experiment.regularization,
        label_smoothing=experiment.label_smoothing,
    )


def schedule(experiment, steps):
    """Warm-up and half a cosine; `learning_rate` refers to a batch of 1,024."""
    scale = experiment.batch / 1024
    scaled = dataclasses.replace(experiment, learning_rate=experiment.learning_rate * scale)
    return training.optimizer.warmup_cosine(scaled, steps, start=1e-5 * scale, floor=1e-6 * scale)


def optimizer(experiment, schedule):
    """Adaptive clipping, then LAMB."""
    clip = training.optimizer.adaptive_clip(experiment.clipping)
    return optax.chain(clip, training.optimizer.lamb(experiment, schedule))


def config():
    """The recipe for CIFAR10-DVS."""
    return TRevSNNEvents(
        name="t_revsnn_dvs",
        network=network,
        dataset=dataset,
        encode=encode,
        task=functools.partial(training.task.classification, loss=loss),
        schedule=schedule,
        optimizer=optimizer,
        timesteps=8,
        batch=64,
        epochs=300,
        learning_rate=2e-3,
        warmup_epochs=20,
        weight_decay=0.01,
        label_smoothing=0.1,
        seed=118,
    )
