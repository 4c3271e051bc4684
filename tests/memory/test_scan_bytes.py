"""Bytes of a compiled gradient: what `recompute` saves over time, at any length.

The network is Dense(128 -> 256) - LIF - Dense(10) - LI with a cross entropy of the time mean, batch
32, compiled and not run. XLA's temporary bytes are deterministic; ratios are what is asserted.
"""

import functools

import jax
import jax.numpy as jnp
import pytest

from snnjax import memory, neurons
from snnjax.neurons.li import LIParams
from snnjax.neurons.lif import lif_state

BATCH, LONG, PRIME = 32, 1024, 1021
MIB = 2**20


def cell(params, state, x):
    hidden, out = params
    first, second = state
    first, spikes = neurons.lif(neurons.LIFParams(0.9, 1.0), first, x @ hidden)
    second, y = neurons.li(LIParams(0.9), second, spikes @ out)
    return (first, second), y


def carrying(params, state, x):
    """The same cell with the sum of its outputs in the carry: no `[T, B, K]` leaves."""
    inner, total = state
    inner, y = cell(params, inner, x)
    return (inner, total + y), ()


def loss(scan, carry, params, xs, labels):
    state = lif_state((BATCH, 256)), lif_state((BATCH, 10))
    if carry:
        (_, total), _ = scan(carrying, params, (state, jnp.zeros((BATCH, 10))), xs)
        mean = total / len(xs)
    else:
        mean = jnp.mean(scan(cell, params, state, xs)[1], 0)
    log = jax.nn.log_softmax(mean)
    return -jnp.mean(jnp.take_along_axis(log, labels[:, None], 1))


@functools.cache
def temp_mib(scan, timesteps, carry=False):
    shapes = (
        tuple(jax.ShapeDtypeStruct(s, jnp.float32) for s in ((128, 256), (256, 10))),
        jax.ShapeDtypeStruct((timesteps, BATCH, 128), jnp.float32),
        jax.ShapeDtypeStruct((BATCH,), jnp.int32),
    )
    gradient = jax.jit(jax.grad(functools.partial(loss, scan, carry)))
    return gradient.lower(*shapes).compile().memory_analysis().temp_size_in_bytes / MIB


def test_bytes_fall_from_store_to_every_step_to_every_square_root():
    stored, stepwise = temp_mib(memory.store, LONG), temp_mib(memory.recompute(1), LONG)
    root = temp_mib(memory.recompute(32), LONG)
    membranes = LONG * BATCH * 256 * 4 / MIB
    assert stored == pytest.approx(2 * membranes, rel=0.1)  # slopes and spikes
    assert stepwise == pytest.approx(membranes, rel=0.1)
    assert root < stored / 10


def test_a_prime_length_costs_no_more_than_its_neighbour():
    root = memory.recompute(32)
    assert temp_mib(root, PRIME) < 1.2 * temp_mib(root, LONG)


@pytest.mark.parametrize("every", [16, 64])
def test_the_square_root_of_the_length_is_near_the_best(every):
    assert temp_mib(memory.recompute(32), LONG) < 1.1 * temp_mib(memory.recompute(every), LONG)
    assert temp_mib(memory.recompute(every), LONG) < temp_mib(memory.recompute(1), LONG) / 4


def test_memory_grows_with_the_square_root_of_the_length():
    quarter, long = temp_mib(memory.recompute(16), LONG // 4), temp_mib(memory.recompute(32), LONG)
    assert long < 2.5 * quarter
    assert temp_mib(memory.store, LONG) > 3.5 * temp_mib(memory.store, LONG // 4)


NESTED = memory.recompute("sqrt", inner=memory.recompute(1))


def test_two_levels_keep_a_long_window_within_four_and_a_half_megabytes():
    assert temp_mib(NESTED, LONG) * MIB <= 4.5e6
    assert temp_mib(NESTED, PRIME) <= 1.2 * temp_mib(NESTED, LONG)


def test_with_the_readout_in_the_carry_a_window_sixteen_times_as_long_takes_four_times_as_much():
    assert temp_mib(NESTED, 16 * LONG, True) <= 4 * temp_mib(NESTED, LONG, True)
    assert temp_mib(NESTED, LONG, True) < 0.75 * temp_mib(NESTED, LONG)
