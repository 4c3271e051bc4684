"""Packed residuals: one bit per spike, the gradient bit for bit, under every strategy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from snnjax import memory, neurons, nn
from tests.compare import assert_equal


@pytest.mark.fast
@settings(max_examples=25, deadline=None)
@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_packing_and_back_is_the_identity(shape, seed):
    spikes = jnp.asarray(np.random.default_rng(seed).random(shape) < 0.4, jnp.float32)
    bits = memory.pack(spikes)
    assert bits.dtype == jnp.uint8 and bits.size == -(-spikes.size // 8)
    np.testing.assert_array_equal(memory.unpack(bits, spikes.shape, spikes.dtype), spikes)


def spikes_of(shape, seed=0):
    return jax.random.bernoulli(jax.random.key(seed), 0.3, shape).astype(jnp.float32)


def linear(params, x):
    return x @ params["w"] + params["b"]


def convolution(kernel, x):
    return nn.convolution(x, kernel, strides=2)


def attention(weights, x):
    q, k = x @ weights[0], x @ weights[1]
    return (q @ k.swapaxes(-1, -2)) @ x


def pooling(params, x):
    del params
    return nn.max_pool(x, window=2, strides=2)


def normal(*shape):
    return jax.random.normal(jax.random.key(sum(shape)), shape)


FUNCTIONS = {
    "linear": (linear, {"w": normal(6, 4), "b": normal(4)}, (3, 6)),
    "convolution": (convolution, normal(3, 3, 2, 4), (2, 6, 6, 2)),
    "attention": (attention, normal(2, 5, 5), (2, 7, 5)),
    "pooling": (pooling, (), (2, 4, 4, 3)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    "scan", [memory.store, memory.recompute(every=2)], ids=["store", "recompute"]
)
def test_gradients_are_those_of_the_function(name, scan):
    function, params, shape = FUNCTIONS[name]
    xs = spikes_of((5, *shape))

    @functools.partial(jax.jit, static_argnums=0)
    def gradient(function, params, xs):
        def step(params, total, x):
            return total + jnp.sum(jnp.sin(function(params, x))), ()

        return jax.grad(lambda p, x: scan(step, p, jnp.zeros(()), x)[0], (0, 1))(params, xs)

    assert_equal(gradient(memory.packed(function), params, xs), gradient(function, params, xs))


def kept_spike_bytes(net, inputs, state):
    """Bytes of spike trains that the backward pass keeps: as bits, and as floats of 0 and 1."""
    _, pull = jax.vjp(lambda net: net(inputs, state, training=True)[0], net)
    leaves = [leaf for leaf in jax.tree.leaves(pull) if hasattr(leaf, "dtype")]
    # Thresholds are scalars, and membranes at rest all zero; spikes are neither.
    leaves = [x for x in leaves if x.ndim]
    binary = [x for x in leaves if bool(jnp.all((x == 0) | (x == 1)) & jnp.any(x == 1))]
    bits = [x for x in leaves if x.dtype == jnp.uint8]
    return sum(x.nbytes for x in bits), sum(x.nbytes for x in binary if x.dtype == jnp.float32)


def spiking_conv_net(pack):
    rngs = nnx.Rngs(0)
    layers = [nn.Conv(2, 8, rngs=rngs), nn.IF()]
    for _ in range(4):
        layers += [nn.Conv(8, 8, rngs=rngs, pack=pack), nn.IF(reset=neurons.zero)]
    return nn.Network(nn.Sequential(*layers), (8, 8, 2))


def test_kept_spikes_of_a_net_of_four_layers_fall_32_times():
    inputs = 3 * jax.random.normal(jax.random.key(1), (4, 2, 8, 8, 2))
    plain, packed = spiking_conv_net(False), spiking_conv_net(True)
    state = plain.initial_state(2)
    bits, floats = kept_spike_bytes(packed, inputs, state)
    none, spikes = kept_spike_bytes(plain, inputs, state)
    assert none == 0 and floats == 0
    assert spikes == 4 * (4 * 2 * 8 * 8 * 8) * 4
    assert spikes == 32 * bits

    @jax.jit
    def gradient(net):
        return jax.grad(lambda net: jnp.sum(net(inputs, state, training=True)[0] * inputs.sum()))(
            net
        )

    got, want = (jax.tree.leaves(gradient(net)) for net in (packed, plain))
    assert_equal(got, want)
    assert any(float(jnp.abs(leaf).max()) > 0 for leaf in got)
