"""`memory.accumulate`: the gradient of a batch from its parts, in the memory of a part."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory
from snnjax.neurons import LIFParams, lif_scan
from snnjax.neurons.lif import lif_state
from tests.compare import assert_close, assert_equal

T, B, N = 6, 8, 40
rng = np.random.default_rng(0)
WEIGHTS = jnp.asarray(rng.normal(size=(N, N)), jnp.float32)
FRAMES = jnp.asarray(rng.random((T, B, N)) < 0.3, jnp.float32)
TARGETS = {"rates": jnp.asarray(rng.random((B, N)), jnp.float32)}


def loss(weights, frames, targets):
    state = lif_state(frames.shape[1:])
    _, spikes = lif_scan(LIFParams(0.5, 1.0), state, frames @ weights)
    return jnp.mean(jnp.sum((spikes.mean(0) - targets["rates"]) ** 2, -1))


@functools.partial(jax.jit, static_argnums=0)
def step(parts, weights, frames, targets):
    def part(number, frames, targets):
        actual = jax.value_and_grad(loss)(weights, frames, targets)
        return jax.tree.map(lambda x: x / parts, actual), (number, frames[:, 0, 0])

    return memory.accumulate(part, parts, (frames, targets), axes=(1, 0))


@pytest.mark.fast
@pytest.mark.parametrize("parts", [1, 2, 8])
def test_the_sum_is_that_of_the_whole_batch(parts):
    total, (numbers, rows) = step(parts, WEIGHTS, FRAMES, TARGETS)
    assert_close(total, jax.value_and_grad(loss)(WEIGHTS, FRAMES, TARGETS), 1e-6)
    assert_equal(numbers, jnp.arange(parts, dtype=jnp.int32))
    assert_equal(rows, FRAMES[:, :parts, 0].T)  # part i begins with example i


@pytest.mark.fast
def test_it_takes_the_memory_of_a_part_and_no_copy_of_the_batch():
    whole, eighth = (
        step.lower(parts, WEIGHTS, FRAMES, TARGETS).compile().memory_analysis().temp_size_in_bytes
        for parts in (1, 8)
    )
    gradients = 2 * WEIGHTS.nbytes  # of a part, and their sum
    assert eighth - gradients <= (whole - WEIGHTS.nbytes) / 4, (whole, eighth)
    # A copy of the batch would be as large as what the whole keeps of it.
    assert eighth - gradients < FRAMES.nbytes, (eighth, FRAMES.nbytes)


@pytest.mark.fast
def test_narrow_addends_are_added_up_in_float32():
    ones = jnp.ones(512, jnp.bfloat16)
    sums, _ = memory.accumulate(lambda _, x: (x.sum(), ()), 512, (ones,), axes=(0,))
    assert sums.dtype == jnp.float32
    assert sums == 512  # bfloat16 stays at 256


@pytest.mark.fast
@pytest.mark.parametrize("parts", [0, 3, 16])
def test_parts_must_divide_the_batch(parts):
    with pytest.raises(ValueError, match=f"batch of 8 cannot be cut into {parts} equal parts"):
        step(parts, WEIGHTS, FRAMES, TARGETS)
