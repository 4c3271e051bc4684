"""Source networks of progressive tandem learning on CIFAR-10: AlexNet and VGG-11.

Paper: Wu, Xu, Han, Zhou, Zhang, Li, Tan, "Progressive Tandem Learning for Pattern Recognition with
Deep Spiking Neural Networks", 2020, arXiv:2007.01204.
Network: `models.strided_net`; Adam at 1e-3 with a coupled decay of 1e-5, 100 epochs, batches of
512; then T = 16, thresholds at the percentile 99.9, patience 6, at most 150 epochs in all stages.
Left out: the released code's dropout in evaluation. The limit of epochs is one per stage, 25 for
the six of AlexNet and 15 for the eleven of VGG-11; augmentation is a crop and a mirror image.

Hardware: a GPU
Time: ours: not run (needs a GPU)
Expected: published accuracies stand in the paper alone, which was not at hand.
    Ours: not run (needs a GPU)
Command: snnjax train experiments/ptl_cifar.py --data-dir "$SNNJAX_DATA"
    snnjax convert runs/ptl_cifar-0 --progressive --timesteps 16
    --patience 6 --epochs 25
    VGG-11: --architecture vgg11
"""

import dataclasses
import functools

import optax

from snnjax import data, encoding, models, training
from snnjax.models.strided_net import ALEXNET, STRIDED_VGG11


@dataclasses.dataclass(frozen=True, kw_only=True)
class RectifiedCIFAR(training.Experiment):
    """Fields of this experiment."""

    architecture: str = "alexnet"  # or "vgg11"
    source: str = "cifar10"
    dropout: float = 0.2


def dataset(experiment):
    """50,000 and 10,000 colour images `[N, 32, 32, 3]`."""
    return data.load(experiment.source, data_dir=experiment.data_dir)


def encode(experiment, inputs, key):
    """Image `[1, B, 32, 32, 3]`; shifted and mirrored at random in training."""
    images = data.rescale(inputs, 1 / 255)
    if key is not None:
        images = data.augmentation.random_crop(key, images, padding=4)
        images = data.augmentation.random_flip(key, images)
    return encoding.direct(images, timesteps=experiment.timesteps)


def network(experiment, rngs):
    """The paper's widths and strides."""
    sizes = {"alexnet": (ALEXNET, (2048,)), "vgg11": (STRIDED_VGG11, (4096, 4096))}
    layers, hidden = sizes[experiment.architecture]
    return models.strided_net(layers=layers, hidden=hidden, dropout=experiment.dropout, rngs=rngs)


def adam(experiment, schedule):
    """Adam with the decay added to the gradient, as torch's, of all parameters."""
    return optax.chain(optax.add_decayed_weights(experiment.weight_decay), optax.adam(schedule))


def config():
    """The experiment."""
    return RectifiedCIFAR(
        name="ptl_cifar",
        network=network,
        dataset=dataset,
        encode=encode,
        optimizer=adam,
        schedule=functools.partial(training.optimizer.multistep, milestones=()),
        timesteps=1,
        batch=512,
        epochs=100,
        learning_rate=1e-3,
        weight_decay=1e-5,
    )
