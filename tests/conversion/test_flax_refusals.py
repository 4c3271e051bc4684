"""Networks of plain Flax that do not convert are refused by the name of the operation."""

import pathlib

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


def refusal(function, shape, params=None):
    with pytest.raises(ValueError) as caught:
        conversion.from_function(function, params or {}, input_shape=shape)
    return str(caught.value)


class TutorialCNN(linen.Module):
    """The network of Flax's tutorial on MNIST."""

    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.Conv(features=4, kernel_size=(3, 3), name="first")(x))
        x = linen.max_pool(x, window_shape=(2, 2), strides=(2, 2))
        return linen.Dense(features=10)(x.reshape((x.shape[0], -1)))


def test_max_pooling_is_named_with_its_line_and_layer():
    module = TutorialCNN()
    variables = module.init(jax.random.key(0), jnp.ones((1, 8, 8, 1)))
    with pytest.raises(ValueError) as caught:
        conversion.from_flax(module, variables=variables, input_shape=(8, 8, 1))
    message = str(caught.value)
    assert message.startswith("max pooling (test_flax_refusals.py:")
    assert "behind first.bias) does not convert" in message and "use avg_pool" in message
    line = int(message.split(":")[1].split(",")[0])
    assert "max_pool" in pathlib.Path(__file__).read_text().splitlines()[line - 1]


class NNXNet(nnx.Module):
    def __init__(self, part, options, rngs):
        self.first, self.part = nnx.Linear(4, 8, rngs=rngs), part
        self.options = options

    def __call__(self, x):
        return self.part(self.first(x), **self.options)


RNGS = nnx.Rngs(0)
MODULES = {
    "layer norm": (nnx.LayerNorm(8, rngs=RNGS), "use BatchNorm"),
    "group norm": (nnx.GroupNorm(8, num_groups=2, rngs=RNGS), "use BatchNorm"),
    "RMS norm": (nnx.RMSNorm(8, rngs=RNGS), "use BatchNorm"),
    "attention": (nnx.MultiHeadAttention(2, 8, decode=False, rngs=RNGS), "product of two rates"),
    "batch norm by statistics of the batch": (nnx.BatchNorm(8, rngs=RNGS), "running_average=True"),
    "softmax": (nnx.softmax, "return the logits"),
    "log_softmax": (nnx.log_softmax, "return the logits"),
}


@pytest.mark.filterwarnings("ignore:this network evaluates")
@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_refused_by_its_name(name):
    part, cure = MODULES[name]
    options = {"use_running_average": False} if isinstance(part, nnx.BatchNorm) else {}
    shape = (3, 4) if name == "attention" else (4,)
    with pytest.raises(ValueError) as caught:
        conversion.from_flax(NNXNet(part, options, nnx.Rngs(1)), input_shape=shape)
    message = str(caught.value)
    assert message.startswith(f"{name} (") and cure in message
    assert "behind first.bias" in message and "test_flax_refusals.py" in message


class Compiled(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(4, 8, rngs=rngs)

    @nnx.jit
    def __call__(self, x):
        return jnp.sin(self.first(x))  # the line


def test_the_line_within_a_compiled_module_is_named():
    with pytest.raises(ValueError) as caught:
        conversion.from_flax(Compiled(nnx.Rngs(0)), input_shape=(4,))
    line = int(str(caught.value).split(":")[1].split(",")[0])
    assert "# the line" in pathlib.Path(__file__).read_text().splitlines()[line - 1]


def test_a_module_of_linen_is_named_by_its_path():
    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.LayerNorm(name="norm")(linen.Dense(4)(x))

    variables = Net().init(jax.random.key(0), jnp.ones((1, 4)))
    with pytest.raises(ValueError, match=r"layer norm \(norm, test.*behind Dense_0.bias\)"):
        conversion.from_flax(Net(), variables=variables, input_shape=(4,))


@pytest.mark.parametrize(
    "name", ["gelu", "silu", "leaky_relu", "elu", "softplus", "sigmoid", "tanh", "hard_silu"]
)
def test_another_activation_is_refused_by_its_name(name):
    function = getattr(linen, name)
    message = refusal(lambda p, x: function(x), (5,))
    assert message.startswith(f"{name} (test_flax_refusals.py:") and "use jax.nn.relu" in message


MATRIX, KERNEL = np.ones((4, 4), np.float32), np.ones((3, 3, 4, 4), np.float32)
IMAGE = (6, 6, 4)


def convolve(x, layout="NHWC", kernel=KERNEL, **options):
    dimensions = (layout, "HWIO", layout)
    pads = ((0, 0), (0, 0))
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), pads, dimension_numbers=dimensions, **options
    )


