"""Rounding that no compiler skips, and products and neurons between arrays of two bytes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, neurons
from snnjax.neurons.lif import LIFState, lif_inverse, lif_state
from snnjax.nn.mixed_precision import MixedStep, mixed_step
from snnjax.ops.convolution import convolution
from snnjax.ops.rounding import add_bias, narrow, product, promote, widen
from tests.compare import assert_equal

pytestmark = pytest.mark.fast

DTYPES = [jnp.bfloat16, jnp.float16]
KEY = jax.random.key(0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_rounds_as_a_cast_does(dtype):
    """Beyond 65504 float16 is infinite; its numbers below 2^-14 have fewer bits."""
    scales = 2.0 ** np.arange(-26, 17, dtype=np.float32)
    values = np.random.default_rng(0).normal(size=(50, 1)).astype(np.float32) * scales
    with np.errstate(over="ignore"):
        expected = values.astype(dtype).astype(np.float32)
    found = jax.jit(lambda x: narrow(x, dtype))(values)
    assert found.dtype == dtype
    wide = np.asarray(found.astype(jnp.float32))
    normal = np.abs(expected) >= (2.0**-14 if dtype == jnp.float16 else 0)
    np.testing.assert_array_equal(wide[normal], expected[normal])
    np.testing.assert_allclose(wide[~normal], expected[~normal], rtol=0, atol=2.0**-24)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_rounding_inside_a_fused_loop_is_not_skipped(dtype):
    """A sum in bfloat16 that is used in float32 is not rounded by XLA:CPU; this one is."""
    x, y = jnp.ones(8, dtype), jnp.full(8, 0.0058, dtype)
    total = np.asarray(widen(x)) + np.asarray(widen(y))
    expected = total.astype(dtype).astype(np.float32)
    found = jax.jit(lambda x, y: 3 * widen(narrow(widen(x) + widen(y), dtype)))(x, y)
    np.testing.assert_array_equal(found, 3 * expected)
    assert not np.array_equal(total, expected)


def test_float32_is_left_alone():
    x = jax.random.normal(KEY, (4,))
    assert widen(x) is x and narrow(x, jnp.float32) is x
    assert widen(jnp.arange(3)).dtype == jnp.int32
    assert promote(x, jnp.bfloat16) is x
    assert promote(x.astype(jnp.bfloat16), jnp.float32).dtype == jnp.float32


def test_the_gradient_of_a_rounding_passes():
    gradient = jax.grad(lambda x: jnp.sum(widen(narrow(x, jnp.bfloat16))))(jnp.ones(3))
    assert_equal(gradient, jnp.ones(3))


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_and_kernel_gradients_of_a_product_are_float32(dtype):
    """Of spikes and whole numbers all is exact, where two bytes hold no 1201."""
    spikes = jnp.ones((2, 3, 1201), dtype)
    kernel, g = jnp.ones((1201, 4)), jnp.full((2, 3, 4), 2.0)
    outputs, pull = jax.vjp(product, spikes, kernel)
    assert_equal(outputs, jnp.full((2, 3, 4), 1201.0))
    g_spikes, g_kernel = pull(g)
    assert_equal(g_spikes, jnp.full(spikes.shape, 8, dtype))
    assert_equal(g_kernel, jnp.full(kernel.shape, 12.0))
    many = jax.vjp(product, jnp.ones((1201, 2), dtype), jnp.ones((2, 4)))[1](jnp.ones((1201, 4)))
    assert_equal(many[1], jnp.full((2, 4), 1201.0))
    assert add_bias(outputs, jnp.ones(4), dtype).dtype == dtype


@pytest.mark.parametrize("groups", [1, 4])
def test_the_kernel_gradient_of_a_convolution_is_not_rounded(groups):
    inputs = jnp.ones((3, 20, 20, 4), jnp.bfloat16)
    kernel = jnp.ones((1, 1, 4 // groups, 4))
    convolve = lambda x, k: convolution(x, k, groups=groups)  # noqa: E731
    outputs, pull = jax.vjp(convolve, inputs, kernel)
    assert outputs.dtype == jnp.bfloat16
    g_inputs, g_kernel = pull(jnp.ones_like(outputs))
    assert g_inputs.dtype == jnp.bfloat16
    assert_equal(g_kernel, jnp.full(kernel.shape, 1200.0))


def test_a_neuron_between_narrow_arrays_is_that_of_float32():
    currents = jax.random.normal(KEY, (5, 2, 7)).astype(jnp.bfloat16)
    params, state = neurons.LIFParams(0.5, 1.0), lif_state((2, 7))
    after, spikes = memory.store(MixedStep(neurons.lif, True), params, state, currents)
    expected = memory.store(neurons.lif, params, state, widen(currents))
    assert spikes.dtype == jnp.bfloat16 and after.v.dtype == jnp.float32
    assert_equal((after, widen(spikes)), expected)


def test_its_inverse_goes_with_it():
    scan = memory.reverse(lif_inverse(decay=0.5))
    step, undone = mixed_step(neurons.lif, scan, spiking=True)
    assert undone.inverse.steps == scan.inverse.steps
    params, state = neurons.LIFParams(0.5, 1.0), LIFState(jnp.full(3, 0.25))
    current = jnp.full(3, 1.5, jnp.bfloat16)
    after, spikes = step(params, state, current)
    assert_equal(undone.inverse(params, after, current, spikes), state)
    assert mixed_step(neurons.lif, None, spiking=False)[1] is None
