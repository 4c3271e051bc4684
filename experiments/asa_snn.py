"""Firing rate and accuracy of ASA-SNN and of the same network without attention, on events.

Paper: Yao, Hu, Zhao, Wang, Zhang, Xu, Li, "Inherent Redundancy in Spiking Neural Networks", ICCV
2023, arXiv:2308.08227. Its three-layer network and its neurons, slim: 8, 16 and 16 channels, 128
hidden neurons, inputs of 2x2 pixels as 8 channels; squared error of the output rates, as there.
Data: `nmnist`, 1,100 recordings of digits (see nmnist.py), 5-fold cross-validation, counts in 8
frames, shifted by up to 3 pixels in training; `fashion_mnist`, the first 6,000 images and all test
images, moved along a triangle of 4 pixels in 8 steps in front of pixels that report each change of
0.15 (`encoding.delta`), as N-MNIST was made, without the noise of its sensor.
Values of `--attention`: none; asa; half, which is none with norms that start at a scale of 0.5,
because the gates of ASA start around 0.5 and halve every current.

Hardware: 2 CPU cores, one run on each, shared with other work (float32, jax 0.10.2, flax 0.12.8)
Time: N-MNIST 19 minutes for all 45 runs, Fashion-MNIST 8 for all 9; without `half` two thirds
Expected: test accuracy, its difference from `none` with its standard error (over 5 folds, each a
    mean of 3 seeds; over 3 seeds), and NASFR (see docs/redundancy.md), measured:
        N-MNIST        none 86.3 %                    NASFR 0.258
                       asa  90.3 %  +4.0 +- 0.6       NASFR 0.164 (-36.4 %)
                       half 91.8 %  +5.5 +- 0.6       NASFR 0.156 (-39.6 %)
        Fashion-MNIST  none 81.5 %                    NASFR 0.285
                       asa  81.9 %  +0.5 +- 0.1       NASFR 0.202 (-29.0 %)
                       half 81.8 %  +0.3 +- 0.1       NASFR 0.189 (-33.6 %)
    Attention has the published effect here; norms that start at half their scale have the same
    effect without attention. With `nn.LIF(decay=0.5)` (threshold 1, arctan) instead of the
    published neurons (threshold 0.3) there is no gain: none 89.6 % at 0.100, asa 86.8 % at 0.109
    (one run each, fold 0, 12 epochs, learning rate 2e-3, batch 32).
    Published, on DVS128 Gesture and gait with 60 timesteps: 2 to 5 points more at 36 to 79 % less.
Command: python experiments/paired.py experiments/asa_snn.py --vary attention none half asa
        --folds 5 --seeds 3 --out runs/asa-nmnist --data-dir "$SNNJAX_DATA"
    python experiments/paired.py experiments/asa_snn.py --vary attention none half asa --seeds 3
        --source fashion_mnist --batch 32 --eval-batch 250 --learning-rate 5e-3 --epochs 7
        --eval-every 7 --out runs/asa-fashion --data-dir "$SNNJAX_DATA"
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from snnjax import data, encoding, losses, models, nn, training
from snnjax.models.asa_snn import asa_attention

SIZES = {"nmnist": 34, "fashion_mnist": 28}
ATTENTIONS = {"none": None, "half": None, "asa": asa_attention}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ASASNN(training.Experiment):
    """Fields of this experiment."""

    source: str = "nmnist"
    attention: str = "asa"
    fold: int = 0
    dropout: float = 0.1


def dataset(experiment):
    """Counts `[N, T, 34, 34, 2]` of one of five folds, or images that `encode` moves."""
    for value, known in ((experiment.source, SIZES), (experiment.attention, ATTENTIONS)):
        if value not in known:
            raise ValueError(f"choose one of {', '.join(known)}, not {value!r}")
    if not 0 <= experiment.fold < 5:
        raise ValueError(f"there are five folds, 0 to 4, not {experiment.fold}")
    whole = data.load(experiment.source, data_dir=experiment.data_dir)
    if experiment.source == "fashion_mnist":
        return dataclasses.replace(
            whole, train=whole.train.take(np.arange(min(6000, len(whole.train))))
        )
    fold = next(itertools.islice(data.folds(whole, k=5), experiment.fold, None))
    size = {"height": 34, "width": 34, "duration": 300_000, "dtype": np.uint8}
    cut = functools.partial(encoding.events.frames_by_time, timesteps=experiment.timesteps, **size)
    return data.dense(fold, cut)


def encode(experiment, inputs, key):
    """Events as frames of patches, `[T, B, 17, 17, 8]` or `[T, B, 14, 14, 8]`."""
    if experiment.source == "nmnist":
        frames, padding = inputs.astype(jnp.float32), 3
    else:
        frames, padding = moving_events(data.rescale(inputs, 1 / 255), experiment.timesteps), 1
    if key is not None:
        shift = functools.partial(data.augmentation.random_crop, key, padding=padding)
        frames = data.augmentation.map_recordings(shift, frames)
    return jax.vmap(data.patches)(encoding.frames(frames))


def moving_events(images, timesteps):
    """Events of images that move along a triangle, `[B, T, 28, 28, 2]`."""
    corners = np.array([[0, 0], [4, 2], [0, 4], [0, 0]])
    way = np.linspace(0, 3, timesteps + 1)
    path = [np.interp(way, np.arange(4), corners[:, axis]).round().astype(int) for axis in (0, 1)]
    padded = jnp.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    views = [padded[:, r : r + 28, c : c + 28] for r, c in zip(*path, strict=True)]
    return encoding.delta(jnp.stack(views), threshold=0.15)[1:].swapaxes(0, 1)


def network(experiment, rngs):
    """The published network, slim."""
    size = SIZES[experiment.source] // 2
    scale = 0.5 if experiment.attention == "half" else 1.0
    return models.asa_snn(
        timesteps=experiment.timesteps,
        classes=10,
        input_shape=(size, size, 8),
        channels=(8, 16, 16),
        hidden=128,
        attention=ATTENTIONS[experiment.attention],
        dropout=(0.0, 0.0, experiment.dropout, experiment.dropout, 0.0),
        norm=functools.partial(nn.BatchNorm, scale=scale),
        rngs=rngs,
    )


def loss(experiment, outputs, labels):
    """Squared difference of output rates and one-hot labels, mean over the classes."""
    del experiment
    return losses.rate_mse(outputs, labels)


def config():
    """The experiment on N-MNIST."""
    return ASASNN(
        name="asa_snn",
        network=network,
        dataset=dataset,
        encode=encode,
        task=functools.partial(training.task.classification, loss=loss),
        timesteps=8,
        batch=16,
        eval_batch=220,
        epochs=16,
        learning_rate=1.5e-3,
        weight_decay=1e-4,
        warmup_epochs=0.5,
        checkpoint_every=880,
        eval_every=8,
    )
