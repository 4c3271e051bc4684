"""Golden vectors of the authors' code: arrays, layers with their weights, masks, comparisons."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax import nn
from snnjax.learning import Spectral, solvers, transposed_conv
from snnjax.nn.contract import State, Statistics, stateless_result

RTOL, ATOL = 1e-4, 1e-6  # of the README of the vectors, float64
SOLVED = 2e-6  # further, where the authors' Broyden stops at a residual of about 1e-7
FLOAT32 = 1e-5  # float32: batch norm computes in it


def load(shared, name):
    """Arrays and the description of a file; float64 where it is enabled."""
    with np.load(shared("golden", "learning_rules") / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    meta = json.loads(str(arrays.pop("meta")))
    dtype = jnp.float64 if jax.config.jax_enable_x64 else jnp.float32
    return {key: jnp.asarray(a, dtype) for key, a in arrays.items()}, meta


def close(actual, expected, *, atol=ATOL):
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=RTOL, atol=atol)


def exact(actual, expected):
    np.testing.assert_array_equal(np.asarray(actual), np.asarray(expected))


def with_weights(fold, kernel, bias=None):
    fold.function.kernel = nnx.Param(kernel)
    if bias is not None:
        fold.function.bias = nnx.Param(bias)
    return fold


def linear(weight, bias=None):
    """[out, in] as a layer."""
    outputs, inputs = weight.shape
    fold = nn.Linear(inputs, outputs, use_bias=bias is not None, rngs=nnx.Rngs(0))
    return with_weights(fold, weight.T, bias)


def conv(weight, bias=None, *, strides=1):
    """OIHW with padding k // 2 as a layer."""
    outputs, inputs, size, _ = weight.shape
    pad = ((size // 2,) * 2,) * 2
    fold = nn.Conv(
        inputs, outputs, kernel=size, strides=strides, padding=pad, use_bias=bias is not None,
        rngs=nnx.Rngs(0),
    )  # fmt: skip
    return with_weights(fold, weight.transpose(2, 3, 1, 0), bias)


def conv_transpose(weight):
    """[in, out, k, k], stride 2, padding k // 2, output padding 1, as a layer."""
    inputs, outputs, size, _ = weight.shape
    fold = transposed_conv(inputs, outputs, kernel=size, strides=2, rngs=nnx.Rngs(0))
    return with_weights(fold, weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1))


def batch_norm(weight, bias):
    layer = nn.BatchNorm(len(weight))
    layer.scale, layer.bias = nnx.Param(weight), nnx.Param(bias)
    return layer


def spectral(synapse, gain):
    layer = Spectral(synapse)
    layer.gain = nnx.Param(gain)
    return layer


class Masked(nnx.Module):
    """Dropout with a stored mask, scaled already, in training only."""

    def __init__(self, mask):
        self.mask = nnx.Variable(mask)

    def initial_state(self, shape):
        return State()

    def __call__(self, inputs, state, call):
        return stateless_result(inputs * self.mask[...] if call.training else inputs)


class Recorder:
    """A converged Neumann series that keeps its solutions; outside of `jax.jit`."""

    def __init__(self, *, iterations=200, inner=None):
        self.inner = solvers.neumann(iterations=iterations) if inner is None else inner
        self.solutions, self.infos = [], []
        self.spiking = getattr(self.inner, "spiking", False)

    def __call__(self, transpose, g):
        beta, info = self.inner(transpose, g)
        self.solutions.append(beta)
        self.infos.append(info)
        return beta, info


def statistics(mean, var):
    return Statistics(mean, var)


def gradients(layer, inputs, state, loss, *, taps=()):
    """Gradients of the parameters (as a layer) and inputs of `loss(outputs)`, outputs and Aux."""
    graphdef, params, constants = nn.split(layer)

    def run(params, inputs):
        outputs, aux = nn.merge(graphdef, params, constants)(
            inputs, state, nn.Call(training=True, taps=taps)
        )
        return loss(outputs), (outputs, aux)

    (grads, g_inputs), (outputs, aux) = jax.grad(run, argnums=(0, 1), has_aux=True)(params, inputs)
    return nn.merge(graphdef, grads, constants), g_inputs, outputs, aux


def initial_state(layer, shape):
    """State at rest; layers infer their shapes in float32, also where float64 is enabled."""

    def cast(tree, dtype):
        floats = lambda x: jnp.issubdtype(x.dtype, jnp.floating)  # noqa: E731
        return jax.tree.map(lambda x: jnp.asarray(x, dtype) if floats(x) else x, tree)

    dtype = jnp.float64 if jax.config.jax_enable_x64 else jnp.float32
    return cast(cast(layer, jnp.float32).initial_state(shape), dtype)


def images(x):
    """NCHW as [1, B, H, W, C]."""
    return x.transpose(0, 2, 3, 1)[None]


def oihw(kernel):
    return kernel.transpose(3, 2, 0, 1)


def iohw(kernel):
    """Kernel of a transposed convolution, as PyTorch has it."""
    return kernel.transpose(2, 3, 0, 1)[:, :, ::-1, ::-1]
