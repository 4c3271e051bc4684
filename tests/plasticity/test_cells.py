"""Both neurons: golden steps, refractory times, one winner, stability."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import plasticity


def run(cell, excitation, *, inhibition=None, theta=0.0):
    excitation = np.asarray(excitation, np.float32)
    inhibition = np.zeros_like(excitation) if inhibition is None else inhibition
    return _run(cell, excitation, inhibition, np.float32(theta))


@functools.partial(jax.jit, static_argnums=0)
def _run(cell, excitation, inhibition, theta):
    def step(state, x):
        state, spikes, crossed = cell(state, theta, *x)
        return state, (state.v, spikes, crossed)

    return jax.lax.scan(step, cell.initial_state(excitation.shape[1]), (excitation, inhibition))[1]


def test_golden_inhibitory_step():
    """Euler, 0.5 ms, from -65 mV with a conductance of 10.4: -30.95 mV, so it fires at once."""
    cell = plasticity.cells.conductance_inhibitory(euler=True)
    never = dataclasses.replace(cell, threshold=1e9, start=-65.0)
    v, _, _ = run(never, [[10.4]])
    assert float(v[0, 0]) == pytest.approx(-30.95, abs=1e-4)
    assert float(run(dataclasses.replace(cell, start=-65.0), [[10.4]])[1][0, 0]) == 1


def test_conductances_by_euler_halve():
    for euler, kept in ((True, 0.5), (False, math.exp(-0.5))):
        cell = plasticity.cells.ConductanceCell(euler=euler)
        state, _, _ = cell(cell.initial_state(1), jnp.zeros(1), jnp.ones(1), jnp.zeros(1))
        assert float(state.excitation[0]) == pytest.approx(kept, rel=1e-6)


def test_the_exact_step_is_euler_in_the_limit():
    drive = np.full((400, 1), 0.02, np.float32)
    fine = [
        run(plasticity.cells.ConductanceCell(dt=0.05, euler=euler, threshold=1e9), drive)[0][-1, 0]
        for euler in (True, False)
    ]
    assert float(fine[0]) == pytest.approx(float(fine[1]), abs=0.2)
    assert -65 < float(fine[1]) < 0


def test_huge_inhibition_is_stable():
    """400 neurons fire together: the exact step stays between the reversal potentials."""
    inhibition = np.zeros((20, 1), np.float32)
    inhibition[2] = 17 * 400
    quiet = np.zeros((20, 1), np.float32)
    v, spikes, _ = run(plasticity.cells.ConductanceCell(), quiet, inhibition=inhibition)
    assert np.all(np.asarray(v) >= -100.01) and not np.asarray(spikes).any()
    v, _, _ = run(plasticity.cells.ConductanceCell(euler=True), quiet, inhibition=inhibition)
    assert np.abs(np.asarray(v)).max() > 1000


@pytest.mark.parametrize("block", [0.0, 50.0])
def test_no_second_spike_while_blocked(block):
    cell = plasticity.cells.ConductanceCell(block=block)
    _, spikes, _ = run(cell, np.full((400, 1), 5.0, np.float32))
    times = np.flatnonzero(np.asarray(spikes)[:, 0]) * cell.dt
    assert len(times) > 2
    assert np.diff(times).min() > max(block, cell.refractory)


def test_current_cell_leaks_to_rest_and_ignores_input_while_refractory():
    cell = plasticity.cells.CurrentCell()
    v, spikes, _ = run(cell, [[14.0]] + 5 * [[4.0]] + [[4.0]])
    assert np.asarray(spikes)[:, 0].tolist() == [1, 0, 0, 0, 0, 0, 0]
    for t in range(1, 6):
        assert float(v[t, 0]) == pytest.approx(-65 + 5 * math.exp(-t / 100), abs=1e-4)
    assert float(v[6, 0]) == pytest.approx(-65 + 5 * math.exp(-6 / 100) + 4, abs=1e-4)


def test_one_winner_and_all_crossers_reset():
    cell = plasticity.cells.CurrentCell()
    v, spikes, crossed = run(cell, [[15.0, 20.0, 1.0]])
    assert np.asarray(spikes)[0].tolist() == [0, 1, 0]
    assert np.asarray(crossed)[0].tolist() == [True, True, False]
    assert np.asarray(v)[0, :2].tolist() == [-60, -60]
    all_win = dataclasses.replace(cell, one_winner=False)
    assert np.asarray(run(all_win, [[15.0, 20.0, 1.0]])[1])[0].tolist() == [1, 1, 0]


def test_theta_raises_the_threshold():
    assert float(run(plasticity.cells.CurrentCell(), [[14.0]], theta=2.0)[1][0, 0]) == 0
