"""DSR: PreAct-ResNet-18 on CIFAR-10 and CIFAR-100, the paper's recipe.

Paper: Meng, Xiao, Yan, Wang, Lin, Luo, "Training High-Performance Low-Latency Spiking Neural
Networks by Differentiation on Spike Representation", 2022, arXiv:2205.00459.
Network: `models.dsr_resnet`; T = 20, LIF with dt .05, V .3, a .3, or IF with V 6, a .5; SGD .1,
momentum .9, weight decay 5e-4, batch 128, 200 epochs, warm-up over 400 steps, cosine; random crop
with padding 4, mirroring.
Left out: the released code overwrites a threshold below its bound; here the bound acts in the
forward pass.

Hardware: a GPU
Time: ours: not run (needs a GPU)
Expected: published, LIF, T = 20: 95.40 % on CIFAR-10, 78.50 % on CIFAR-100; at T = 5 about 94.45 %.
    Ours: not run (needs a GPU)
Command: snnjax train experiments/dsr_cifar.py --data-dir "$SNNJAX_DATA"
    neurons without a leak: --neuron if    --source cifar100
"""

import dataclasses
import functools

from snnjax import data, encoding, learning, models, readout, training

# Mean and deviation of the pixels, as released.
PIXELS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RateCIFAR(training.Experiment):
    """Fields of this experiment."""

    source: str = "cifar10"
    neuron: str = "lif"  # or "if"


def dataset(experiment):
    """50,000 and 10,000 images `[N, 32, 32, 3]`."""
    return data.load(experiment.source, data_dir=experiment.data_dir)


def encode(experiment, inputs, key):
    """Standardised image at every timestep, `[T, B, 32, 32, 3]`; augmented in training."""
    if key is not None:
        inputs = data.augmentation.crop_and_flip(key, inputs)
    mean, deviation = PIXELS[experiment.source]
    images = data.rescale(inputs, 1 / 255, mean=mean, deviation=deviation)
    return encoding.direct(images, timesteps=experiment.timesteps)


def rate_model(experiment):
    """Neurons of the paper, with its constants for T = 20."""
    neurons = {"if": learning.dsr_if_model, "lif": learning.dsr_lif_model}
    return neurons[experiment.neuron]()


def network(experiment, rngs):
    """PreAct-ResNet-18."""
    return models.dsr_resnet(
        classes=100 if experiment.source == "cifar100" else 10,
        neuron=lambda: learning.RateNeuron(rate_model(experiment), learn=("threshold",)),
        rngs=rngs,
    )


def task(experiment):
    """Classification of the rates of the last neurons."""
    rates = functools.partial(readout.decayed_rate, decay=rate_model(experiment).decay)
    return training.task.classification(dataclasses.replace(experiment, readout=rates))


def config():
    """The experiment, with the paper's recipe."""
    return RateCIFAR(
        name="dsr_cifar",
        network=network,
        dataset=dataset,
        encode=encode,
        task=task,
        optimizer=functools.partial(training.optimizer.sgd, decays=lambda params: True),
        timesteps=20,
        batch=128,
        epochs=200,
        learning_rate=0.1,
        warmup_epochs=400 / 390,
        weight_decay=5e-4,
    )
