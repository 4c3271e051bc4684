"""CIFAR-10 and CIFAR-100 with EfficientLIF-Net: the recipe of the released code, for a GPU.

Paper: Kim, Li, Moitra, Yin, Panda, "Sharing Leaky-Integrate-and-Fire Neurons for Memory-Efficient
Spiking Neural Networks", 2023, arXiv:2305.18360.
Data: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; `--source cifar100`
has 100 classes. In training a random crop (4 pixels of black around) and a flip; standardised.
Network: five timesteps, the first convolution and norm computed once per image; ResNet19 (26.1
million parameters) or, `--architecture vgg16`, VGG16 (14.9 million), rate readout. `--sharing` is
`none`, `channel`, `layer` or `both`, on one set of widths with one reset; `--compat` uses the
released networks, whose unshared variant has other widths and another reset.
Recipe: SGD with momentum 0.9, learning rate 0.1 falling to 0 as half a cosine over 300 epochs,
decay 5e-4 of every parameter, batch 128 (learning rate and batch of its README; its config says 0.2
and 256).
Left out: the released code updates the learning rate once per epoch, here every step; it draws its
convolutions by their fan-out and its last layer with a deviation of 0.01, here both by their
fan-in. Batch statistics are those of one timestep, as in the released code.

Hardware: a GPU
Time: ours: not run (needs a GPU)
Expected: published: accuracy "comparable" to the unshared network; we could read no number.
    Ours: not run (needs a GPU)
Command: snnjax train experiments/efficient_lif_cifar.py --data-dir "$SNNJAX_DATA"
    unshared: --sharing none;  100 classes: --source cifar100;  VGG16: --architecture vgg16
    less memory, the same gradient: --memory "time=recompute(5)"
"""

import dataclasses

import jax.numpy as jnp

from snnjax import data, encoding, models, training

CLASSES = {"cifar10": 10, "cifar10_jpeg": 10, "cifar100": 100}
COLOURS = {
    10: ((0.4913, 0.4821, 0.4465), (0.2023, 0.1994, 0.2010)),
    100: ((0.5071, 0.4867, 0.4408), (0.2673, 0.2564, 0.2762)),
}  # mean and deviation, as released
NETWORKS = {"resnet19": models.efficient_lif_resnet, "vgg16": models.efficient_lif_vgg}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EfficientLIFCIFAR(training.Experiment):
    """Fields of this experiment."""

    source: str = "cifar10"
    architecture: str = "resnet19"
    sharing: str = "both"
    groups: int = 2
    compat: bool = False


def dataset(experiment):
    """50,000 and 10,000 images `[N, 32, 32, 3]`."""
    return data.load(experiment.source, data_dir=experiment.data_dir)


def encode(experiment, inputs, key):
    """Standardised image as a constant current, `[T, B, 32, 32, 3]`."""
    if key is not None:
        inputs = data.augmentation.crop_and_flip(key, inputs)
    mean, deviation = COLOURS[CLASSES[experiment.source]]
    images = (data.rescale(inputs, 1 / 255) - jnp.array(mean)) / jnp.array(deviation)
    return encoding.direct(images, timesteps=experiment.timesteps)


def network(experiment, rngs):
    """One network for all kinds of sharing, or the released networks."""
    classes = CLASSES[experiment.source]
    options = {"groups": experiment.groups, "classes": classes, "rngs": rngs}
    if experiment.compat:
        return models.efficient_lif_compat(
            experiment.architecture, variant=experiment.sharing, **options
        )
    return NETWORKS[experiment.architecture](sharing=experiment.sharing, **options)


def optimizer(experiment, schedule):
    """SGD with momentum and decay of every parameter."""
    return training.optimizer.sgd(experiment, schedule, decays=lambda params: True)


def config():
    """The recipe."""
    return EfficientLIFCIFAR(
        name="efficient_lif_cifar",
        network=network,
        dataset=dataset,
        encode=encode,
        optimizer=optimizer,
        timesteps=5,
        batch=128,
        epochs=300,
        learning_rate=0.1,
        weight_decay=5e-4,
    )
