"""The IF against plain loops, and as the LIF that never leaks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, neurons
from snnjax.neurons import LIFParams
from snnjax.neurons.integrate_fire import IFParams
from snnjax.neurons.lif import LIFState, lif_state
from snnjax.typing import bind
from tests.compare import assert_close, assert_equal
from tests.oracle import neurons as oracle

pytestmark = pytest.mark.fast
T, B, N = 7, 2, 3


def inputs(dtype=jnp.float64):
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(0.3, 0.7, (T, B, N)), dtype)


@pytest.mark.parametrize("rule", ["subtract", "zero"])
def test_equals_the_loops(x64, rule):
    xs, threshold = inputs(), jnp.asarray([0.5, 0.8, 1.1])
    state, spikes = memory.store(
        bind(neurons.integrate_fire, reset=getattr(neurons.reset, rule)),
        IFParams(threshold),
        lif_state((B, N), dtype=jnp.float64),
        xs,
    )
    expected, after, _ = oracle.lif(np.asarray(xs), 1.0, np.asarray(threshold), rule=rule)
    np.testing.assert_array_equal(spikes, expected)
    assert_close(state.v, after[-1], 1e-13)


def test_nothing_is_lost_the_membrane_is_what_came_in_minus_what_went_out(x64):
    xs = inputs()
    rest = lif_state((B, N), dtype=jnp.float64)
    model = neurons.integrate_fire_model(threshold=jnp.float64(0.7))
    state, spikes = model.sequence(model.params, rest, xs)
    assert_close(state.v, jnp.sum(xs, 0) - 0.7 * jnp.sum(spikes, 0), 1e-12)


@pytest.mark.parametrize(
    "reset", [neurons.reset.subtract, neurons.reset.detached(neurons.reset.zero)]
)
def test_the_whole_sequence_function_equals_the_scanned_step_and_the_lif_of_decay_one(x64, reset):
    xs, state = inputs(), LIFState(jnp.full((B, N), 0.2))
    threshold = jnp.asarray([0.5, 0.8, 1.1])

    @functools.partial(jax.jit, static_argnums=0)
    def run(scan, threshold, state, xs):
        def loss(threshold, state, xs):
            after, spikes = scan(threshold, state, xs)
            return jnp.sum(jnp.sin(after.v)) + jnp.sum(spikes * jnp.cos(xs)), (after, spikes)

        return jax.grad(loss, (0, 1, 2), has_aux=True)(threshold, state, xs)

    def sequence(threshold, state, xs):
        model = neurons.integrate_fire_model(reset=reset)
        return model.sequence(IFParams(threshold), state, xs)

    def scanned(threshold, state, xs):
        step = bind(neurons.integrate_fire, reset=reset)
        return memory.store(step, IFParams(threshold), state, xs)

    def leakless(threshold, state, xs):
        params = LIFParams(jnp.ones(()), threshold)
        return memory.store(bind(neurons.lif, reset=reset), params, state, xs)

    expected, expected_outputs = run(leakless, threshold, state, xs)
    for scan in (sequence, scanned):
        gradients, outputs = run(scan, threshold, state, xs)
        assert_equal(outputs, expected_outputs)
        assert_close(gradients, expected, 1e-12)


def test_a_delayed_reset_has_no_whole_sequence_function():
    assert (
        neurons.integrate_fire_model(reset=neurons.reset.delayed(neurons.reset.subtract)).sequence
        is None
    )


def test_an_initial_membrane_is_the_state_at_rest():
    plain, charged = neurons.integrate_fire_model(), neurons.integrate_fire_model(initial=0.5)
    assert charged == neurons.integrate_fire_model(initial=0.5) != plain
    assert charged.initial_state((2, 3)).v.tolist() == [[0.5] * 3] * 2
    assert charged.initial_state((1,), dtype=jnp.float16).v.dtype == jnp.float16
    # Everything else is that of the plain model, so that one program serves both.
    assert (charged.step, charged.sequence, charged.inverse) == (
        *(plain.step, plain.sequence, plain.inverse),
    )
    with pytest.raises(ValueError, match="initial must be"):
        neurons.integrate_fire_model(initial=float("nan"))


def test_latency_fires_on_the_membrane_of_the_step_before(x64):
    model = neurons.integrate_fire_model(threshold=1.0, latency=True)
    xs = jnp.asarray([0.6, 0.4, 0.5, 0.0])[:, None]
    state, spikes = memory.store(model.step, model.params, model.initial_state((1,)), xs)
    # Membranes .6, 1.0 (at the threshold: no spike), 1.5, .5.
    assert spikes[:, 0].tolist() == [0, 0, 0, 1]
    assert state.v.tolist() == [0.5]
    back = state
    for x, s in zip(xs[::-1], spikes[::-1], strict=True):
        back = model.require_inverse()(model.params, back, x, s)
    assert_close(back, LIFState(jnp.zeros(1)), 1e-15)
    with pytest.raises(ValueError, match="latency delays the reset already"):
        neurons.integrate_fire_model(reset=neurons.reset.delayed(neurons.reset.zero), latency=True)
