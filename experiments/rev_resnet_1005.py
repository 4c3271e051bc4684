"""A reversible spiking network of 1,005 layers, trained on the embedded digits within a gigabyte.

Paper: Zhang and Zhang, "Memory-Efficient Reversible Spiking Neural Networks", 2024,
arXiv:2312.07922: the backward pass reconstructs the activations of a stage from its output, so
depth costs parameters, not activations.
Network: two stages of 125 blocks with four convolutions each, 1,465,082 parameters; on the grid the
gradient equals the stored one. Branches start at scale 0.05: at full scale the sum of 250 branches
dominates the image.

Hardware: 2 CPU cores, busy with other work (float32, jax 0.10.2, flax 0.12.8)
Time: 2.5 minutes for 44 steps of 64 images, T = 2, and 20 s to compile
Expected: 95.6 % test accuracy (measured once, seed 0: 95.56 %); mean loss 1.56 over the first 20
    steps, 0.69 over the next; 0.73 GB resident at most, 0.19 GB of which is an interpreter with jax
Command: snnjax train experiments/rev_resnet_1005.py

XLA's temporary bytes of a train step, as printed and drawn by `snnjax memory
experiments/rev_resnet_1005.py --depths 2,8,32,125`; under reverse only gradients and statistics of
additional parameters grow:

    blocks per stage        2         8         32        125
    depth=store            16.4 MB   45.4 MB   159.9 MB   607.1 MB
    depth=recompute(1)      6.0       9.7       29.5      106.2
    depth=reverse           3.2       3.4        6.1       23.6
"""

import dataclasses
import functools

from snnjax import data, encoding, models, nn, training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Deep(training.Experiment):
    """Fields of this experiment.

    Attributes:
        depth: Blocks in each of the two stages; 8 * depth + 5 layers.
    """

    depth: int = 125


def dataset(experiment):
    """1,437 and 360 images `[N, 8, 8, 1]`."""
    return data.load("digits", data_dir=experiment.data_dir)


def encode(experiment, inputs, key):
    """Image as a constant current, `[T, B, 8, 8, 1]`."""
    del key
    return encoding.direct(data.rescale(inputs, 1 / 16), timesteps=experiment.timesteps)


def network(experiment, rngs):
    """Reversible network with streams of 8 and 16 channels."""
    return models.rev_resnet(
        halves=(8, 16),
        blocks=(experiment.depth, experiment.depth),
        input_shape=(8, 8, 1),
        last_norm=functools.partial(nn.BatchNorm, scale=0.05),
        rngs=rngs,
    )


def config():
    """The experiment."""
    return Deep(
        name="rev_resnet_1005",
        network=network,
        dataset=dataset,
        encode=encode,
        timesteps=2,
        batch=64,
        epochs=2,
        learning_rate=5e-3,
        clip_norm=1.0,
    )
