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
    return {key: np.asarray(a, dtype()) for key, a in arrays.items()}, meta


def dtype():
    return np.float64 if jax.config.jax_enable_x64 else np.float32


def close(actual, expected, *, atol=ATOL):
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=RTOL, atol=atol)


def exact(actual, expected):
    np.testing.assert_array_equal(np.asarray(actual), np.asarray(expected))


def with_weights(make, kernel, bias=None):
    # Shapes alone: drawing weights that are replaced costs compilations.
    fold = jax.eval_shape(make)
    fold.function.kernel = nnx.Param(jnp.asarray(kernel))
    if bias is not None:
        fold.function.bias = nnx.Param(jnp.asarray(bias))
    return fold


def linear(weight, bias=None):
    """[out, in] as a layer."""
    outputs, inputs = weight.shape
    make = lambda: nn.Linear(inputs, outputs, use_bias=bias is not None, rngs=nnx.Rngs(0))  # noqa: E731
    return with_weights(make, weight.T, bias)


def conv(weight, bias=None, *, strides=1):
    """OIHW with padding k // 2 as a layer."""
    outputs, inputs, size, _ = weight.shape
    pad = ((size // 2,) * 2,) * 2
    make = lambda: nn.Conv(  # noqa: E731
        inputs, outputs, kernel=size, strides=strides, padding=pad, use_bias=bias is not None,
        rngs=nnx.Rngs(0),
    )  # fmt: skip
    return with_weights(make, weight.transpose(2, 3, 1, 0), bias)


def conv_transpose(weight):
    """[in, out, k, k], stride 2, padding k // 2, output padding 1, as a layer."""
    inputs, outputs, size, _ = weight.shape
    make = lambda: transposed_conv(inputs, outputs, kernel=size, strides=2, rngs=nnx.Rngs(0))  # noqa: E731
    return with_weights(make, weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1))


def batch_norm(weight, bias):
    layer = jax.eval_shape(lambda: nn.BatchNorm(len(weight)))
    layer.scale, layer.bias = (nnx.Param(jnp.asarray(a)) for a in (weight, bias))
    return layer


def spectral(synapse, gain):
    layer = jax.eval_shape(Spectral, synapse)
    layer.synapse, layer.gain = synapse, nnx.Param(jnp.asarray(gain))
    return layer


class Masked(nnx.Module):
    """Dropout with a stored mask, scaled already, in training only."""

    def __init__(self, mask):
        self.mask = nnx.Variable(jnp.asarray(mask))

    def initial_state(self, shape):
        return State()

    def __call__(self, inputs, state, call):
        return stateless_result(inputs * self.mask[...] if call.training else inputs)


class Recorder:
    """A converged Neumann series that keeps its solution, for `gradients` to return.

    Args:
        iterations: iterations of the series.
        inner: solver in place of the series.
        observe: `(transpose, g) -> tree`, evaluated beside the solution.
    """

    def __init__(self, *, iterations=200, inner=None, observe=lambda transpose, g: None):
        self.inner = solvers.neumann(iterations=iterations) if inner is None else inner
        self.spiking = getattr(self.inner, "spiking", False)
        self.observe, self.solution, self.info, self.observed = observe, None, None, None

    def __call__(self, transpose, g):
        self.solution, self.info = self.inner(transpose, g)
        self.observed = self.observe(transpose, g)
        return self.solution, self.info


def statistics(mean, var):
    return Statistics(mean, var)


def gradients(layer, inputs, state, loss, *, taps=(), recorder=None):
    """Gradients of the parameters (as a layer) and inputs of `loss(outputs)`, outputs and Aux.

    Args:
        layer: layer to differentiate.
        inputs: inputs of the layer.
        state: state of the layer.
        loss: differentiable function of the outputs.
        taps: kinds of taps to collect.
        recorder: solver of the layer; it then holds arrays in place of tracers.
    """
    graphdef, params, constants = nn.split(layer)

    @jax.jit
    def run(params, inputs, constants, state):
        def valued(params, inputs):
            outputs, aux = nn.merge(graphdef, params, constants)(
                inputs, state, nn.Call(training=True, taps=taps)
            )
            return loss(outputs), (outputs, aux)

        found = jax.grad(valued, argnums=(0, 1), has_aux=True)(params, inputs)
        return found, recorder and (recorder.solution, recorder.info, recorder.observed)

    # In NumPy, where comparisons compile nothing.
    found, recorded = jax.device_get(run(params, inputs, constants, state))
    if recorder:
        recorder.solution, recorder.info, recorder.observed = recorded
    (grads, g_inputs), (outputs, aux) = found
    return nn.merge(graphdef, grads, constants), g_inputs, outputs, aux


def initial_state(layer, shape):
    """State at rest; layers infer their shapes in float32, also where float64 is enabled."""

    def cast(tree, dtype):
        floats = lambda x: jnp.issubdtype(x.dtype, jnp.floating)  # noqa: E731
        return jax.tree.map(lambda x: jnp.asarray(x, dtype) if floats(x) else x, tree)

    at_rest = lambda layer: cast(cast(layer, np.float32).initial_state(shape), dtype())  # noqa: E731
    return jax.jit(at_rest)(layer)


def images(x):
    """NCHW as [1, B, H, W, C]."""
    return x.transpose(0, 2, 3, 1)[None]


def oihw(kernel):
    return kernel.transpose(3, 2, 0, 1)


def iohw(kernel):
    """Kernel of a transposed convolution, as PyTorch has it."""
    return kernel.transpose(2, 3, 0, 1)[:, :, ::-1, ::-1]
