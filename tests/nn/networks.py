"""Small networks with every kind of layer that a memory strategy has to do with."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import models, nn

T, B, CLASSES = 4, 2, 3
IMAGE, FLAT = (6, 6, 2), (5,)
per_step = functools.partial(nn.BatchNorm, over="step")


def vgg(**options):
    """Max pools, which spikes pass through."""
    stages = ((3,), (4, 4))
    return models.vgg(
        stages=stages, classes=CLASSES, input_shape=IMAGE, rngs=nnx.Rngs(0), **options
    )


def averaging(**options):
    """Average pools, behind which there are no spikes; dropout."""
    return _network(
        lambda r: [
            *(nn.Conv(2, 3, rngs=r), nn.BatchNorm(3), nn.LIF(), nn.AvgPool()),
            *(nn.Conv(3, 4, rngs=r), nn.LIF(), nn.AvgPool(), nn.Flatten()),
            *(nn.Dropout(0.3), nn.Linear(4, CLASSES, rngs=r)),
        ],
        **options,
    )


def ms_resnet(**options):
    """Stacked blocks, and one between that changes the shape."""
    return models.ms_resnet(
        blocks=(2, 1), widths=(3, 4), classes=CLASSES, input_shape=IMAGE, rngs=nnx.Rngs(0),
        **options,
    )  # fmt: skip


def half(rngs):
    return nn.Sequential(nn.LIF(), nn.Conv(2, 2, rngs=rngs), nn.BatchNorm(2))


def reversible(**options):
    """A reversible stack in the middle."""
    return _network(
        lambda r: [
            *(nn.Conv(2, 4, rngs=r), nn.Reversible(half, half, 2, rngs=r), nn.LIF()),
            *(nn.Conv(4, 4, rngs=r), nn.GlobalAvgPool(), nn.Linear(4, CLASSES, rngs=r)),
        ],
        **options,
    )


def recurrent(**options):
    return _network(
        lambda r: [
            *(nn.Linear(5, 6, rngs=r), nn.Recurrent(nn.LIF(), 6, rngs=r)),
            *(nn.Linear(6, 4, rngs=r), nn.LIF(), nn.Linear(4, CLASSES, rngs=r)),
        ],
        FLAT,
        **options,
    )


def grouped(**options):
    return _network(
        lambda r: [
            *(nn.Conv(2, 4, rngs=r), nn.Grouped(nn.LIF(), 2), nn.MaxPool()),
            *(nn.Conv(4, 4, rngs=r), nn.IF(), nn.Flatten(), nn.Linear(36, CLASSES, rngs=r)),
        ],
        **options,
    )


def shared(**options):
    """Several layers with one membrane."""
    return _network(
        lambda r: [
            *(nn.Linear(5, 4, rngs=r), nn.LIF()),
            nn.Shared([nn.Linear(4, 4, rngs=r), nn.Sequential(per_step(4))], nn.LIF()),
            nn.Linear(4, CLASSES, rngs=r),
        ],
        FLAT,
        **options,
    )


def _network(layers, shape=IMAGE, **options):
    return nn.Network(nn.Sequential(*layers(nnx.Rngs(0))), shape, **options)


NETWORKS = {
    "vgg": vgg,
    "averaging": averaging,
    "ms_resnet": ms_resnet,
    "reversible": reversible,
    "recurrent": recurrent,
    "grouped": grouped,
    "shared": shared,
    "vgg in time": functools.partial(vgg, order="time", norm=per_step),
    "ms_resnet in time": functools.partial(ms_resnet, order="time", norm=per_step),
}


def inputs_of(network):
    return 1 + jax.random.normal(jax.random.key(3), (T, B, *network.input_shape))


@jax.jit
def _graded(network, inputs, state):
    def loss(network, inputs):
        outputs, aux = network(inputs, state, training=True, key=jax.random.key(4))
        return jnp.sum(jnp.sin(outputs)), (outputs, aux)

    return jax.grad(loss, (0, 1), has_aux=True)(network, inputs)


def run(network):
    """Gradients by parameters and inputs, and what a training step sees: outputs and aux."""
    gradients, seen = _graded(network, inputs_of(network), network.initial_state(B))
    return jax.tree.leaves(gradients), seen
