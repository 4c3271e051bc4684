"""Fashion-MNIST with a slim RevSFormer: two reversible blocks of spiking attention, two timesteps.

Data: Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms", 2017, arXiv:1708.07747.
Network: each 2x2 patch of the image becomes the 4 channels of a pixel (nothing is lost, 14x14
remain) - tokenizer to 16 tokens - RevSFormer-2-96, 4 heads - rate readout; after Zhang and Zhang,
"Memory-Efficient Reversible Spiking Neural Networks", 2024, arXiv:2312.07922, whose networks for
CIFAR are 384 wide. Norms start at a scale of 2, because the paper's neuron halves its input.

Hardware: 2 CPU cores (float32, jax 0.10.2, flax 0.12.8)
Time: 16 minutes (16:01; 0.2 s a step, 11 s to compile), on nearly idle cores
Expected: 88.4 % test accuracy after five epochs (measured once, seed 0: 88.44 %); with
    `--epochs 7`, 25 minutes, 89.0 % (measured once, before the rounding of batch norm changed)
Command: snnjax train experiments/rev_sformer_fashion_mnist.py --data-dir "$SNNJAX_DATA"
"""

import dataclasses
import functools

from snnjax import data, encoding, models, nn, training

MEAN, DEVIATION = 0.286, 0.353  # of the training pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class RevSFormerFashionMNIST(training.Experiment):
    """Fields of this experiment."""

    depth: int = 2
    width: int = 96
    heads: int = 4


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
    """Slim form of the published network."""
    return models.rev_sformer(
        depth=experiment.depth,
        width=experiment.width,
        heads=experiment.heads,
        pools=2,
        norm=functools.partial(nn.BatchNorm, scale=2.0),
        input_shape=(14, 14, 4),
        rngs=rngs,
    )


def config():
    """The experiment."""
    return RevSFormerFashionMNIST(
        name="rev_sformer_fashion_mnist",
        network=network,
        dataset=dataset,
        encode=encode,
        timesteps=2,
        batch=64,
        epochs=5,
        learning_rate=2e-3,
        warmup_epochs=0.2,
        weight_decay=1e-2,
        clip_norm=1.0,
    )
