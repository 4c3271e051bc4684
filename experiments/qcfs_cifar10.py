"""QCFS: a slim VGG on CIFAR-10, to be converted into a spiking network; minutes on a CPU.

Paper: Bu, Fang, Ding, Dai, Yu, Huang, "Optimal ANN-SNN Conversion for High-accuracy and
Ultra-low-latency Spiking Neural Networks", 2022, arXiv:2303.04347 (not this network).
Data: the JPEG copy (quality 75) of CIFAR-10, whose accuracies may differ from CIFAR-10's by a per
cent; `--source cifar10` is the original. Krizhevsky, "Learning Multiple Layers of Features from
Tiny Images", 2009.
Network: VGG-11 without its last stage and at an eighth of its widths, mean pools, quantised
activations of L = 4 levels and trained thresholds; one timestep. `qcfs_cifar.py` has the paper's.

Hardware: 2 CPU cores, busy with other work (float32, jax 0.10.2, flax 0.12.8)
Time: 12 minutes of processor time (38 on the clock of those busy cores)
Expected: measured once, seed 0, JPEG copy, all 10,000 test images: source 75.04 %; spiking,
    T = 1/2/4/8/16 50.26/60.71/69.80/74.61/75.87 %
Command: snnjax train experiments/qcfs_cifar10.py --data-dir "$SNNJAX_DATA" --out runs/qcfs_cifar10
    snnjax convert runs/qcfs_cifar10 --timesteps 1,2,4,8,16
"""

import dataclasses
import functools

from snnjax import conversion, data, encoding, models, nn, training

MEAN, DEVIATION = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)  # of the training pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlimQuantizedVGG(training.Experiment):
    """Fields of this experiment."""

    source: str = "cifar10_jpeg"
    width: int = 8  # of the first stage
    levels: int = 4
    threshold: float = 2.0  # at the start


def dataset(experiment):
    """50,000 and 10,000 images `[N, 32, 32, 3]`."""
    return data.load(experiment.source, data_dir=experiment.data_dir)


def encode(experiment, inputs, key):
    """Standardised image as a constant current, `[T, B, 32, 32, 3]`; augmented in training."""
    if key is not None:
        inputs = data.augmentation.crop_and_flip(key, inputs)
    images = data.rescale(inputs, 1 / 255, mean=MEAN, deviation=DEVIATION)
    return encoding.direct(images, timesteps=experiment.timesteps)


def network(experiment, rngs):
    """Six convolutions and one linear layer."""
    width = experiment.width
    return models.vgg(
        stages=((width,), (2 * width,), (4 * width,) * 2, (8 * width,) * 2),
        neuron=functools.partial(
            conversion.QCFS, levels=experiment.levels, threshold=experiment.threshold
        ),
        pool=nn.AvgPool,
        rngs=rngs,
    )


def config():
    """The experiment."""
    return SlimQuantizedVGG(
        name="qcfs_cifar10",
        network=network,
        dataset=dataset,
        encode=encode,
        optimizer=functools.partial(training.optimizer.sgd, decays=lambda params: True),
        timesteps=1,
        batch=128,
        eval_batch=500,
        epochs=12,
        learning_rate=0.1,
        weight_decay=5e-4,
    )
