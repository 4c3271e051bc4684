"""Scaled weight standardisation against its formula in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import nn
from snnjax.nn.scaled_conv import standardize
from tests.compare import assert_close

W = jax.random.normal(jax.random.key(0), (3, 3, 4, 5)) * 2 + 1
GAIN = jnp.linspace(0.5, 2.0, 5)


def test_the_kernel_is_that_of_the_equation():
    w = np.asarray(W, np.float64)
    columns = []
    for d in range(5):
        one = w[..., d]
        columns.append(float(GAIN[d]) * (one - one.mean()) / np.sqrt(one.var() + 1e-6) / 6.0)
    assert_close(standardize(W, GAIN), np.stack(columns, -1), 1e-6)


def test_shift_and_scale_of_the_weights_do_not_matter():
    assert_close(standardize(3 * W - 2, GAIN), standardize(W, GAIN), 1e-5)


@pytest.mark.parametrize(("kernel", "strides"), [(1, 1), (3, 2), (7, 2)])
def test_shapes_parameters_and_bias(kernel, strides):
    layer = nn.ScaledStdConv(2, 6, kernel=kernel, strides=strides, rngs=nnx.Rngs(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(layer)) == kernel**2 * 12 + 12
    layer.function.bias[...] = jnp.arange(6.0)
    outputs, _ = layer(jnp.zeros((2, 3, 8, 8, 2)), nn.State(), nn.Call(training=True))
    assert outputs.shape == (2, 3, 8 // strides, 8 // strides, 6)
    np.testing.assert_array_equal(outputs[0, 0, 0, 0], jnp.arange(6.0))


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="odd"):
        nn.ScaledStdConv(2, 3, kernel=4, rngs=nnx.Rngs(0))
