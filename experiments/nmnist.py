"""N-MNIST, few recordings: 1,100 event streams of handwritten digits, 5-fold cross-validation.

Data: Orchard, Jayawant, Cohen, Thakor, "Converting Static Image Datasets to Spiking Neuromorphic
Datasets Using Saccades", 2015, arXiv:1507.07629; the subset of 1,000 + 100 recordings, redivided
into 5 folds of equal class shares. Logistic regression on event counts: 84.0 % of the 100.
Networks, both on frames of equal duration, with a rate readout:
    conv          [conv3x3 - pool - batch norm - LIF] x 2 - dropout - linear - batch norm - LIF -
                  linear
    rev_resnet24  each 2x2 patch of a frame becomes the 8 channels of a pixel - RevSResNet24, five
                  reversible blocks, with 8, 16 and 32 channels in a half and LIF neurons; Zhang and
                  Zhang, "Memory-Efficient Reversible Spiking Neural Networks", 2024,
                  arXiv:2312.07922 (published for larger frames, after a stem with strides)

Hardware: 2 CPU cores; rev_resnet24: one, shared with other work (float32, jax 0.10.2, flax 0.12.8)
Time: 75 seconds a fold, 6 minutes in all; rev_resnet24: 20 minutes of processor time in all (38 on
    the clock of that busy core)
Expected: 96.7 % mean over the folds, standard error 0.8 % (conv, measured: 95.0, 95.0, 97.7, 96.8,
    99.1 %); rev_resnet24: 94.6 %, standard error 1.1 % (91.8, 94.1, 93.2, 97.3, 96.8 %)
Command: python experiments/cross_validation.py experiments/nmnist.py --data-dir "$SNNJAX_DATA"
    rev_resnet24: --architecture rev_resnet24 --timesteps 6 --batch 16 --epochs 28
One fold: snnjax train experiments/nmnist.py --fold 0 --data-dir "$SNNJAX_DATA"
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from snnjax import data, encoding, models, neurons, nn, training


@dataclasses.dataclass(frozen=True, kw_only=True)
class NMNIST(training.Experiment):
    """Fields of this experiment."""

    fold: int = 0
    architecture: str = "conv"
    shift: int = 3
    dropout: float = 0.3


def dataset(experiment):
    """Counts of one of five folds, `[N, T, 34, 34, 2]` per pixel, polarity and timestep."""
    if not 0 <= experiment.fold < 5:
        raise ValueError(f"there are five folds, 0 to 4, not {experiment.fold}")
    recordings = data.load("nmnist", data_dir=experiment.data_dir)
    fold = next(itertools.islice(data.folds(recordings, k=5), experiment.fold, None))
    to_frames = functools.partial(
        encoding.events.frames_by_time,
        timesteps=experiment.timesteps,
        height=34,
        width=34,
        dtype=np.uint8,
    )
    return data.dense(fold, to_frames)


def encode(experiment, inputs, key):
    """Frames `[T, B, 34, 34, 2]` of counts; training shifts each recording by a few pixels.

    rev_resnet24 takes patches, `[T, B, 17, 17, 8]`.
    """
    frames = jnp.log1p(inputs.astype(jnp.float32))
    if key is not None and experiment.shift:
        shift = functools.partial(data.augmentation.random_crop, key, padding=experiment.shift)
        frames = data.augmentation.map_recordings(shift, frames)
    frames = encoding.frames(frames)
    return jax.vmap(data.patches)(frames) if experiment.architecture != "conv" else frames


def network(experiment, rngs):
    """Two stages of convolution and a hidden layer, or the slim RevSResNet24."""
    if experiment.architecture == "rev_resnet24":
        return models.rev_resnet(
            depth=24,
            halves=(8, 16, 32),
            events=False,
            input_shape=(17, 17, 8),
            neuron=functools.partial(
                nn.LIF, decay=0.5, reset=neurons.reset.detached(neurons.reset.zero)
            ),
            rngs=rngs,
        )
    if experiment.architecture != "conv":
        raise ValueError(f"choose conv or rev_resnet24, not {experiment.architecture!r}")
    return models.conv_net(
        (34, 34, 2),
        channels=(16, 32),
        hidden=128,
        classes=10,
        dropout=experiment.dropout,
        neuron=functools.partial(nn.LIF, decay=0.5),
        rngs=rngs,
    )


def config():
    """The experiment."""
    return NMNIST(
        name="nmnist",
        network=network,
        dataset=dataset,
        encode=encode,
        timesteps=8,
        batch=32,
        epochs=20,
        learning_rate=2e-3,
        weight_decay=1e-3,
        clip_norm=1.0,
        label_smoothing=0.1,
    )
