"""The LIF against plain loops: values, ties at the threshold, every reset, the gradient by hand."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, neurons, surrogate
from snnjax.neurons import LIFParams, lif, lif_scan
from snnjax.neurons.lif import LIFState, lif_state
from snnjax.typing import bind
from tests.compare import assert_close, assert_equal
from tests.oracle import neurons as oracle

T, B, N = 7, 2, 3
PROPERTY = hypothesis.settings(max_examples=20, deadline=None, derandomize=True)
RESETS = {
    "subtract": (neurons.reset.subtract, {"rule": "subtract"}),
    "zero": (neurons.reset.zero, {"rule": "zero"}),
    "to": (neurons.reset.to(-0.25), {"rule": "to", "value": -0.25}),
    "none": (neurons.reset.none, {"rule": "none"}),
}
OPTIONS = [
    (reset, scale, strict)
    for reset in RESETS
    for scale in (False, True)
    for strict in (False, True)
]


@jax.jit
def every_option(decay, threshold, v0, xs):
    """Spikes and last membranes under all options, in one compiled program."""
    results = []
    for reset, scale, strict in OPTIONS:
        spike = surrogate.strict(surrogate.arctan()) if strict else surrogate.arctan()
        step = bind(lif, spike=spike, reset=RESETS[reset][0], scale_input=scale)
        state, spikes = memory.store(step, LIFParams(decay, threshold), LIFState(v0), xs)
        results.append((spikes, state.v))
    return results


def check_every_option(decay, threshold, v0, xs, bound):
    for (reset, scale, strict), (spikes, last) in zip(
        OPTIONS, every_option(decay, threshold, v0, xs), strict=True
    ):
        expected, after, _ = oracle.lif(
            np.asarray(xs, np.float64),
            np.asarray(decay, np.float64),
            np.asarray(threshold, np.float64),
            v0=np.asarray(v0, np.float64),
            scale_input=scale,
            strict=strict,
            **RESETS[reset][1],
        )
        np.testing.assert_array_equal(spikes, expected)
        assert_close(last, after[-1], bound)


@PROPERTY
@hypothesis.given(seed=st.integers(0, 2**32 - 1), drive=st.floats(-0.5, 2.0))
def test_equals_the_loops_for_any_input(seed, drive):
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        check_every_option(
            jnp.asarray(rng.uniform(0.05, 1.0, N)),
            jnp.asarray(rng.uniform(0.3, 1.5, N)),
            jnp.asarray(rng.normal(0, 0.5, (B, N))),
            jnp.asarray(rng.normal(drive, 1.0, (T, B, N))),
            1e-13,
        )


@pytest.mark.fast
def test_a_membrane_exactly_at_its_threshold_fires_unless_strict():
    """On a dyadic grid every sum is exact, so many membranes land on the threshold itself."""
    rng = np.random.default_rng(0)
    xs = jnp.asarray(rng.integers(-2, 9, (T, B, N)) / 8, jnp.float32)
    half, quarter = jnp.full(N, 0.5), jnp.full(N, 0.25)
    check_every_option(half, quarter, jnp.zeros((B, N)), xs, 0.0)
    outputs = every_option(half, quarter, jnp.zeros((B, N)), xs)
    spikes = {option: out[0] for option, out in zip(OPTIONS, outputs, strict=True)}
    assert np.any(spikes["zero", False, False] != spikes["zero", False, True])


@pytest.mark.parametrize("rule", ["subtract", "zero", "none"])
def test_a_delayed_reset_acts_one_step_later_on_the_decayed_membrane(x64, rule):
    xs = np.random.default_rng(1).normal(0.4, 0.8, (T, B, N))
    reset = neurons.reset.delayed(RESETS[rule][0])
    step = bind(lif, spike=surrogate.strict(surrogate.arctan()), reset=reset)
    params = LIFParams(jnp.float64(0.8), jnp.float64(0.7))
    state, spikes = memory.store(step, params, lif_state((B, N), dtype=jnp.float64), xs)
    expected, membranes = oracle.lif_delayed(xs, 0.8, 0.7, rule=rule)
    np.testing.assert_array_equal(spikes, expected)
    assert np.sum(spikes) > 0
    assert_close(state.v, membranes[-1], 1e-13)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("scale_input", [False, True])
def test_the_gradient_is_backpropagation_through_time_by_hand(x64, hard, detach, scale_input):
    rng = np.random.default_rng(4)
    xs, g = rng.normal(0.5, 0.9, (T, B, N)), rng.normal(size=(T, B, N))
    v0, g_last = rng.normal(0, 0.3, (B, N)), rng.normal(size=(B, N))
    reset = neurons.reset.zero if hard else neurons.reset.subtract
    spike = surrogate.arctan(alpha=1.5)
    options = {"spike": spike, "reset": neurons.reset.detached(reset) if detach else reset}
    options["scale_input"] = scale_input

    @functools.partial(jax.jit, static_argnums=0)
    @functools.partial(jax.grad, argnums=(1, 2, 3, 4))
    def gradient(scan, xs, v0, decay, threshold):
        state, spikes = scan(LIFParams(decay, threshold), LIFState(v0), xs)
        return jnp.sum(spikes * g) + jnp.sum(state.v * g_last)

    expected = oracle.lif_gradient(
        xs, g, g_last, 0.7, 0.9, v0=v0, hard=hard, detach=detach, scale_input=scale_input,
        slope=lambda u: 0.75 / (1 + (np.pi / 2 * 1.5 * u) ** 2),
    )  # fmt: skip
    for run in (bind(lif_scan, **options), functools.partial(memory.store, bind(lif, **options))):
        assert_close(gradient(run, xs, v0, 0.7, 0.9), expected, 1e-12)


@pytest.mark.fast
def test_a_constant_current_is_the_fixed_point_of_a_scaled_input():
    params, current = LIFParams(jnp.float32(0.9), jnp.float32(2.0)), jnp.full((1, 3), 1.5)
    step = bind(lif, scale_input=True)
    state, spikes = memory.store(step, params, lif_state((1, 3)), jnp.tile(current, (200, 1, 1)))
    assert_close(state.v, current, 1e-5)
    assert jnp.sum(spikes) == 0


@pytest.mark.fast
def test_without_spikes_a_lif_is_linear_in_its_input():
    params = LIFParams(jnp.float32(0.9), jnp.float32(1e9))
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(T, B, N)), jnp.float32)
    rest = lif_state((B, N))
    one, two = (lif_scan(params, rest, k * xs)[0].v for k in (1, 2))
    assert_equal(2 * one, two)


@pytest.mark.fast
def test_the_resting_state():
    state = lif_state((2, 3), dtype=jnp.bfloat16)
    assert_equal(state, LIFState(jnp.zeros((2, 3), jnp.bfloat16)))
    assert lif_state((4,)).v.dtype == jnp.float32


@pytest.mark.fast
def test_half_precision_stays_half_precision():
    dtype = jnp.bfloat16
    params = LIFParams(jnp.asarray(0.5, dtype), jnp.asarray(1.0, dtype))
    xs = jnp.ones((T, B, N), dtype)
    for run in (lif_scan, functools.partial(memory.store, lif)):
        state, spikes = jax.eval_shape(run, params, lif_state((B, N), dtype=dtype), xs)
        assert state.v.dtype == spikes.dtype == dtype
        gradient = jax.grad(lambda xs, run=run: jnp.sum(run(params, LIFState(xs[0] * 0), xs)[1]))
        assert jax.eval_shape(gradient, xs).dtype == dtype


def test_a_hard_reset_may_as_well_be_delayed(x64):
    """Decay times zero is zero: the same spikes, and the same gradient once it is detached."""
    rng = np.random.default_rng(8)
    xs, g = jnp.asarray(rng.normal(0.5, 0.8, (T, B, N))), jnp.asarray(rng.normal(size=(T, B, N)))
    hard = neurons.reset.detached(neurons.reset.zero)

    def total(xs, reset):
        rest = lif_state((B, N), dtype=xs.dtype)
        spikes = memory.store(bind(lif, reset=reset), LIFParams(0.8, 0.7), rest, xs)[1]
        return jnp.sum(spikes * g), spikes

    now, late = (jax.grad(total, has_aux=True)(xs, r) for r in (hard, neurons.reset.delayed(hard)))
    np.testing.assert_array_equal(now[1], late[1])
    assert_close(late[0], now[0], 1e-13)
