"""Bytes of a reversed stack: nothing grows with depth, and the rest is a working set of one branch.

Blocks are LIF-conv3x3-BN couplings, compiled and not run; XLA's temporary bytes are deterministic.
The unit is one stream, of which four are there at any time: both halves and their cotangents.
"""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from snnjax import memory, nn

T, B = 4, 8


@functools.cache
def streams(strategy, depth, shape):
    """Temporary bytes of the gradient, in streams `[T, B, H, W, C]`."""
    *size, channels = shape

    def branch(rngs):
        conv = nn.Conv(channels, channels, rngs=rngs)
        return nn.Sequential(nn.LIF(), conv, nn.BatchNorm(channels))

    def make():
        body = nn.Reversible(branch, branch, depth, rngs=nnx.Rngs(0))
        network = nn.Network(body, (*size, 2 * channels))
        return nn.with_memory(network, memory.parse_strategy(strategy))

    def loss(network, x, statistics):
        start = network.initial_state(B, statistics=statistics)
        outputs, aux = network(x, start, training=True)
        return jnp.mean(outputs**2), aux.statistics

    network = jax.eval_shape(make)
    x = jax.ShapeDtypeStruct((T, B, *size, 2 * channels), jnp.float32)
    statistics = jax.eval_shape(lambda: make().initial_state(B).statistics)
    gradient = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    compiled = gradient.lower(network, x, statistics).compile()
    return compiled.memory_analysis().temp_size_in_bytes / (2 * x.size)


SMALL, FACT_A = (8, 8, 16), (16, 16, 32)


def test_reversed_bytes_do_not_grow_with_depth():
    assert streams("depth=reverse", 16, SMALL) == streams("depth=reverse", 4, SMALL)


@pytest.mark.slow  # tests/nn/test_repeated.py compares what recomputed blocks keep
def test_recomputed_bytes_grow_by_a_stream_per_half():
    each = "depth=recompute(1)"
    assert streams(each, 16, SMALL) == streams(each, 4, SMALL) + 2 * 12


def test_a_reversed_block_holds_the_working_set_of_one_branch():
    """Streams and cotangents, one branch's spikes and currents; membranes are computed again.

    Besides, some timesteps' states, of which each is a quarter of a stream here.
    """
    assert streams("depth=reverse", 4, FACT_A) < 4 + 2 + 0.5


@pytest.mark.slow  # a branch that is kept as it is, not computed again: more bytes, no less exact
def test_a_stored_branch_holds_its_membranes_too():
    assert streams("depth=reverse(inner=store)", 4, FACT_A) < 4 + 3 + 0.25


@pytest.mark.slow
def test_thirty_times_less_than_store_at_32_blocks():
    """6.7 MB at any depth against 209.4 MB stored at 32 blocks: 31 times."""
    reversed_ = [streams("depth=reverse", depth, FACT_A) for depth in (4, 16, 32, 64)]
    assert len(set(reversed_)) == 1
    assert streams("depth=store", 32, FACT_A) >= 30 * reversed_[0]
