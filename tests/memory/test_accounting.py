"""Bytes from the compilation, and what the backward pass keeps by name."""

import functools

import jax
import jax.numpy as jnp
import pytest

from snnjax import memory, neurons
from snnjax.neurons.lif import lif_state

T, B, N = 16, 2, 8
STEP = neurons.lif
X = jax.ShapeDtypeStruct((T, B, N), jnp.float32)


def loss(scan, xs):
    params = neurons.LIFParams(jnp.asarray(0.5), jnp.asarray(1.0))
    _, spikes = scan(STEP, params, lif_state((B, N)), jnp.sin(xs))
    return jnp.sum(jnp.sin(spikes))


@pytest.mark.fast
def test_the_bytes_are_xla_s_and_nothing_runs():
    gradient = jax.jit(jax.grad(functools.partial(loss, memory.store)))
    measured = memory.measure(gradient, X, samples=B)
    analysis = gradient.lower(X).compile().memory_analysis()
    assert measured.temp_bytes == analysis.temp_size_in_bytes
    assert measured.argument_bytes == T * B * N * 4 == measured.output_bytes
    assert measured.total_bytes == 2 * T * B * N * 4 + measured.temp_bytes
    assert measured.bytes_per_sample == measured.total_bytes / B
    assert memory.measure(gradient, X).bytes_per_sample is None


@pytest.mark.fast
def test_compiler_options_reach_xla():
    options = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    gradient = jax.grad(functools.partial(loss, memory.store))
    assert memory.measure(gradient, X, compiler_options=options).temp_bytes > 0
    with pytest.raises(Exception, match="no_such_option"):
        memory.measure(gradient, X, compiler_options={"no_such_option": 1})


def test_residuals_have_a_size_and_a_source():
    stored = memory.accounting.residuals(functools.partial(loss, memory.store), X)
    assert stored[0].shape == (T, B, N) and stored[0].dtype == "float32"
    assert stored[0].nbytes == T * B * N * 4
    assert any("test_accounting.py" in r.source for r in stored)
    assert [r.nbytes for r in stored] == sorted((r.nbytes for r in stored), reverse=True)
    assert (
        len(memory.accounting.residuals(functools.partial(loss, memory.store), X, largest=1)) == 1
    )


def test_recomputing_leaves_the_states_of_segments():
    replayed = memory.accounting.residuals(functools.partial(loss, memory.recompute(every=4)), X)
    # Of the scan: one state per segment. The sine's input and the spikes' cosine stay outside.
    assert (T // 4, B, N) in [r.shape for r in replayed]


@pytest.mark.fast
def test_the_measured_peak_is_the_devices_own_or_nothing():
    class Device:
        def __init__(self, stats):
            self.memory_stats = lambda: stats

    assert memory.accounting.device_peak(device=Device({"peak_bytes_in_use": 7})) == 7
    assert memory.accounting.device_peak(device=Device(None)) is None  # a CPU
    assert memory.accounting.device_peak() is None or memory.accounting.device_peak() > 0
