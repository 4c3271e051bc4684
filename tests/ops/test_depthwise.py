"""Depthwise convolution by hand: the same numbers, and the same bits wherever it stands."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax.ops.convolution import Geometry, convolution, convolve, depthwise
from tests.compare import AS_USERS_DO

CASES = {
    "same": Geometry((6, 5), (3, 3), (6, 5), (1, 1), ((1, 1), (1, 1)), 4),
    "stride": Geometry((6, 5), (3, 3), (3, 3), (2, 2), ((1, 1), (1, 1)), 4),
    "valid": Geometry((6, 5), (3, 2), (4, 4), (1, 1), ((0, 0), (0, 0)), 4),
    "series": Geometry((7,), (5,), (7,), (1,), ((2, 2),), 4),
}


def operands(geometry, dtype):
    rng = np.random.default_rng(0)
    shapes = ((3, *geometry.size, 4), (*geometry.window, 1, 4))
    return [jnp.asarray(rng.normal(size=shape)).astype(dtype) for shape in shapes]


@pytest.mark.fast
@pytest.mark.parametrize("geometry", CASES.values(), ids=CASES)
def test_it_is_the_grouped_convolution(x64, geometry):
    x, kernel = operands(geometry, jnp.float64)
    expected = convolve(x, kernel, geometry)
    np.testing.assert_allclose(depthwise(x, kernel, geometry), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.fast
def test_half_precision_is_rounded_once():
    x, kernel = operands(CASES["same"], jnp.bfloat16)
    exact = depthwise(x.astype(jnp.float32), kernel.astype(jnp.float32), CASES["same"])
    actual = depthwise(x, kernel, CASES["same"])
    assert actual.dtype == jnp.bfloat16
    np.testing.assert_array_equal(actual, exact.astype(jnp.bfloat16))


@pytest.mark.fast
def test_a_layer_of_it_rounds_alike_alone_in_a_loop_and_with_company():
    x, kernel = operands(CASES["same"], jnp.float32)

    def layer(x):
        return convolution(x * 0.3 + 0.1, kernel, groups=4) * 1.7

    def in_loop(x):
        return jax.lax.scan(lambda carry, _: (carry, layer(carry)), x, None, length=3)[1][1]

    jit = functools.partial(jax.jit, compiler_options=AS_USERS_DO)
    alone = jit(lambda x: convolution(x, kernel, groups=4))(jit(lambda x: x * 0.3 + 0.1)(x))
    for run in (layer, in_loop, jax.checkpoint(layer)):
        np.testing.assert_array_equal(jit(run)(x), alone * np.float32(1.7))
