"""CIFAR-10 and CIFAR-100 with RevSFormer 2-384 and 4-384: the paper's recipe, for a GPU.

Paper: Zhang and Zhang, "Memory-Efficient Reversible Spiking Neural Networks", 2024,
arXiv:2312.07922; the recipe is that of its released code.
Data: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. In training a flip,
RandAugment (one operation, magnitude 9, deviation 0.4), standardised, a quarter of the images
erased in part, mixup of 0.5 until epoch 200.
Network: four timesteps of direct coding - tokenizer (32x32 to 64 tokens) - `--depth` reversible
blocks of spiking attention and MLP, `--width` wide, 12 heads (CIFAR-100: 8) - rate readout.
`--baseline` trains the counterpart instead, Spikingformer. Streams are on a grid of 12 binary
places, with the stored gradient bit for bit; `--bits None` selects floating streams, as in the
paper.
Recipe: AdamW, learning rate 1e-5 rising to 5e-4 over 20 epochs, half a cosine to 1e-5 until epoch
300, then 10 epochs at 1e-5; decay 0.06 of kernels, label smoothing 0.1, batch 64, float32, seed 42.
Left out: the released code changes the learning rate once per epoch, here every step, and starts
its cosine during the warm-up; it interpolates RandAugment's geometry bicubically, here linearly; it
erases after mixing, here before, with the same colour; it updates the statistics inside reversible
blocks twice per step, here once. It reports the best epoch, chosen on the test images; `snnjax
train` reports the last epoch, and the best one separately.

Hardware: a GPU
Time: ours: not run (needs a GPU)
Expected: published test accuracy (README of the released code):
        RevSFormer-2-384   CIFAR-10 95.29 %   CIFAR-100 78.04 %
        RevSFormer-4-384   CIFAR-10 95.34 %   CIFAR-100 79.04 %
    Ours: not run (needs a GPU)
Command: snnjax train experiments/rev_sformer_cifar.py --data-dir "$SNNJAX_DATA"
    deeper: --depth 4;  counterpart: --baseline;  100 classes: --source cifar100 --heads 8
"""

import dataclasses

import jax

from snnjax import data, encoding, models, training

CLASSES = {"cifar10": 10, "cifar10_jpeg": 10, "cifar100": 100}
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # as released
FILL = tuple(float(round(255 * mean)) for mean in MEAN)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RevSFormerCIFAR(training.Experiment):
    """Fields of this experiment."""

    source: str = "cifar10"
    depth: int = 2
    width: int = 384
    heads: int = 12
    baseline: bool = False
    bits: int | None = 12
    cooldown_epochs: int = 10


def dataset(experiment):
    """50,000 and 10,000 images `[N, 32, 32, 3]`."""
    return data.load(experiment.source, data_dir=experiment.data_dir)


def encode(experiment, inputs, key):
    """Standardised image as a constant current, `[T, B, 32, 32, 3]`."""
    if key is not None:
        flip, change, erase = jax.random.split(key, 3)
        inputs = data.augmentation.random_flip(flip, inputs)
        inputs = data.augmentation.rand_augment(change, inputs, count=1, deviation=0.4, fill=FILL)
    images = data.rescale(inputs, 1 / 255, mean=MEAN, deviation=DEVIATION)
    if key is not None:
        images = data.augmentation.random_erasing(erase, images)
    return encoding.direct(images, timesteps=experiment.timesteps)


def network(experiment, rngs):
    """Reversible network, or its counterpart with about as many parameters."""
    sizes = {name: getattr(experiment, name) for name in ("depth", "width", "heads")}
    sizes["classes"] = CLASSES[experiment.source]
    if experiment.baseline:
        return models.spikingformer(rngs=rngs, **sizes)
    return models.rev_sformer(bits=experiment.bits, rngs=rngs, **sizes)


def schedule(experiment, steps):
    """Warm-up, half a cosine, cool-down."""
    return training.optimizer.warmup_cosine(
        experiment, steps, start=1e-5, floor=1e-5, cooldown_epochs=experiment.cooldown_epochs
    )


def config():
    """The recipe for CIFAR-10."""
    return RevSFormerCIFAR(
        name="rev_sformer_cifar",
        network=network,
        dataset=dataset,
        encode=encode,
        schedule=schedule,
        timesteps=4,
        batch=64,
        epochs=310,
        learning_rate=5e-4,
        warmup_epochs=20,
        weight_decay=0.06,
        label_smoothing=0.1,
        mixup=0.5,
        mixup_epochs=200,
        seed=42,
    )
