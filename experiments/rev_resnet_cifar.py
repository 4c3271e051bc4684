"""CIFAR-10 and CIFAR-100 with RevSResNet 21, 37 and 109: the paper's recipe, for a GPU.

Paper: Zhang and Zhang, "Memory-Efficient Reversible Spiking Neural Networks", 2024,
arXiv:2312.07922; the recipe is that of its released code.
Data: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. In training a
random crop (4 pixels of black around) and a flip; standardised by the code's own deviations, which
are more than twice those of the pixels.
Network: four timesteps, the first convolution and norm computed once per image; integrate-and-fire
neurons; rate readout. `--baseline` trains the counterpart instead, MS-ResNet 18, 34 or 104 (its
first convolution is computed at every timestep, with the same values up to rounding). Streams are
on a grid of 12 binary places, with the stored gradient bit for bit; `--bits None` selects floating
streams, as in the paper.
Recipe: SGD with momentum 0.9, learning rate 0.1, times 0.1 at epochs 100 and 150 (CIFAR-100: 60,
120, 160) of 200, decay 1e-4 of every parameter, batch 32, float32, seed 2020 (CIFAR-100: 2023).
Left out: the released code draws its convolutions with their fan-out, here with their fan-in; it
updates the statistics inside reversible stages twice per step, here once. Its baseline has a neuron
before each convolution of a shortcut, ours has none. It reports the best epoch, chosen on the test
images; `snnjax train` reports the last epoch, and the best one separately.

Hardware: a GPU
Time: ours: not run (needs a GPU)
Expected: published test accuracy (README of the released code; ParaRevSNN: its repetition, 2025,
    arXiv:2508.01223):
        RevSResNet21   CIFAR-10 94.53 %   CIFAR-100 75.46 %     ParaRevSNN 94.57 %, 75.71 %
        RevSResNet37   CIFAR-10 94.77 %   CIFAR-100 76.34 %     ParaRevSNN 95.04 %, 76.22 %
        MS-ResNet18    ParaRevSNN 94.33 %, 75.14 %
        MS-ResNet34    ParaRevSNN 94.82 %, 75.39 %
    Ours: not run (needs a GPU). RevSResNet109: we could read no number
Command: snnjax train experiments/rev_resnet_cifar.py --data-dir "$SNNJAX_DATA"
    deeper: --depth 37;  counterpart: --baseline
    100 classes: --source cifar100 --milestones 0.3 0.6 0.8 --seed 2023
"""

import dataclasses
import functools

from snnjax import data, encoding, models, neurons, nn, training

CLASSES = {"cifar10": 10, "cifar10_jpeg": 10, "cifar100": 100}
COUNTERPARTS = {21: 18, 37: 34, 109: 104}
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.557, 0.549, 0.5534)  # as released
integrate_and_fire = functools.partial(nn.IF, reset=neurons.reset.detached(neurons.reset.zero))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RevSResNetCIFAR(training.Experiment):
    """Fields of this experiment."""

    source: str = "cifar10"
    depth: int = 21
    baseline: bool = False
    bits: int | None = 12
    milestones: tuple[float, ...] = (0.5, 0.75)  # of the run


def dataset(experiment):
    """50,000 and 10,000 images `[N, 32, 32, 3]`."""
    return data.load(experiment.source, data_dir=experiment.data_dir)


def encode(experiment, inputs, key):
    """Standardised image as a constant current, `[T, B, 32, 32, 3]`."""
    if key is not None:
        inputs = data.augmentation.crop_and_flip(key, inputs)
    images = data.rescale(inputs, 1 / 255, mean=MEAN, deviation=DEVIATION)
    return encoding.direct(images, timesteps=experiment.timesteps)


def network(experiment, rngs):
    """Reversible network, or its counterpart with about as many parameters."""
    classes = CLASSES[experiment.source]
    if experiment.baseline:
        depth = COUNTERPARTS[experiment.depth]
        return models.ms_resnet(
            depth=depth,
            classes=classes,
            neuron=integrate_and_fire,
            spiking_shortcut=True,
            static=True,
            rngs=rngs,
        )
    return models.rev_resnet(
        depth=experiment.depth, classes=classes, static=True, bits=experiment.bits, rngs=rngs
    )


def optimizer(experiment, schedule):
    """SGD with momentum and decay of every parameter."""
    return training.optimizer.sgd(experiment, schedule, decays=lambda params: True)


def config():
    """The recipe for CIFAR-10."""
    return RevSResNetCIFAR(
        name="rev_resnet_cifar",
        network=network,
        dataset=dataset,
        encode=encode,
        schedule=training.optimizer.multistep,
        optimizer=optimizer,
        timesteps=4,
        batch=32,
        epochs=200,
        learning_rate=0.1,
        weight_decay=1e-4,
        seed=2020,
    )
