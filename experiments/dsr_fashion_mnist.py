"""DSR: a small convolutional network on Fashion-MNIST, beside backpropagation through time.

Paper: Meng, Xiao, Yan, Wang, Lin, Luo, "Training High-Performance Low-Latency Spiking Neural
Networks by Differentiation on Spike Representation", 2022, arXiv:2205.00459 (not this network).
Data: Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms", 2017, arXiv:1708.07747.
Network: that of fashion_mnist.py with the neurons of DSR and mean pools.

Hardware: not run
Time: not measured
Expected: not measured; fashion_mnist.py reaches 91.6 % through time with LIF neurons and max pools
Command: snnjax train experiments/dsr_fashion_mnist.py --data-dir "$SNNJAX_DATA"
    leaky neurons: --neuron lif    backpropagation through time: --memory "time=store"
"""

import dataclasses

from snnjax import data, encoding, learning, models, nn, training


@dataclasses.dataclass(frozen=True, kw_only=True)
class RateFashion(training.Experiment):
    """Fields of this experiment."""

    width: int = 16
    hidden: int = 128
    dropout: float = 0.2
    neuron: str = "if"  # or "lif"
    height: float = 6.0  # of a spike and of the largest rate at the start: V, with a leak V / dt


def dataset(experiment):
    """60,000 and 10,000 grey images `[N, 28, 28, 1]`."""
    return data.load("fashion_mnist", data_dir=experiment.data_dir)


def encode(experiment, inputs, key):
    """Image as a constant current, `[T, B, 28, 28, 1]`; mirrored at random in training."""
    images = data.rescale(inputs, 1 / 255)
    if key is not None:
        images = data.augmentation.random_flip(key, images)
    return encoding.direct(images, timesteps=experiment.timesteps)


def rate_model(experiment):
    """Neurons with the paper's constants for few timesteps (T = 5)."""
    if experiment.neuron == "if":
        return learning.dsr_if_model(threshold=experiment.height, fire_at=0.5)
    dt = 0.1
    threshold = experiment.height * dt
    return learning.dsr_lif_model(threshold=threshold, fire_at=0.5, minimum=1e-3, dt=dt)


def network(experiment, rngs):
    """Two stages of convolution and a hidden layer."""
    return models.conv_net(
        (28, 28, 1),
        channels=(experiment.width, 2 * experiment.width),
        hidden=experiment.hidden,
        dropout=experiment.dropout,
        neuron=lambda: learning.RateNeuron(rate_model(experiment), learn=("threshold",)),
        pool=nn.AvgPool,
        rngs=rngs,
    )


def config():
    """The experiment."""
    return RateFashion(
        name="dsr_fashion_mnist",
        network=network,
        dataset=dataset,
        encode=encode,
        timesteps=5,
        batch=128,
        epochs=6,
        learning_rate=2e-3,
        warmup_epochs=0.2,
        weight_decay=1e-4,
        clip_norm=1.0,
    )
