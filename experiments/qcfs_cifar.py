"""QCFS on CIFAR-10 and CIFAR-100: VGG-16, ResNet-18 and ResNet-20, the paper's recipe, for a GPU.

Paper: Bu, Fang, Ding, Dai, Yu, Huang, "Optimal ANN-SNN Conversion for High-accuracy and
Ultra-low-latency Spiking Neural Networks", 2022, arXiv:2303.04347; the recipe is that of its
released code and of its authors' answers there. Data: Krizhevsky, "Learning Multiple Layers of
Features from Tiny Images", 2009.
Network: `models.vgg` with two hidden layers of 4096, `models.resnet`; activations of L = 4 levels
whose thresholds start at 8; one timestep, batches of 300, 300 epochs.
Recipe: stochastic gradient descent at .1 (CIFAR-100: .02), momentum .9, a cosine, decay 5e-4 of
every parameter, thresholds too; crops, mirror images, an automatic augmentation, cutout of 16x16.
Left out: the policies that AutoAugment found for CIFAR-10; RandAugment (one operation) stands in
for them. The square cut out lies within the image, where the released one may cross its edge.

Hardware: a GPU
Time: ours: not run (needs a GPU)
Expected: published, CIFAR-10, VGG-16: source 95.52 %, T = 2/4/8/16 91.18/93.96/94.95/95.40 %.
    CIFAR-100, VGG-16, at a learning rate of .05 (released code): T = 2/4/8/64
    64.89/70.42/74.63/77.70 %. Replications of L = 8 on CIFAR-100 by others: ResNet-18, source
    79.73 %, T = 4/8/16 69.13/76.66/78.93 %; ResNet-20, source 68.1 %, T = 8/16 53.5/65.1 %.
    Ours: not run (needs a GPU)
Command: snnjax train experiments/qcfs_cifar.py --data-dir "$SNNJAX_DATA"
    snnjax convert runs/qcfs_cifar-0 --timesteps 1,2,4,8,16,32
    others: --architecture resnet18 or resnet20    --source cifar100 --learning-rate 0.02
"""

import dataclasses
import functools

import jax

from snnjax import conversion, data, encoding, models, nn, training

# Mean and deviation of the pixels, as released.
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
MEAN_100, DEVIATION_100 = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
HALF = (0.25, 0.25)  # share of the image that is cut out, a square of half its side


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizedCIFAR(training.Experiment):
    """Fields of this experiment."""

    source: str = "cifar10"
    architecture: str = "vgg16"  # or "resnet18", "resnet20"
    levels: int = 4
    threshold: float = 8.0  # at the start


def dataset(experiment):
    """50,000 and 10,000 images `[N, 32, 32, 3]`."""
    return data.load(experiment.source, data_dir=experiment.data_dir)


def encode(experiment, inputs, key):
    """Standardised image as a constant current, `[T, B, 32, 32, 3]`; augmented in training."""
    augmentation, many = data.augmentation, experiment.source == "cifar100"
    pixels = {"mean": MEAN_100 if many else MEAN, "deviation": DEVIATION_100 if many else DEVIATION}
    if key is None:
        images = data.rescale(inputs, 1 / 255, **pixels)
    else:
        shift, change, cut = jax.random.split(key, 3)
        inputs = augmentation.crop_and_flip(shift, inputs)
        inputs = augmentation.rand_augment(change, inputs, count=1)
        images = data.rescale(inputs, 1 / 255, **pixels)
        images = augmentation.random_erasing(
            cut, images, probability=1.0, area=HALF, aspect=(1.0, 1.0)
        )
    return encoding.direct(images, timesteps=experiment.timesteps)


def network(experiment, rngs):
    """The paper's architectures, with mean pools."""
    options = {
        "classes": 100 if experiment.source == "cifar100" else 10,
        "neuron": functools.partial(
            conversion.QCFS, levels=experiment.levels, threshold=experiment.threshold
        ),
        "rngs": rngs,
    }
    make = {
        "vgg16": functools.partial(models.vgg, pool=nn.AvgPool, hidden=(4096, 4096)),
        "resnet18": functools.partial(models.resnet, depth=18),
        "resnet20": functools.partial(models.resnet, depth=20),
    }
    return make[experiment.architecture](**options)


def config():
    """The experiment, with the paper's recipe."""
    return QuantizedCIFAR(
        name="qcfs_cifar",
        network=network,
        dataset=dataset,
        encode=encode,
        optimizer=functools.partial(training.optimizer.sgd, decays=lambda params: True),
        timesteps=1,
        batch=300,
        epochs=300,
        learning_rate=0.1,
        weight_decay=5e-4,
    )
