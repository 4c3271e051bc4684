"""Networks of plain Flax become networks of ours with the same outputs."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from snnjax import conversion, nn


@pytest.fixture(autouse=True)
def standard_promotion():
    """Flax divides by integers; the library must convert under strict promotion, too."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def trained(tree, dtype=np.float32):
    """Parameters and statistics as after training: no zeros and ones, variances above 0."""
    generator = np.random.default_rng(0)

    def draw(path, leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        values = generator.normal(size=leaf.shape) / max(1, np.prod(leaf.shape[:-1])) ** 0.5
        name = jax.tree_util.keystr(path)
        # Flax keeps statistics in float32 always, and rounds as no other program does.
        return jnp.asarray(np.abs(values) + 0.5 if "var" in name else values, dtype)

    return jax.tree_util.tree_map_with_path(draw, tree)


def trained_module(module, dtype=np.float32):
    graphdef, state = nnx.split(module)
    return nnx.merge(graphdef, trained(state, dtype))


def assert_equal(net, apply, shape, *, dtype=np.float32):
    """Outputs over two timesteps of three examples are those of the module."""
    inputs = np.random.default_rng(1).normal(size=(2, 3, *shape)).astype(dtype)
    with jax.numpy_dtype_promotion("strict"):
        outputs, _ = net(jnp.asarray(inputs), net.initial_state(3), training=False)
    apply = jax.jit(apply)
    expected = np.stack([apply(jnp.asarray(x)) for x in inputs])
    assert outputs.dtype == dtype and np.abs(expected).max() > 0.1
    bound = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(outputs, expected, rtol=bound, atol=bound)


def layers(net):
    inner = lambda x: x.function if isinstance(x, nn.synapses.Fold) else x  # noqa: E731
    return [type(inner(layer)).__name__ for layer in net.body.layers]


class LinenCNN(linen.Module):
    dtype: str = "float32"

    @linen.compact
    def __call__(self, x, train=True):
        options = {"param_dtype": self.dtype}
        norm = functools.partial(linen.BatchNorm, use_running_average=not train, **options)
        x = linen.relu(norm()(linen.Conv(4, (3, 3), use_bias=False, **options)(x)))
        x = linen.avg_pool(x, (2, 2), strides=(2, 2))
        x = linen.relu(linen.Conv(6, (3, 3), strides=2, padding=1, **options)(x))
        x = norm()(x)
        x = x.reshape((x.shape[0], -1))
        x = linen.Dropout(0.5, deterministic=not train)(x)
        x = linen.relu(norm()(linen.Dense(8, **options)(x)))
        return linen.Dense(3, **options)(x)


def linen_variables(dtype="float32"):
    x = jnp.zeros((1, 8, 8, 2), dtype)
    module = LinenCNN(dtype=dtype)
    # Shapes alone: the values are drawn here.
    init = lambda key: module.init(key, x, train=False)  # noqa: E731
    return trained(jax.eval_shape(init, jax.random.key(0)), dtype)


def check_linen(dtype):
    module, variables = LinenCNN(dtype=dtype), linen_variables(dtype)
    net = conversion.from_flax(module, variables=variables, input_shape=(8, 8, 2), train=False)
    names = ["Kernel", "ReLU", "Bound", "Kernel", "ReLU", "function", "Linear", "ReLU", "Linear"]
    assert layers(net) == names
    apply = functools.partial(module.apply, variables, train=False)
    assert_equal(net, apply, (8, 8, 2), dtype=np.dtype(dtype).type)


def test_a_linen_network_keeps_its_outputs():
    check_linen("float32")


# A residual network of NNX does so in the default lane.
@pytest.mark.slow
def test_a_linen_network_keeps_its_outputs_in_float64(x64):
    check_linen("float64")


class Block(nnx.Module):
    """A residual block, behind its activation or (`first`) before it."""

    def __init__(self, inputs, outputs, strides, *, rngs, first=False, dtype=jnp.float32):
        conv = functools.partial(nnx.Conv, use_bias=False, param_dtype=dtype, rngs=rngs)
        self.second = conv(outputs, outputs, (3, 3))
        self.conv = conv(inputs, outputs, (3, 3), strides=strides)
        self.norms = nnx.List(
            [nnx.BatchNorm(c, param_dtype=dtype, rngs=rngs) for c in (inputs, outputs, outputs)]
        )
        identity = inputs == outputs and strides == 1
        self.shortcut = None if identity else conv(inputs, outputs, (1, 1), strides=strides)
        self.first = first

    def __call__(self, x):
        skip = x if self.shortcut is None else self.shortcut(x)
        if self.first:
            y = self.conv(nnx.relu(self.norms[0](x)))
            return skip + self.second(nnx.relu(self.norms[1](y)))
        y = nnx.relu(self.norms[1](self.conv(x)))
        return nnx.relu(self.norms[2](self.second(y)) + skip)


class ResNet(nnx.Module):
    def __init__(self, *, rngs, first=False, dtype=jnp.float32):
        self.stem = nnx.Conv(2, 4, (3, 3), param_dtype=dtype, rngs=rngs)
        self.norm = nnx.BatchNorm(4, param_dtype=dtype, rngs=rngs)
        block = functools.partial(Block, first=first, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List([block(4, 4, 1), block(4, 6, 2)])
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(6, 3, param_dtype=dtype, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(self.drop(x.mean(axis=(1, 2))))


def check_resnet(first, dtype=np.float32):
    module = trained_module(ResNet(rngs=nnx.Rngs(0), first=first, dtype=dtype), dtype)
    module.train()
    net = conversion.from_flax(module, input_shape=(6, 6, 2))
    assert not module.norm.use_running_average and not module.drop.deterministic
    module.eval()
    assert_equal(net, module, (6, 6, 2), dtype=dtype)
    return net


def test_an_nnx_resnet_in_training_mode_converts_in_evaluation():
    net = check_resnet(first=False)
    _, _, first, _, second, *_ = net.body.layers
    assert not first.shortcut.layers and len(second.shortcut.layers) == 1
    assert layers(net)[2:] == ["Residual", "ReLU", "Residual", "ReLU", "function", "Linear"]
    assert [type(layer).__name__ for layer in first.branch.layers] == ["Fold", "ReLU", "Fold"]


def test_an_nnx_resnet_keeps_its_outputs_in_float64(x64):
    check_resnet(first=False, dtype=np.float64)


def test_a_norm_without_a_kernel_becomes_a_scale():
    net = check_resnet(first=True)
    norm = net.body.layers[2].branch.layers[0]
    assert isinstance(norm, conversion.Scale) and norm.scale.shape == (4,)


def test_an_nnx_sequence_of_layers_and_functions_converts():
    rngs = nnx.Rngs(0)
    flatten = lambda x: x.reshape(len(x), -1)  # noqa: E731
    module = nnx.Sequential(
        nnx.Conv(2, 4, (3, 3), rngs=rngs), nnx.relu, flatten, nnx.Linear(4 * 16, 5, rngs=rngs),
        nnx.relu6, nnx.BatchNorm(5, rngs=rngs), nnx.Linear(5, 3, rngs=rngs),
    )  # fmt: skip
    module = trained_module(module)
    net = conversion.from_flax(module, input_shape=(4, 4, 2))
    expected = ["Kernel", "ReLU", "function", "Linear", "ThresholdReLU", "Linear"]
    assert layers(net) == expected
    module.eval()
    assert_equal(net, module, (4, 4, 2))


CONVOLUTIONS = {
    "same": ((3, 3), {"padding": "SAME", "strides": 2}, (5, 5)),
    "valid": ((3, 2), {"padding": "VALID"}, (5, 5)),
    "integer": ((3, 3), {"padding": 1, "strides": 2, "use_bias": False}, (6, 6)),
    "pairs": ((3, 3), {"padding": ((1, 0), (2, 1)), "strides": (2, 1)}, (5, 5)),
    "groups": ((3, 3), {"feature_group_count": 2}, (4, 4)),
    "series": ((3,), {"strides": 2}, (7,)),
    "causal": ((3,), {"padding": "CAUSAL"}, (7,)),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_a_convolution_keeps_strides_padding_and_groups(case):
    kernel, options, space = CONVOLUTIONS[case]
    module = trained_module(nnx.Conv(4, 6, kernel, rngs=nnx.Rngs(0), **options))
    net = conversion.from_flax(module, input_shape=(*space, 4))
    assert layers(net) == ["Kernel"]
    assert_equal(net, module, (*space, 4))


GENERATOR = np.random.default_rng(2)
MATRIX = GENERATOR.normal(size=(4, 3)).astype(np.float32)
VECTOR = GENERATOR.normal(size=4).astype(np.float32)
KERNEL = GENERATOR.normal(size=(3, 3, 4, 5)).astype(np.float32)
PARAMS = {"w": MATRIX, "v": VECTOR, "k": KERNEL}


def convolve(x, kernel, padding="VALID", **options):
    strides = (1,) * (x.ndim - 2)
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=dimensions, **options
    )


@jax.custom_vjp
def straight_through(x):
    return jax.nn.relu(x)


straight_through.defvjp(lambda x: (straight_through(x), None), lambda _, g: (g,))


def channels_first(p, x):
    """A network as ported from PyTorch, or of Equinox."""
    layout = ("NCHW", "OIHW", "NCHW")
    y = jax.lax.conv_general_dilated(x, OIHW, (1, 1), "SAME", dimension_numbers=layout)
    y = jax.nn.relu((y + p["v"][:, None, None]) * p["v"][:, None, None])
    y = jax.lax.reduce_window(y, 0.0, jax.lax.add, (1, 1, 2, 3), (1, 1, 2, 3), "VALID") / 6
    y = jnp.pad(y, ((0, 0), (0, 0), (0, 1), (0, 0)))
    y = jax.lax.reduce_window(y, 0.0, jax.lax.add, (1, 1, 2, 2), (1, 1, 1, 1), "VALID")
    return (y.reshape(len(x), -1) + jnp.arange(12.0)) @ p["rows"]


IMAGE = (6, 6, 4)
OIHW = GENERATOR.normal(size=(4, 4, 3, 3)).astype(np.float32)
PARAMS["rows"] = GENERATOR.normal(size=(12, 3)).astype(np.float32)
POOL = functools.partial(linen.avg_pool, window_shape=(2, 2), strides=(2, 2))
FUNCTIONS = {
    "relu": (lambda p, x: jax.nn.relu(x), (4,), ["ReLU"]),
    "maximum": (lambda p, x: jnp.maximum(0, x), (4,), ["ReLU"]),
    "clip": (lambda p, x: jnp.clip(x, 0, 0.5), (4,), ["ThresholdReLU"]),
    "clamp": (lambda p, x: jax.lax.clamp(0.0, x, 0.5), (4,), ["ThresholdReLU"]),
    "minimum": (lambda p, x: jnp.minimum(jax.nn.relu(x), 0.5), (4,), ["ThresholdReLU"]),
    "minimum first": (lambda p, x: jax.nn.relu(jnp.minimum(x, 0.5)), (4,), ["ThresholdReLU"]),
    "twice": (lambda p, x: jax.nn.relu(jax.nn.relu(x)), (4,), ["ReLU"]),
    "hard sigmoid": (lambda p, x: jax.nn.hard_sigmoid(x) @ p["w"], (4,),
                     ["Scale", "ThresholdReLU", "Linear"]),
    "einsum": (lambda p, x: jnp.einsum("bi,oi->bo", x, p["w"].T), (4,), ["Linear"]),
    "arithmetic": (lambda p, x: 1 - (p["v"] - x / 2) * p["v"] @ p["w"] / p["v"][0], (4,),
                   ["Linear"]),
    "difference": (lambda p, x: x - jax.nn.relu(x), (4,), ["Residual"]),
    "double": (lambda p, x: x + x, (4,), ["Residual"]),
    "shift, valid": (lambda p, x: convolve(x + p["v"], p["k"]), IMAGE, ["Kernel"]),
    "shift, same": (lambda p, x: convolve(x + p["v"], p["k"], "SAME"), IMAGE,
                    ["Scale", "Kernel"]),
    "scale, same": (lambda p, x: convolve(x * p["v"], p["k"], "SAME"), IMAGE, ["Kernel"]),
    "pad": (lambda p, x: convolve(jnp.pad(x, ((0, 0), (1, 0), (1, 2), (0, 0))), p["k"]), IMAGE,
            ["Kernel"]),
    "norm before pool": (lambda p, x: POOL(jax.nn.relu(x) + p["v"]).reshape(len(x), -1)[:, None]
                         .squeeze(1) @ jnp.tile(p["w"], (9, 1)), IMAGE,
                         ["ReLU", "Bound", "function", "Linear"]),
    "pool, padded": (lambda p, x: POOL(x, padding=((1, 1), (1, 1))), IMAGE, ["Bound"]),
    "pool, one more axis": (lambda p, x: jax.lax.reduce_window(
        x[:, None], 0.0, jax.lax.add, (1, 1, 2, 2, 1), (1, 1, 2, 2, 1), "VALID")[:, 0] / 4,
        IMAGE, ["Bound"]),
    "pool, overlapping": (lambda p, x: linen.avg_pool(x, (3, 3), (1, 1), "SAME"), IMAGE,
                          ["Bound"]),
    "pool, not square": (lambda p, x: linen.avg_pool(x, (2, 3), (2, 3)), IMAGE, ["Kernel"]),
    "pool, series": (lambda p, x: linen.avg_pool(x, (2,), (2,)), (6, 4), ["Kernel"]),
    "mean": (lambda p, x: (x + p["v"]).mean((1, 2)) @ p["w"], IMAGE, ["function", "Linear"]),
    "mean, kept": (lambda p, x: x.mean((1, 2), keepdims=True).reshape(len(x), 4), IMAGE,
                   ["function"]),
    "mean, series": (lambda p, x: x.mean(1), (6, 4), ["function"]),
    "features": (lambda p, x: jnp.tensordot(x, p["w"].reshape(2, 2, 3), 2), (2, 2),
                 ["function", "Linear"]),
    "channels first": (lambda p, x: channels_first(p, x.transpose(0, 3, 1, 2)), IMAGE,
                       ["Kernel", "ReLU", "Kernel", "Bound", "function", "Linear"]),
    "vmap": (lambda p, x: jax.vmap(lambda y: p["w"] @ jax.nn.relu(p["w"].T @ y + p["v"][1:]))(x),
             (4,), ["Linear", "ReLU", "Linear"]),
    "jit": (lambda p, x: jax.jit(jax.checkpoint(lambda y: y @ p["w"]))(x), (4,), ["Linear"]),
    "own derivative": (lambda p, x: straight_through(x), (4,), ["ReLU"]),
    "switch": (lambda p, x: jax.lax.cond(p["v"][0] > 9, jnp.sin, jax.nn.relu, x), (4,),
               ["ReLU"]),
    "unused": (lambda p, x: (jnp.tanh(x), jax.nn.relu(x))[1], (4,), ["ReLU"]),
    "shared": (lambda p, x: (lambda y, z: (y + z) @ p["w"] + (y - z) @ p["w"])(
        jax.nn.relu(x), jax.nn.relu(-x)), (4,), ["Residual"]),
}  # fmt: skip


@pytest.mark.parametrize("case", FUNCTIONS)
def test_a_function_of_parameters_converts(case):
    function, shape, names = FUNCTIONS[case]
    net = conversion.from_function(function, PARAMS, input_shape=shape)
    assert layers(net) == names
    assert_equal(net, functools.partial(function, PARAMS), shape)


def test_a_converted_network_trains():
    net = conversion.from_flax(
        LinenCNN(), variables=linen_variables(), input_shape=(8, 8, 2), train=False
    )
    graphdef, params, constants = nn.split(net)

    def loss(params):
        whole = nn.merge(graphdef, params, constants)
        return whole(jnp.ones((1, 2, 8, 8, 2)), whole.initial_state(2), training=True)[0].sum()

    leaves = jax.tree.leaves(jax.jit(jax.grad(loss))(params))
    assert len(leaves) == 8 and all(np.abs(leaf).max() > 0 for leaf in leaves)


def test_statistics_of_no_training_warn():
    module = nnx.Sequential(nnx.Linear(4, 3, rngs=nnx.Rngs(0)), nnx.BatchNorm(3, rngs=nnx.Rngs(0)))
    with pytest.warns(UserWarning, match="never updated"):
        conversion.from_flax(module, input_shape=(4,))
    variables = linen_variables()
    variables["batch_stats"] = jax.tree.map(jnp.zeros_like, variables["batch_stats"])
    with pytest.warns(UserWarning, match="variables with its batch_stats"):
        conversion.from_flax(LinenCNN(), variables=variables, input_shape=(8, 8, 2), train=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        conversion.from_flax(trained_module(module), input_shape=(4,))
