"""DSR: PreAct-ResNet-18 on ImageNet, the recipe of the released code without its trained start.

Paper: Meng, Xiao, Yan, Wang, Lin, Luo, "Training High-Performance Low-Latency Spiking Neural
Networks by Differentiation on Spike Representation", 2022, arXiv:2205.00459.
Data: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", 2014,
arXiv:1409.0575; files in folders of their classes (`data.load("imagenet")`), decoded batch by
batch. In training a random crop of 8 % to 100 % at 224x224 and a flip; in evaluation the central
224 of 256 pixels; standardised.
Network: `models.dsr_resnet(large=True)`; T = 50, IF with V 6, a .5, gradient of V times 0.001.
Recipe: Adam, learning rate 1e-3, no decay, batch 144, 90 epochs, warm-up over 5,000 steps, cosine.
Left out: the trained start. The released code trains the network with ReLU first (SGD .1, decay
1e-4, batch 256), takes its weights, and for every V the 99.9th percentile of the layer's inputs in
5 batches; here both start as without it, weights at random and V at 6. Convolutions are drawn with
their fan-in, as released with their fan-out. The cosine changes every step, as released every
epoch.

Hardware: GPUs; every layer keeps trains of 50 timesteps, `--accumulate 9` those of a ninth of the
    batch at a time
Time: ours: not run (needs a GPU)
Expected: published: we could read no accuracy. Ours: not run (needs a GPU, and the data set)
Command: snnjax train experiments/dsr_imagenet.py --data-dir "$SNNJAX_DATA"
"""

import dataclasses
import functools

import optax

from snnjax import data, encoding, learning, models, training

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RateImageNet(training.Experiment):
    """Fields of this experiment."""

    pixels: int = 224
    resize: int = 256
    threshold_gradient: float = 0.001


def dataset(experiment):
    """1,281,167 and 50,000 images `[N, 224, 224, 3]`, decoded batch by batch."""
    found = data.load("imagenet", data_dir=experiment.data_dir)
    return data.with_image_view(found, size=experiment.pixels, resize=experiment.resize)


def encode(experiment, inputs, key):
    """Standardised image at every timestep, `[T, B, 224, 224, 3]`; mirrored in training."""
    if key is not None:
        inputs = data.augmentation.random_flip(key, inputs)
    images = data.rescale(inputs, 1 / 255, mean=MEAN, deviation=DEVIATION)
    return encoding.direct(images, timesteps=experiment.timesteps)


def network(experiment, rngs):
    """PreAct-ResNet-18 for large images."""
    model = learning.dsr_if_model(threshold_gradient=experiment.threshold_gradient)
    return models.dsr_resnet(
        classes=1000,
        input_shape=(experiment.pixels, experiment.pixels, 3),
        large=True,
        neuron=functools.partial(learning.RateNeuron, model, learn=("threshold",)),
        rngs=rngs,
    )


def optimizer(experiment, schedule):
    """Adam without decay."""
    del experiment
    return optax.adam(schedule)


def config():
    """The recipe for PreAct-ResNet-18."""
    return RateImageNet(
        name="dsr_imagenet",
        network=network,
        dataset=dataset,
        encode=encode,
        optimizer=optimizer,
        timesteps=50,
        batch=144,
        epochs=90,
        learning_rate=1e-3,
        warmup_epochs=5000 / 8896,  # 5,000 steps
    )
