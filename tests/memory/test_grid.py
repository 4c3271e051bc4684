"""On the grid float32 addition is exact, and rounding passes the gradient straight through."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snnjax import memory

pytestmark = pytest.mark.fast


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), bits=st.sampled_from([8, 12, 16]))
def test_adding_and_taking_away_is_exact_below_the_bound(seed, bits):
    rng = np.random.default_rng(seed)
    bound = memory.grid.grid_bound(bits=bits) / 2
    x, f = (
        memory.grid.on_grid(jnp.asarray(rng.uniform(-bound, bound, 64), jnp.float32), bits=bits)
        for _ in range(2)
    )
    np.testing.assert_array_equal((x + f) - f, x)
    np.testing.assert_array_equal(memory.grid.on_grid(x, bits=bits), x)


def test_off_the_grid_it_is_not():
    rng = np.random.default_rng(0)
    x, f = (jnp.asarray(rng.uniform(-4, 4, 4096), jnp.float32) for _ in range(2))
    assert float(jnp.abs((x + f) - f - x).max()) > 0


def test_rounding_error_and_gradient():
    x = jnp.linspace(-3, 3, 1001, dtype=jnp.float32)
    assert float(jnp.abs(memory.grid.on_grid(x) - x).max()) <= 2.0**-13
    np.testing.assert_array_equal(
        jax.grad(lambda x: memory.grid.on_grid(x).sum())(x), jnp.ones_like(x)
    )
    assert memory.grid.on_grid(x.astype(jnp.bfloat16)).dtype == jnp.float32
    assert memory.grid.on_grid(x, bits=None) is x


def test_peak_and_bits_left():
    peak = memory.grid.stream_peak((jnp.asarray([1.0, -8.0]), jnp.asarray([[3.0]])))
    assert float(peak) == 8.0
    assert memory.grid.bits_left(8.0) == 9.0
    assert memory.grid.bits_left(2.0**13) < 0


@pytest.mark.parametrize("bits", [0, 23])
def test_a_grid_float32_cannot_hold_is_refused(bits):
    with pytest.raises(ValueError, match="1 to 22"):
        memory.grid.on_grid(jnp.zeros(1), bits=bits)
