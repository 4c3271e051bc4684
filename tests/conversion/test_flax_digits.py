"""Networks of plain Flax, trained on the 8x8 digits, spike at nearly their accuracy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from sklearn.datasets import load_digits

from snnjax import conversion, encoding, readout


@pytest.fixture(autouse=True)
def standard_promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield


@functools.cache
def digits():
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).reshape(-1, 8, 8, 1).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(images))
    return images[order], labels[order].astype(np.int32)


def train(loss, params, rest, *, steps=80, size=100):
    """Adam on the first 1,400 digits; `loss(params, rest, x, y) -> (value, rest)`."""
    optimizer = optax.adam(4e-3)

    @jax.jit
    def step(params, rest, slots, x, y):
        gradient, rest = jax.grad(loss, has_aux=True)(params, rest, x, y)
        updates, slots = optimizer.update(gradient, slots, params)
        return optax.apply_updates(params, updates), rest, slots

    images, labels = digits()
    slots = optimizer.init(params)
    for number in range(steps):
        part = slice(number * size % 1400, number * size % 1400 + size)
        params, rest, slots = step(params, rest, slots, images[part], labels[part])
    return params, rest


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.convs = nnx.List(
            [nnx.Conv(1, 8, (3, 3), rngs=rngs), nnx.Conv(8, 16, (3, 3), rngs=rngs)]
        )
        self.norms = nnx.List([nnx.BatchNorm(c, momentum=0.9, rngs=rngs) for c in (8, 16)])
        self.head = nnx.Linear(16 * 16, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norms[0](self.convs[0](x)))
        x = nnx.avg_pool(x, (2, 2), strides=(2, 2))
        x = nnx.relu(self.norms[1](self.convs[1](x)))
        return self.head(x.reshape(x.shape[0], -1))


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x, train):
        norm = functools.partial(linen.BatchNorm, use_running_average=not train, momentum=0.9)
        x = linen.relu(norm()(linen.Conv(8, (3, 3), strides=2)(x)))
        y = linen.relu(norm()(linen.Conv(8, (3, 3))(x)))
        x = linen.relu(x + norm()(linen.Conv(8, (3, 3))(y)))
        return linen.Dense(10)(x.reshape((x.shape[0], -1)))


def trained_nnx():
    graphdef, params, rest = nnx.split(NNXNet(nnx.Rngs(0)), nnx.Param, ...)

    def loss(params, rest, x, y):
        module = nnx.merge(graphdef, params, rest, copy=True)
        value = cross_entropy(module(x), y)
        return value, nnx.split(module, nnx.Param, ...)[2]

    module = nnx.merge(graphdef, *train(loss, params, rest))
    net = conversion.from_flax(module, input_shape=(8, 8, 1))
    module.eval()
    return net, module


def trained_linen():
    module = LinenNet()
    variables = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=False)

    def loss(params, rest, x, y):
        own = {"params": params, "batch_stats": rest}
        logits, new = module.apply(own, x, train=True, mutable=["batch_stats"])
        return cross_entropy(logits, y), new["batch_stats"]

    params, rest = train(loss, variables["params"], variables["batch_stats"])
    variables = {"params": params, "batch_stats": rest}
    net = conversion.from_flax(module, variables=variables, input_shape=(8, 8, 1), train=False)
    return net, functools.partial(module.apply, variables, train=False)


@pytest.mark.parametrize("make", [trained_nnx, pytest.param(trained_linen, marks=pytest.mark.slow)])
def test_a_trained_network_of_flax_spikes_within_two_points(make):
    net, module = make()
    images, labels = digits()
    right = lambda logits: float((np.asarray(logits).argmax(-1) == labels[1400:]).mean())  # noqa: E731
    source = right(module(images[1400:]))
    with jax.numpy_dtype_promotion("strict"):
        thresholds = conversion.calibrate(net, [images[:700], images[700:1400]], percentile=99.9)
        spiking = conversion.to_spiking(net, thresholds=thresholds)
        frames = encoding.direct(jnp.asarray(images[1400:]), timesteps=32)
        run = jax.jit(lambda n, x, s: n(x, s, training=False)[0])
        outputs = run(spiking, frames, spiking.initial_state(len(images) - 1400))
    accuracy = right(readout.rate(outputs))
    print(f"source {source:.3f}, spiking {accuracy:.3f}")
    assert source > 0.9 and accuracy > source - 0.02
