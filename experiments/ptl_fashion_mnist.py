"""Source network of progressive tandem learning on Fashion-MNIST: three strided convolutions.

Paper: Wu, Xu, Han, Zhou, Zhang, Li, Tan, "Progressive Tandem Learning for Pattern Recognition with
Deep Spiking Neural Networks", 2020, arXiv:2007.01204, which has no network of this size.
Data: Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms", 2017, arXiv:1708.07747.
Conversion: `snnjax convert --progressive`, layer by layer at T = 4.

Hardware: 2 CPU cores, busy with other work (float32, jax 0.10.2, flax 0.12.8)
Time: 7:22 minutes for the source; 14:28 minutes for the conversion, 5:44 of processor time
Expected: test accuracy 91.6 % of the source, 60.46 % of the network converted without training,
    90.4 % layer by layer, measured once, seed 0. With the percentiles 99 and 99.9: 89.5 and 87.9 %
    (the latter with one epoch per stage); with the image constant over time, 99: 89.1 %
Command: snnjax train experiments/ptl_fashion_mnist.py --out runs/ptl_fashion --data-dir
    "$SNNJAX_DATA"
    snnjax convert runs/ptl_fashion --progressive --timesteps 4 --epochs 2 --percentile 95
"""

import dataclasses
import functools

from snnjax import data, encoding, models, training


@dataclasses.dataclass(frozen=True, kw_only=True)
class RectifiedFashion(training.Experiment):
    """Fields of this experiment."""

    width: int = 16
    hidden: int = 128
    dropout: float = 0.1


def dataset(experiment):
    """60,000 and 10,000 grey images `[N, 28, 28, 1]`."""
    return data.load("fashion_mnist", data_dir=experiment.data_dir)


def encode(experiment, inputs, key):
    """Image `[1, B, 28, 28, 1]`, mirrored at random in training."""
    images = data.rescale(inputs, 1 / 255)
    if key is not None:
        images = data.augmentation.random_flip(key, images)
    return encoding.direct(images, timesteps=experiment.timesteps)


def network(experiment, rngs):
    """Convolutions with stride 2, 2 and 1, and a hidden layer."""
    width = experiment.width
    return models.strided_net(
        layers=((width, 2), (2 * width, 2), (2 * width, 1)),
        hidden=(experiment.hidden,),
        input_shape=(28, 28, 1),
        dropout=experiment.dropout,
        rngs=rngs,
    )


def config():
    """The experiment."""
    return RectifiedFashion(
        name="ptl_fashion_mnist",
        network=network,
        dataset=dataset,
        encode=encode,
        schedule=functools.partial(training.optimizer.warmup_cosine, floor=1e-5),
        timesteps=1,
        batch=128,
        eval_batch=500,
        epochs=6,
        learning_rate=2e-3,
        weight_decay=1e-4,
    )
