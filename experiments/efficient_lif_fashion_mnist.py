"""EfficientLIF on Fashion-MNIST: the layers of a stage and their channel groups share one membrane.

Data: Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms", 2017, arXiv:1708.07747.
Network: each 2x2 patch of the image becomes the 4 channels of a pixel - a VGG of two stages of two
convolutions, 16 and 32 channels (`models.efficient_lif_vgg`) - rate readout; `sharing` is `"none"`,
`"channel"`, `"layer"` or `"both"` with the same 17,226 parameters. After Kim, Li, Moitra, Yin,
Panda, "Sharing Leaky-Integrate-and-Fire Neurons for Memory-Efficient Spiking Neural Networks",
2023, arXiv:2305.18360 (CIFAR and others; not this set).

Hardware: one CPU core, shared with other work (float32, jax 0.10.2, flax 0.12.8)
Time: 4.2 minutes of processor time, 7 to 10 minutes on the clock
Expected: 83.3 % test accuracy with "both" (seeds 0, 1, 2: 83.10, 83.20, 83.51), 83.8 % with "none"
    (83.89, 83.81, 83.67); three epochs, before either network has converged
Command: snnjax train experiments/efficient_lif_fashion_mnist.py --data-dir "$SNNJAX_DATA"
    unshared: --sharing none
"""

import dataclasses

from snnjax import data, encoding, models, training

MEAN, DEVIATION = 0.286, 0.353  # of the training pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class EfficientLIF(training.Experiment):
    """Fields of this experiment."""

    sharing: str = "both"
    widths: tuple[int, ...] = (16, 32)


def dataset(experiment):
    """60,000 and 10,000 grey images `[N, 28, 28, 1]`."""
    return data.load("fashion_mnist", data_dir=experiment.data_dir)


def encode(experiment, inputs, key):
    """Standardised patches as a constant current, `[T, B, 14, 14, 4]`; mirrored in training."""
    images = data.rescale(inputs, 1 / 255, mean=MEAN, deviation=DEVIATION)
    if key is not None:
        images = data.augmentation.random_flip(key, images)
    return encoding.direct(data.patches(images), timesteps=experiment.timesteps)


def network(experiment, rngs):
    """Two layers per stage, with the sharing of the experiment."""
    return models.efficient_lif_vgg(
        sharing=experiment.sharing,
        stages=[(width, width) for width in experiment.widths],
        input_shape=(14, 14, 4),
        rngs=rngs,
    )


def config():
    """The experiment."""
    return EfficientLIF(
        name="efficient_lif_fashion_mnist",
        network=network,
        dataset=dataset,
        encode=encode,
        timesteps=4,
        batch=128,
        epochs=3,
        learning_rate=3e-3,
        warmup_epochs=0.2,
        weight_decay=1e-3,
        clip_norm=1.0,
    )
