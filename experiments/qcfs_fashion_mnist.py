"""QCFS: a small convolutional network on Fashion-MNIST, to be converted into a spiking one.

Paper: Bu, Fang, Ding, Dai, Yu, Huang, "Optimal ANN-SNN Conversion for High-accuracy and
Ultra-low-latency Spiking Neural Networks", 2022, arXiv:2303.04347 (not this network). Data: Xiao,
Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms", 2017, arXiv:1708.07747.
Network: two stages of convolution, mean pool and batch norm, and a hidden layer, with quantised
activations of L = 4 levels and trained thresholds. It trains as a conventional network, at one
timestep; `snnjax convert RUN --timesteps 1,2,4,8,16` makes it spike.
Recipe: as in the paper stochastic gradient descent at .1 with momentum .9, a cosine, and decay 5e-4
of every parameter, thresholds too; images mirrored and shifted.

Hardware: 2 CPU cores, busy with other work (float32, jax 0.10.2, flax 0.12.8)
Time: 16 minutes of processor time (52 minutes beside other jobs); conversion 3 minutes
Expected: measured once, seed 0: source 92.04 %; spiking at T=1/2/4/8/16: 68.74, 89.01, 91.60,
    92.06, 92.13 %. Energy at 45 nm: source .0214 mJ, spiking .0034 (T=4), .0057 (T=8)
Command: snnjax train experiments/qcfs_fashion_mnist.py --data-dir "$SNNJAX_DATA" --out runs/qcfs
    snnjax convert runs/qcfs --timesteps 1,2,4,8,16
"""

import dataclasses
import functools

import jax

from snnjax import conversion, data, encoding, models, nn, training


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizedFashion(training.Experiment):
    """Fields of this experiment."""

    width: int = 32
    hidden: int = 256
    dropout: float = 0.2
    levels: int = 4
    threshold: float = 2.0  # at the start


def dataset(experiment):
    """60,000 and 10,000 grey images `[N, 28, 28, 1]`."""
    return data.load("fashion_mnist", data_dir=experiment.data_dir)


def encode(experiment, inputs, key):
    """Image as a constant current, `[T, B, 28, 28, 1]`; mirrored and shifted in training."""
    if key is not None:
        flip, crop = jax.random.split(key)
        inputs = data.augmentation.random_flip(flip, inputs)
        inputs = data.augmentation.random_crop(crop, inputs, padding=2)
    return encoding.direct(data.rescale(inputs, 1 / 255), timesteps=experiment.timesteps)


def network(experiment, rngs):
    """Two stages of convolution and a hidden layer."""
    activation = functools.partial(
        conversion.QCFS, levels=experiment.levels, threshold=experiment.threshold
    )
    return models.conv_net(
        (28, 28, 1),
        channels=(experiment.width, 2 * experiment.width),
        hidden=experiment.hidden,
        dropout=experiment.dropout,
        neuron=activation,
        pool=nn.AvgPool,
        rngs=rngs,
    )


def config():
    """The experiment."""
    return QuantizedFashion(
        name="qcfs_fashion_mnist",
        network=network,
        dataset=dataset,
        encode=encode,
        optimizer=functools.partial(training.optimizer.sgd, decays=lambda params: True),
        timesteps=1,
        batch=128,
        eval_batch=500,
        epochs=15,
        learning_rate=0.1,
        weight_decay=5e-4,
    )
