"""Fashion-MNIST with a small convolutional network of LIF neurons, four timesteps.

Data: Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms", 2017, arXiv:1708.07747.
Network: direct coding - [conv3x3 - pool - batch norm - LIF] x 2 - dropout - linear - batch norm -
LIF - linear, rate readout.

Hardware: 2 CPU cores (float32, jax 0.10.2, flax 0.12.8)
Time: 7.5 minutes
Expected: 91.6 % test accuracy (measured once, seed 0: 91.62 %)
Command: snnjax train experiments/fashion_mnist.py --data-dir "$SNNJAX_DATA"
Another gradient: ... --order time --memory "time=sltt" (or truncated(2), skip(4, 2), ottt, eprop)
"""

import dataclasses
import functools

from snnjax import data, encoding, models, nn, training


@dataclasses.dataclass(frozen=True, kw_only=True)
class FashionMNIST(training.Experiment):
    """Fields of this experiment.

    Attributes:
        order: "layer", or "time" for strategies that run the network timestep by timestep.
    """

    width: int = 16
    hidden: int = 128
    dropout: float = 0.2
    order: str = "layer"


def dataset(experiment):
    """60,000 and 10,000 grey images `[N, 28, 28, 1]`."""
    return data.load("fashion_mnist", data_dir=experiment.data_dir)


def encode(experiment, inputs, key):
    """Image as a constant current, `[T, B, 28, 28, 1]`; mirrored at random in training."""
    images = data.rescale(inputs, 1 / 255)
    if key is not None:
        images = data.augmentation.random_flip(key, images)
    return encoding.direct(images, timesteps=experiment.timesteps)


def network(experiment, rngs):
    """Two stages of convolution and a hidden layer."""
    # In time order batch norm sees one timestep at a time.
    over = "step" if experiment.order == "time" else "window"
    return models.conv_net(
        (28, 28, 1),
        channels=(experiment.width, 2 * experiment.width),
        hidden=experiment.hidden,
        dropout=experiment.dropout,
        neuron=functools.partial(nn.LIF, decay=0.5),
        norm=functools.partial(nn.BatchNorm, over=over),
        order=experiment.order,
        rngs=rngs,
    )


def config():
    """The experiment."""
    return FashionMNIST(
        name="fashion_mnist",
        network=network,
        dataset=dataset,
        encode=encode,
        timesteps=4,
        batch=128,
        epochs=6,
        learning_rate=2e-3,
        warmup_epochs=0.2,
        weight_decay=1e-4,
        clip_norm=1.0,
    )
