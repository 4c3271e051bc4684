"""DSR: VGG-11 on CIFAR10-DVS, the recipe of the released code.

Paper: Meng, Xiao, Yan, Wang, Lin, Luo, "Training High-Performance Low-Latency Spiking Neural
Networks by Differentiation on Spike Representation", 2022, arXiv:2205.00459.
Data: Li, Liu, Ji, Li, Shi, "CIFAR10-DVS: An Event-Stream Dataset for Object Classification", 2017;
recordings divided into 20 frames of equally many events, counts of 128x128 pixels and two
polarities (of 8 bits in memory: 6.6 GB), resized to 48x48; in training shifted by up to 4 pixels.
The last tenth of each class tests.
Network: `models.dsr_vgg`; T = 20, LIF with dt .05, V .3, a .3, or IF with V 6, a .5; dropout .1.
Recipe: SGD .05, momentum .9, decay 5e-4 of every parameter, batch 128, 300 epochs, warm-up over 400
steps, cosine.
Left out: the released code draws dropout for every timestep anew, and counts its test recordings by
number, not by name as text; its last maps see 49 equal weights each, see `models.dsr_vgg`.

Hardware: a GPU
Time: ours: not run (needs a GPU)
Expected: published: the paper's own number we could not read; a later paper (Zhou et al.,
    "Spikformer", 2023, arXiv:2209.15425) quotes 77.3 % for this VGG-11, at 10 timesteps. Ours: not
    run (needs a GPU, and the data set)
Command: snnjax train experiments/dsr_dvs.py --data-dir "$SNNJAX_DATA"
    neurons without a leak: --neuron if
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from snnjax import data, encoding, learning, models, readout, training

SIZE = 48  # pixels of a frame


@dataclasses.dataclass(frozen=True, kw_only=True)
class RateDVS(training.Experiment):
    """Fields of this experiment."""

    neuron: str = "lif"  # or "if"
    padding: int = 4
    dropout: float = 0.1


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
    # Without an antialias filter, as torchvision resized arrays in 2022.
    frames = jax.image.resize(inputs.astype(jnp.float32), shape, "linear", antialias=False)
    if key is not None:
        crop = functools.partial(data.augmentation.random_crop, key, padding=experiment.padding)
        frames = data.augmentation.map_recordings(crop, frames)
    return encoding.frames(frames)


def rate_model(experiment):
    """Neurons of the paper, with its constants for T = 20."""
    neurons = {"if": learning.dsr_if_model, "lif": learning.dsr_lif_model}
    return neurons[experiment.neuron]()


def network(experiment, rngs):
    """VGG-11."""
    return models.dsr_vgg(
        input_shape=(SIZE, SIZE, 2),
        dropout=experiment.dropout,
        neuron=lambda: learning.RateNeuron(rate_model(experiment), learn=("threshold",)),
        rngs=rngs,
    )


def task(experiment):
    """Classification of the rates of the last neurons."""
    rates = functools.partial(readout.decayed_rate, decay=rate_model(experiment).decay)
    return training.task.classification(dataclasses.replace(experiment, readout=rates))


def config():
    """The experiment, with the released recipe."""
    return RateDVS(
        name="dsr_dvs",
        network=network,
        dataset=dataset,
        encode=encode,
        task=task,
        optimizer=functools.partial(training.optimizer.sgd, decays=lambda params: True),
        timesteps=20,
        batch=128,
        epochs=300,
        learning_rate=0.05,
        warmup_epochs=400 / 70,  # 400 steps
        weight_decay=5e-4,
    )
