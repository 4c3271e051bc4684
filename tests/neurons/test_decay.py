"""From a time constant to a decay per timestep."""

import math

import hypothesis
import hypothesis.strategies as st
import pytest

from snnjax.neurons.decay import euler_decay, exponential_decay

pytestmark = pytest.mark.fast
PROPERTY = hypothesis.settings(max_examples=50, deadline=None, derandomize=True)
positive = st.floats(1e-3, 1e3)


@PROPERTY
@hypothesis.given(tau=positive, dt=positive)
def test_both_lie_between_no_memory_and_no_leak_and_euler_forgets_more(tau, dt):
    exact = exponential_decay(tau, dt=dt)
    assert 0 <= exact < 1
    if dt <= tau:
        assert 0 <= euler_decay(tau, dt=dt) <= exact


@PROPERTY
@hypothesis.given(tau=positive, dt=st.floats(1e-3, 1.0), steps=st.integers(1, 20))
def test_the_exact_decay_composes_over_time(tau, dt, steps):
    once = exponential_decay(tau, dt=dt * steps)
    assert exponential_decay(tau, dt=dt) ** steps == pytest.approx(once, rel=1e-9, abs=1e-300)


def test_for_small_steps_they_agree_to_second_order():
    for dt in (1e-2, 1e-3, 1e-4):
        error = exponential_decay(1.0, dt=dt) - euler_decay(1.0, dt=dt)
        assert error == pytest.approx(dt**2 / 2, rel=dt)


def test_known_values():
    assert euler_decay(2.0) == 0.5
    assert euler_decay(1.0) == 0.0
    assert exponential_decay(1.0) == math.exp(-1)
    assert exponential_decay(math.inf) == euler_decay(math.inf) == 1.0


@pytest.mark.parametrize("decay", [euler_decay, exponential_decay])
@pytest.mark.parametrize(
    ("tau", "dt", "name"),
    [(0.0, 1.0, "tau"), (-2.0, 1.0, "tau"), (2.0, 0.0, "dt"), (math.nan, 1.0, "tau")],
)
def test_times_are_positive(decay, tau, dt, name):
    with pytest.raises(ValueError, match=f"{name} must be positive"):
        decay(tau, dt=dt)


def test_an_unstable_euler_step_names_the_cure():
    with pytest.raises(ValueError, match="smaller dt, or exponential_decay"):
        euler_decay(0.5)