FUNCTIONS = {
    "dilated convolution": (lambda p, x: convolve(x, rhs_dilation=(2, 2)), IMAGE, "dilation"),
    "transposed convolution": (lambda p, x: convolve(x, lhs_dilation=(2, 2)), IMAGE, "dilation"),
    "a convolution with channels first": (
        lambda p, x: convolve(x, "NCHW"), (4, 6, 6), "channels last",
    ),
    "the outputs are [B, 6, 6, 4] in another": (
        lambda p, x: x.transpose(0, 3, 1, 2), IMAGE, "as the last layer gives them",
    ),
    "the outputs are [B, 4] in another": (lambda p, x: MATRIX @ x.T, (4,), "[B, features]"),
    "a reshape from [B, 4, 4] to [B, 4, 4, 1]": (
        lambda p, x: convolve(x[..., None], kernel=KERNEL[:, :, :1]), (4, 4), "final shape",
    ),
    "a reshape or broadcast across examples": (
        lambda p, x: x.reshape(-1, 4) @ MATRIX, IMAGE, "batch the first axis",
    ),
    "a factor or term per position": (
        lambda p, x: linen.avg_pool(x, (2, 2), padding="SAME", count_include_pad=False), IMAGE,
        "count_include_pad=True",
    ),
    "a product of two activations": (lambda p, x: x * (x @ MATRIX), (4,), "linear"),
    "a quotient of two activations": (lambda p, x: x / (x @ MATRIX), (4,), "linear"),
    "a maximum of two activations": (lambda p, x: jnp.maximum(x, x @ MATRIX), (4,), "add"),
    "concatenation": (lambda p, x: jnp.concatenate([x, x], 1), (4,), "add the paths"),
    "NaN in a constant": (lambda p, x: x @ (MATRIX * np.nan), (4,), "train without it"),
    "an activation clipped to [-1, 1]": (lambda p, x: jnp.clip(x, -1, 1), (4,), "jax.nn.relu"),
    "a sum over some axes": (lambda p, x: x.mean(1), IMAGE, "all axes of space"),
    "a comparison": (lambda p, x: jnp.where(x > 0, x, 0), (4,), "jax.nn.relu"),
    "a loop": (
        lambda p, x: jax.lax.fori_loop(0, 3, lambda i, y: y @ MATRIX, x), (4,), "Python loop",
    ),
    "a computation in bfloat16": (
        lambda p, x: x.astype(jnp.bfloat16), (4,), "dtype=float32",
    ),
    "the operation sin": (lambda p, x: jnp.sin(x), (4,), "lists the layers"),
    "padding": (lambda p, x: jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), IMAGE, "the layer"),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_operation_is_refused_in_words_with_a_cure(name):
    function, shape, cure = FUNCTIONS[name]
    message = refusal(function, shape)
    assert message.startswith(name) and cure in message


def test_a_network_returns_one_array_of_its_inputs():
    assert "returns 2 arrays" in refusal(lambda p, x: (x, x), (4,))
    assert "do not depend on the inputs" in refusal(lambda p, x: p["w"], (4,), {"w": MATRIX})


def test_inputs_of_another_shape_and_training_are_refused():
    module = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"fails on inputs \[B, 5\].*input_shape"):
        conversion.from_flax(module, input_shape=(5,))

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x, train=True):
            return linen.BatchNorm(use_running_average=not train)(x)

    variables = Net().init(jax.random.key(0), jnp.ones((2, 4)))
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="such as train=False"):
        conversion.from_flax(Net(), variables=variables, input_shape=(4,))


def test_a_module_comes_with_its_variables():
    with pytest.raises(TypeError, match="give its variables too"):
        conversion.from_flax(linen.Dense(3), input_shape=(4,))
    with pytest.raises(TypeError, match="all variables.*got .'bias', 'kernel'"):
        variables = linen.Dense(3).init(jax.random.key(0), jnp.ones((1, 4)))
        conversion.from_flax(linen.Dense(3), variables=variables["params"], input_shape=(4,))
    with pytest.raises(TypeError, match="a source network already"):
        network = nn.Network(nn.Flatten(), (4,))
        conversion.from_flax(network, input_shape=(4,))
    with pytest.raises(TypeError, match="leave out the variables"):
        conversion.from_flax(nnx.Linear(4, 3, rngs=nnx.Rngs(0)), variables={}, input_shape=(4,))
    with pytest.raises(TypeError, match="from_function takes functions"):
        conversion.from_flax(jax.nn.relu, input_shape=(4,))
    with pytest.raises(ValueError, match="input_shape must be at least 1"):
        conversion.from_function(lambda p, x: x, {}, input_shape=(0,))
    with pytest.raises(TypeError, match="the shape of one example"):
        conversion.from_function(lambda p, x: x, {}, input_shape=4)
