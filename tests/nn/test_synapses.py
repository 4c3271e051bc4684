"""Synapses: folding time into the batch is applying the map at every timestep."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import nn
from snnjax.nn.synapses import compile_fast, fan_in_uniform, he_normal
from snnjax.typing import bind
from tests.compare import AS_USERS_DO, assert_close, assert_equal
from tests.nn.layers import FLAT, SPACE, T, call, leaves, rngs, run, sequence


def halve(x, *, by=2):
    return x / by


MAPS = {
    "linear": (lambda: nn.Linear(6, 3, rngs=rngs()), FLAT),
    "conv": (lambda: nn.Conv(2, 4, rngs=rngs()), SPACE),
    "strided": (lambda: nn.Conv(2, 4, strides=2, padding="VALID", rngs=rngs()), SPACE),
    "padded": (lambda: nn.Conv(2, 4, padding=((0, 1), (2, 0)), rngs=rngs()), SPACE),
    "depthwise": (lambda: nn.Conv(2, 4, groups=2, use_bias=True, rngs=rngs()), SPACE),
    "one_dimension": (lambda: nn.Conv(6, 4, kernel=(3,), rngs=rngs()), (2, 9, 6)),
    "function": (lambda: nn.Fold(halve), SPACE),
    "bound": (lambda: nn.Fold(bind(halve, by=4)), SPACE),
    "module": (lambda: nn.Fold(nnx.LayerNorm(2, rngs=rngs())), SPACE),
}


@pytest.mark.parametrize(
    "name", [pytest.param("linear", marks=pytest.mark.fast), *[m for m in MAPS if m != "linear"]]
)
def test_the_fold_is_the_map_at_every_timestep(name):
    make, shape = MAPS[name]
    layer, inputs = make(), sequence(shape)
    outputs, aux = call(layer, inputs, training=True)
    assert_close(outputs, jnp.stack([layer.function(x) for x in inputs]), 1e-6)
    assert aux == nn.Aux()
    assert layer.initial_state(shape) == nn.State()


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (8, 8, 4)),
        ({"kernel": 1}, (8, 8, 4)),
        ({"kernel": (5, 3), "padding": "VALID"}, (4, 6, 4)),
        ({"strides": 2}, (4, 4, 4)),
        ({"strides": (2, 4)}, (4, 2, 4)),
        ({"padding": ((0, 0), (1, 1))}, (6, 8, 4)),
    ],
)
def test_shapes_of_convolutions(options, shape):
    layer = nn.Conv(2, 4, rngs=rngs(), **options)
    assert call(layer, sequence(SPACE))[0].shape == (T, 2, *shape)


def test_linear_is_flax_s():
    layer, peer = nn.Linear(6, 3, rngs=rngs()), nnx.Linear(6, 3, rngs=rngs())
    np.testing.assert_array_equal(layer.function.kernel[...], peer.kernel[...])
    assert_close(call(layer, sequence(FLAT))[0], peer(sequence(FLAT)), 1e-6)
    assert len(leaves(nn.Linear(6, 3, use_bias=False, rngs=rngs()))) == 1


def test_conv_is_flax_s_with_its_gradient():
    layer = nn.Conv(2, 4, use_bias=True, rngs=rngs())
    peer = nnx.Conv(2, 4, (3, 3), rngs=rngs())
    peer.kernel = nnx.Param(layer.function.kernel[...])
    result, expected = run(layer, sequence(SPACE)), run(nn.Fold(peer), sequence(SPACE))
    assert_close(result.outputs, expected.outputs, 1e-5)
    assert_close(result.gradients[1], expected.gradients[1], 1e-5)
    ours, theirs = result.gradients[0].function, expected.gradients[0].function
    assert_close(ours.kernel[...], theirs.kernel[...], 1e-5)
    assert_close(ours.bias[...], theirs.bias[...], 1e-5)


def test_a_convolution_computes_in_the_type_of_its_inputs():
    layer = nn.Conv(2, 4, use_bias=True, rngs=rngs())
    outputs, _ = call(layer, sequence(SPACE).astype(jnp.bfloat16))
    assert outputs.dtype == jnp.bfloat16
    assert_close(outputs.astype(jnp.float32), call(layer, sequence(SPACE))[0], 0.03)


@pytest.mark.fast
def test_pooling_and_flattening_over_space_only():
    inputs = sequence((2, 4, 6, 3))
    patches = inputs.reshape(T, 2, 2, 2, 3, 2, 3)
    np.testing.assert_array_equal(call(nn.MaxPool(), inputs)[0], patches.max((3, 5)))
    assert_close(call(nn.AvgPool(), inputs)[0], patches.mean((3, 5)), 1e-6)
    assert_close(call(nn.GlobalAvgPool(), inputs)[0], inputs.mean((2, 3)), 1e-6)
    assert call(nn.MaxPool(window=3, strides=1), inputs)[0].shape == (T, 2, 2, 4, 3)
    np.testing.assert_array_equal(call(nn.Flatten(), inputs)[0], inputs.reshape(T, 2, 72))


def test_channels_that_cannot_be_grouped_are_an_error():
    for inputs, outputs in ((3, 4), (4, 3)):
        with pytest.raises(ValueError, match="divided into 2 groups"):
            nn.Conv(inputs, outputs, groups=2, rngs=rngs())


PEERS = {
    "he_normal": (he_normal, nnx.initializers.he_normal()),
    "fan_in_uniform": (
        fan_in_uniform,
        nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
    ),
}
SHAPE, KEY = (3, 3, 2, 7), jax.random.key(3)


@pytest.mark.parametrize(
    "name",
    ["he_normal", pytest.param("fan_in_uniform", marks=pytest.mark.slow)],  # compiled alike
)
def test_the_bits_are_those_of_full_optimization(name):
    ours, peer = PEERS[name]
    draw, keys = lambda key: peer(key, SHAPE, jnp.float32), jax.random.split(KEY, 3)
    compiled = jax.jit(draw, compiler_options=AS_USERS_DO)
    assert_equal(ours(KEY, SHAPE, jnp.float32), compiled(KEY))
    stacked = jax.vmap(lambda key: ours(key, SHAPE, jnp.float32))(keys)
    assert_equal(stacked, jnp.stack([compiled(key) for key in keys]))


@pytest.mark.fast
def test_a_shape_is_compiled_once_with_the_options_of_a_cpu(monkeypatch):
    options, traces = [], []

    def initializer(key, shape, dtype):
        traces.append(shape)
        return jax.random.normal(key, shape, dtype)

    jit = jax.jit
    monkeypatch.setattr(jax, "jit", lambda f, **how: options.append(how) or jit(f, **how))
    draw = compile_fast(initializer)
    assert options[0]["compiler_options"] == {"xla_backend_optimization_level": 1}
    first, second = (draw(jax.random.key(i), (2, 3), jnp.float32) for i in range(2))
    assert traces == [(2, 3)] and (first != second).any()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    draw(KEY, (2, 3), jnp.float32)
    assert traces == [(2, 3), (2, 3)]


@pytest.mark.fast
def test_a_network_is_also_made_inside_a_jit():
    """Compiler options are for the outermost `jax.jit`: inside one, the initializer is traced."""

    def kernel(key):
        return nn.Conv(2, 4, rngs=nnx.Rngs(key)).function.kernel[...]

    assert jax.eval_shape(kernel, KEY).shape == (3, 3, 2, 4)
    plain = lambda key: nnx.initializers.he_normal()(  # noqa: E731
        nnx.Rngs(key).params(), (3, 3, 2, 4), jnp.float32
    )
    assert_equal(jax.jit(kernel)(KEY), jax.jit(plain)(KEY))
    assert_equal(
        jax.jit(jax.vmap(kernel))(jax.random.split(KEY, 2)),
        jax.jit(jax.vmap(plain))(jax.random.split(KEY, 2)),
    )


@pytest.mark.fast
def test_an_error_of_the_initializer_is_its_own():
    def refuse(key, shape, dtype):
        raise ValueError("no draw for this shape")

    with pytest.raises(ValueError, match="no draw for this shape"):
        compile_fast(refuse)(KEY, (2,), jnp.float32)


SUB_BIT = functools.partial(nn.SubBitConv, bits_per_kernel=4)


@pytest.mark.parametrize("layer", [nn.Conv, SUB_BIT], ids=["conv", "sub-bit"])
def test_padding_is_an_integer_for_every_side_or_pairs(layer):
    """PyTorch's `padding=1`: at stride 2 an even size is padded on both sides, unlike "SAME"."""
    x = jax.random.normal(jax.random.key(0), (1, 2, 6, 6, 2))
    make = lambda padding: layer(2, 3, strides=2, padding=padding, rngs=nnx.Rngs(0))  # noqa: E731
    run = lambda padding, x=x: call(make(padding), x)[0]  # noqa: E731
    padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
    np.testing.assert_allclose(run(1), run("VALID", padded), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(run(1), run(((1, 1), (1, 1))))
    assert not np.allclose(run(1), run("SAME"))
    assert hash(make([[1, 1], [1, 1]]).function.padding) == hash(make(1).function.padding)
    for wrong in ((1, 1), True, "FULL", 1.0, ((1, 1),), ((1, 1, 1), (1, 1)), None):
        with pytest.raises(ValueError, match='give "SAME", "VALID", one integer'):
            make(wrong)
