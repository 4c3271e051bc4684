"""CIFAR10-DVS and DVS128 Gesture with RevSResNet24 and RevSFormer-2-256, for a GPU.

Paper: Zhang and Zhang, "Memory-Efficient Reversible Spiking Neural Networks", 2024,
arXiv:2312.07922; the recipe is that of its released code.
Data: recordings divided into `--timesteps` frames of equally many events, counts of 128x128 pixels
and two polarities (frames of 8 bits in memory: 3.3 GB of CIFAR10-DVS at 10 timesteps, 5.2 GB at
16). Li, Liu, Ji, Li, Shi, "CIFAR10-DVS: An Event-Stream Dataset for Object Classification", 2017,
the last tenth of each class for testing; Amir et al., "A Low Power, Fully Event-Based Gesture
Recognition System", 2017, with its own lists. In training a flip (in the recipe for gestures too,
although it turns a left hand into a right one), one of six operations (`trivial_augment`), and
mixup of 0.5 of every other batch until epoch 75.
Network: RevSResNet24 (260 thousand parameters) or, `--architecture former`, RevSFormer-2-256 (2.57
million, 16 heads); LIF neurons with a time constant of 1.5; rate readout. `--baseline` trains the
counterpart MS-ResNet20 instead (with neurons in front of a shortcut's convolution, as released), or
a Spikingformer of the same size. Streams are on a grid of 12 binary places; `--bits None` selects
floating streams, as in the paper.
Recipe: AdamW, learning rate 1e-5 rising to 1e-3 over 10 epochs, half a cosine to 1e-5 until epoch
96 (gestures: 192), then 10 epochs at 1e-5; no decay (former: 0.06 of kernels), label smoothing 0.1,
batch 16, seed 2021.
Left out: the released code trains in half precision (AMP), here float32; it changes the learning
rate once per epoch, here every step, and starts its cosine during the warm-up. Counts are clipped
to 255. The six operations are those of `SNNAugmentWide` in the code of T-RevSNN; [infer] this code
uses a class of that name, in a file that we could not read, with the same operations. Published
accuracies are those of the best epoch, chosen on the test recordings; `snnjax train` reports the
last epoch, and the best one separately.

Hardware: a GPU
Time: ours: not run (needs a GPU)
Expected: published test accuracy (README of the released code), T = 10 / 16:
        RevSResNet24       CIFAR10-DVS 75.50 / 76.40 %   DVS128 Gesture 94.44 / 96.53 %
        RevSFormer-2-256   CIFAR10-DVS 81.40 / 82.20 %   DVS128 Gesture 97.22 / 97.57 %
    Ours: not run (needs a GPU, and the data sets)
Command: snnjax train experiments/rev_snn_dvs.py --data-dir "$SNNJAX_DATA"
    longer: --timesteps 16;  transformer: --architecture former --weight-decay 0.06
    gestures: --source dvs128_gesture --epochs 202
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from snnjax import data, encoding, models, training
from snnjax.data.augmentation import map_recordings, random_flip, trivial_augment

CLASSES = {"cifar10_dvs": 10, "dvs128_gesture": 11}
SHAPE = (128, 128, 2)
neuron = functools.partial(models.tau_lif, tau=1.5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RevSNNEvents(training.Experiment):
    """Fields of this experiment."""

    source: str = "cifar10_dvs"
    architecture: str = "resnet"
    baseline: bool = False
    bits: int | None = 12
    cooldown_epochs: int = 10


def dataset(experiment):
    """Counts `[N, T, 128, 128, 2]` of 8 bits."""
    recordings = data.load(experiment.source, data_dir=experiment.data_dir)
    size = {"height": SHAPE[0], "width": SHAPE[1], "limit": 255, "dtype": np.uint8}
    to_frames = functools.partial(
        encoding.events.frames_by_count, timesteps=experiment.timesteps, **size
    )
    return data.dense(recordings, to_frames)


def encode(experiment, inputs, key):
    """Frames `[T, B, 128, 128, 2]`; all frames of a recording are augmented alike."""
    del experiment
    if key is not None:
        flip, change = jax.random.split(key)
        both = lambda images: trivial_augment(change, random_flip(flip, images))  # noqa: E731
        inputs = map_recordings(both, inputs)
    return encoding.frames(inputs.astype(jnp.float32))


def network(experiment, rngs):
    """Reversible ResNet or transformer, or its counterpart."""
    common = {
        "classes": CLASSES[experiment.source], "input_shape": SHAPE, "neuron": neuron, "rngs": rngs
    }  # fmt: skip
    bits = {} if experiment.baseline else {"bits": experiment.bits}
    if experiment.architecture == "resnet":
        if experiment.baseline:
            return models.ms_resnet(depth=20, spiking_shortcut=True, **common)
        return models.rev_resnet(depth=24, **bits, **common)
    if experiment.architecture != "former":
        raise ValueError(f"architecture is 'resnet' or 'former', not {experiment.architecture!r}")
    model = models.spikingformer if experiment.baseline else models.rev_sformer
    return model(depth=2, width=256, heads=16, pools=4, **bits, **common)


def schedule(experiment, steps):
    """Warm-up, half a cosine, cool-down."""
    return training.optimizer.warmup_cosine(
        experiment, steps, start=1e-5, floor=1e-5, cooldown_epochs=experiment.cooldown_epochs
    )


def config():
    """The recipe for CIFAR10-DVS and RevSResNet24."""
    return RevSNNEvents(
        name="rev_snn_dvs",
        network=network,
        dataset=dataset,
        encode=encode,
        schedule=schedule,
        timesteps=10,
        batch=16,
        epochs=106,
        learning_rate=1e-3,
        warmup_epochs=10,
        label_smoothing=0.1,
        mixup=0.5,
        mixup_epochs=75,
        mixup_probability=0.5,
        seed=2021,
    )
