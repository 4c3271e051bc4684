"""CIFAR-10 with a slim RevSResNet: three reversible stages, two timesteps, minutes on a CPU.

Data: the JPEG copy (quality 75) of CIFAR-10, whose accuracies may differ from CIFAR-10's by a per
cent; `--source cifar10` is the original. Krizhevsky, "Learning Multiple Layers of Features from
Tiny Images", 2009.
Network: each 2x2 patch of the image becomes the 12 channels of a pixel (nothing is lost, 16x16
remain) - RevSResNet with halves of 16, 32 and 64 channels, one block each - rate readout; after
Zhang and Zhang, "Memory-Efficient Reversible Spiking Neural Networks", 2024, arXiv:2312.07922,
whose RevSResNet21 has 11 million parameters.

Hardware: one CPU core, shared with other work (float32, jax 0.10.2, flax 0.12.8)
Time: 21 minutes of processor time (32 on the clock of that busy core); on two free cores 0.15 s a
    step, 16 minutes for all
Expected: 67.2 % test accuracy (measured once, seed 0: 67.17 %; 64.7 % after five of eight epochs).
    With `--memory depth=store` the loss, accuracy and gradient norm of every logged step are the
    same to the last bit (compared over the first 660 steps)
Command: snnjax train experiments/rev_resnet_cifar10.py --data-dir "$SNNJAX_DATA"
"""

import dataclasses

from snnjax import data, encoding, models, training

MEAN, DEVIATION = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)  # of the training pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlimRevSResNet(training.Experiment):
    """Fields of this experiment."""

    source: str = "cifar10_jpeg"
    halves: tuple[int, ...] = (16, 32, 64)
    blocks: tuple[int, ...] = (1, 1, 1)


def dataset(experiment):
    """50,000 and 10,000 images `[N, 32, 32, 3]`."""
    return data.load(experiment.source, data_dir=experiment.data_dir)


def encode(experiment, inputs, key):
    """Standardised 2x2 patches as a constant current, `[T, B, 16, 16, 12]`."""
    images = data.rescale(inputs, 1 / 255, mean=MEAN, deviation=DEVIATION)
    if key is not None:
        images = data.augmentation.crop_and_flip(key, images)
    return encoding.direct(data.patches(images), timesteps=experiment.timesteps)


def network(experiment, rngs):
    """Slim form of the published network."""
    return models.rev_resnet(
        halves=experiment.halves,
        blocks=experiment.blocks,
        input_shape=(16, 16, 12),
        static=True,
        rngs=rngs,
    )


def config():
    """The experiment."""
    return SlimRevSResNet(
        name="rev_resnet_cifar10",
        network=network,
        dataset=dataset,
        encode=encode,
        timesteps=2,
        batch=64,
        epochs=8,
        learning_rate=2e-3,
        warmup_epochs=0.3,
        weight_decay=1e-3,
        clip_norm=1.0,
    )
