"""Optimal conversion on CIFAR-10 and CIFAR-100: VGG-16, ResNet-20 and CIFARNet, for a GPU.

Paper: Deng, Gu, "Optimal Conversion of Conventional Artificial Neural Networks to Spiking Neural
Networks", 2021, arXiv:2103.00476; the recipe is that of its released code. Data: Krizhevsky,
"Learning Multiple Layers of Features from Tiny Images", 2009.
Network: without batch norm, mean pools, rectifiers clipped at 1; one timestep. "ResNet20" has three
convolutions in front of the stages of a ResNet-18, and no biases.
Recipe: stochastic gradient descent at 1e-3, momentum .9, decay 5e-4 of every parameter, a tenth
after epochs 100 and 140 of 200, batches of 128; crops and mirror images.
Left out: the released code shifts no neurons behind a sum of two paths, here all are shifted. Its
initial weights of VGG-16 are torch's, here those of He et al., which the author advises.

Hardware: a GPU
Time: ours: not run (needs a GPU)
Expected: published accuracies stand in the paper alone, which was not at hand.
    Ours: not run (needs a GPU)
Command: snnjax train experiments/optimal_cifar.py --data-dir "$SNNJAX_DATA"
    snnjax convert runs/optimal_cifar-0 --method optimal --shift step --last spiking --timesteps 64
    others: --architecture resnet20 or cifarnet    --source cifar100
"""

import dataclasses
import functools

from snnjax import conversion, data, encoding, models, nn, training
from snnjax.models.vgg import VGG16_POINTWISE

# Mean and deviation of the pixels.
PIXELS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}
CIFARNET = ((128, 256), (512,), (1024, 512))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClippedCIFAR(training.Experiment):
    """Fields of this experiment."""

    source: str = "cifar10"
    architecture: str = "vgg16"  # or "resnet20", "cifarnet"
    threshold: float = 1.0


def dataset(experiment):
    """50,000 and 10,000 images `[N, 32, 32, 3]`."""
    return data.load(experiment.source, data_dir=experiment.data_dir)


def encode(experiment, inputs, key):
    """Standardised image as a constant current, `[T, B, 32, 32, 3]`; augmented in training."""
    if key is not None:
        inputs = data.augmentation.crop_and_flip(key, inputs)
    mean, deviation = PIXELS[experiment.source]
    images = data.rescale(inputs, 1 / 255, mean=mean, deviation=deviation)
    return encoding.direct(images, timesteps=experiment.timesteps)


def network(experiment, rngs):
    """The released architectures."""
    vgg = functools.partial(models.vgg, pool=nn.AvgPool)
    make = {
        "vgg16": functools.partial(vgg, stages=VGG16_POINTWISE, hidden=(4096, 4096)),
        "cifarnet": functools.partial(vgg, stages=CIFARNET, hidden=(1024, 512)),
        "resnet20": functools.partial(models.resnet, stem="three", bias=False, dropout=0.2),
    }
    return make[experiment.architecture](
        classes=100 if experiment.source == "cifar100" else 10,
        neuron=functools.partial(conversion.ThresholdReLU, threshold=experiment.threshold),
        norm=None,
        flatten=True,
        rngs=rngs,
    )


def config():
    """The experiment, with the released recipe."""
    return ClippedCIFAR(
        name="optimal_cifar",
        network=network,
        dataset=dataset,
        encode=encode,
        optimizer=functools.partial(training.optimizer.sgd, decays=lambda params: True),
        schedule=functools.partial(training.optimizer.multistep, milestones=(0.5, 0.7)),
        timesteps=1,
        batch=128,
        epochs=200,
        learning_rate=1e-3,
        weight_decay=5e-4,
    )
