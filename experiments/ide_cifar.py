"""IDE: AlexNet-F and CIFARNet-F on CIFAR-10 and CIFAR-100, the paper's recipe.

Paper: Xiao, Meng, Zhang, Wang, Lin, "Training Feedback Spiking Neural Networks by Implicit
Differentiation on the Equilibrium State", 2021, arXiv:2109.14247.
Network: five convolutions with batch norm, a transposed convolution of spectral norm at most 1 from
the last to the first, dropout .2 with one mask per example; SGD .05, momentum .9, weight decay
5e-4, batch 128, 100 epochs, linear warm-up over 400 steps, rate x0.1 after 50 and 75 %; random crop
with padding 4, mirroring.
Left out: the released code updates the input layer's statistics twice per step and estimates the
norm of the feedback weight from a random start; it solves by Broyden's method.

Hardware: a GPU
Time: ours: not run (needs a GPU)
Expected: published, AlexNet-F on CIFAR-10, T = 30: IF 91.73 +- .13, LIF (decay .99) 91.74 +- .09 %;
    T = 100: 92.25 +- .27, 92.03 +- .07 %. CIFARNet-F: 91.94 +- .14, 92.08 +- .15 % at T = 30.
    CIFAR-100, CIFARNet-F, T = 30: 71.56 +- .31, 71.72 +- .22 %.
    Ours: not run (needs a GPU)
Command: snnjax train experiments/ide_cifar.py --data-dir "$SNNJAX_DATA"
    leaky neurons: --decay 0.99    larger: --architecture cifarnet    --source cifar100
"""

import dataclasses
import functools

from snnjax import data, learning, models, training
from snnjax.models.feedback_net import ALEXNET_F, CIFARNET_F

MEAN = (0.4914, 0.4822, 0.4465)
DEVIATION = (0.2023, 0.1994, 0.2010)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeedbackCIFAR(training.Experiment):
    """Fields of this experiment."""

    source: str = "cifar10"
    architecture: str = "alexnet"  # or "cifarnet"
    decay: float = 1.0
    milestones: tuple[float, ...] = (0.5, 0.75)  # of the run, where the learning rate falls


def dataset(experiment):
    """50,000 and 10,000 images `[N, 32, 32, 3]`."""
    return data.load(experiment.source, data_dir=experiment.data_dir)


def encode(experiment, inputs, key):
    """Standardised image as a constant current, `[1, B, 32, 32, 3]`; augmented in training."""
    if key is not None:
        inputs = data.augmentation.crop_and_flip(key, inputs)
    return data.rescale(inputs, 1 / 255, mean=MEAN, deviation=DEVIATION)[None]


def network(experiment, rngs):
    """AlexNet-F or CIFARNet-F."""
    stages = {"alexnet": ALEXNET_F, "cifarnet": CIFARNET_F}[experiment.architecture]
    return models.feedback_net(
        (32, 32, 3),
        stages=stages,
        classes=100 if experiment.source == "cifar100" else 10,
        timesteps=experiment.timesteps,
        neuron=learning.lif_rate_model(threshold=2.0, decay=experiment.decay),
        solver=learning.solvers.neumann(iterations=30),
        rngs=rngs,
    )


def config():
    """The experiment, with the paper's recipe."""
    return FeedbackCIFAR(
        name="ide_cifar",
        network=network,
        dataset=dataset,
        encode=encode,
        schedule=training.optimizer.multistep,
        optimizer=functools.partial(training.optimizer.sgd, decays=lambda params: True),
        timesteps=30,
        batch=128,
        epochs=100,
        learning_rate=0.05,
        warmup_epochs=400 / 390,  # 400 steps
        weight_decay=5e-4,
    )
