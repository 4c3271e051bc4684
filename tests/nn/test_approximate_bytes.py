"""Bytes of SLTT on the VGG of CIFAR10-DVS, compiled as a gradient and not run."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from snnjax import losses, memory, models, nn

SHAPE, BATCH, STEPS = (48, 48, 2), 16, 6
STAGES = ((64, 128), (256, 256), (512, 512), (512, 512))


def loss(graphdef, params, constants, frames, labels):
    net = nn.merge(graphdef, params, constants)
    outputs, aux = net(frames, net.initial_state(BATCH), training=True)
    return losses.mean(losses.rate_cross_entropy(outputs, labels)), aux.statistics


def temp_bytes(order, strategy):
    """Arrays of parameters are shapes: the network has 9 million."""
    norm = functools.partial(nn.BatchNorm, over="step")
    make = lambda: models.vgg(  # noqa: E731
        stages=STAGES, input_shape=SHAPE, norm=norm, pool=nn.AvgPool, order=order,
        memory=strategy, rngs=nnx.Rngs(0),
    )  # fmt: skip
    graphdef, params, constants = nn.split(nnx.eval_shape(make))
    frames = jax.ShapeDtypeStruct((STEPS, BATCH, *SHAPE), jnp.float32)
    labels = jax.ShapeDtypeStruct((BATCH,), jnp.int32)
    gradient = jax.jit(jax.grad(functools.partial(loss, graphdef), has_aux=True))
    return memory.measure(gradient, params, constants, frames, labels).temp_bytes


@pytest.mark.slow  # compiles three convolutional networks of nine layers
def test_sltt_holds_less_than_a_third_of_store_at_six_timesteps():
    store = memory.Strategy(time=memory.store)
    layered, timed = (temp_bytes(order, store) for order in ("layer", "time"))
    sltt = temp_bytes("time", memory.Strategy(time=memory.sltt()))
    print(f"store {layered:,} (layer order) {timed:,} (time order), sltt {sltt:,}")
    assert sltt < 0.3 * min(layered, timed)
