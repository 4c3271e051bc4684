"""Source networks of the tests: small ones, and digits classifiers trained once per session."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from snnjax import conversion, data, models, nn

ACTIVATIONS = {
    "relu": conversion.ReLU,
    "threshold": conversion.ThresholdReLU,
    "qcfs": lambda: conversion.QCFS(levels=4, threshold=4.0),
}


def images(name, count):
    """Digits `[count, 64]` in [0, 1] and labels."""
    split = getattr(data.load("digits"), name)
    inputs = np.asarray(split.inputs[:count], np.float32) / 16
    return jnp.asarray(inputs).reshape(count, 64), split.labels[:count]


@functools.cache
def trained(name, steps=500):
    """MLP 64-128-128-10 with activations of a kind, trained on the digits."""
    net = models.mlp((64,), hidden=(128, 128), rngs=nnx.Rngs(0), neuron=ACTIVATIONS[name])
    graphdef, params, constants = nn.split(net)
    inputs, labels = images("train", 1437)
    optimizer = optax.adam(2e-3)

    @jax.jit
    def train(params, inputs, labels):
        def loss(params, x, y):
            net = nn.merge(graphdef, params, constants)
            logits = net(x[None], net.initial_state(len(x)), training=True)[0][0]
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        def step(carry, key):
            params, slots = carry
            pick = jax.random.choice(key, len(inputs), (128,))
            gradient = jax.grad(loss)(params, inputs[pick], labels[pick])
            # optax raises a float to an integer power.
            with jax.numpy_dtype_promotion("standard"):
                updates, slots = optimizer.update(gradient, slots, params)
            return (optax.apply_updates(params, updates), slots), None

        keys = jax.random.split(jax.random.key(0), steps)
        return jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0]

    return nn.merge(graphdef, train(params, inputs, jnp.asarray(labels)), constants)


def logits(net, inputs, statistics=None):
    """Outputs of a source `[B, K]`."""
    state = net.initial_state(len(inputs), statistics=statistics)
    return net(inputs[None], state, training=False)[0][0]
