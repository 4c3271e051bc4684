"""Access to rows and columns of weights, in float32 and as codes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import plasticity
from snnjax.plasticity import _synapses as synapses
from snnjax.quantization import QFormat
from snnjax.quantization.fixed_point import stochastic

WEIGHTS = jnp.asarray(np.random.default_rng(0).random((9, 5), np.float32))
BYTES = QFormat(0, 8)
CODES = jax.jit(BYTES.to_integers)(WEIGHTS)
# Jitted once: outside a jit, `cond` and `while_loop` compile at every call.
drive = jax.jit(synapses.drive, static_argnames=("form", "short_list"))
update_columns = jax.jit(synapses.update_columns, static_argnums=2, static_argnames="form")


@pytest.mark.parametrize("few", [2, 6, 24])
@pytest.mark.parametrize("active", [[9] * 6, [3, 9, 9, 9, 9, 9], [3, 1, 3, 8, 9, 9]])
def test_drive_sums_the_rows(active, few):
    active = jnp.array(active)
    expected = sum((np.asarray(WEIGHTS)[i] for i in active if i < 9), np.zeros(5))
    np.testing.assert_allclose(drive(WEIGHTS, active, short_list=few), expected, rtol=1e-6)
    expected = sum((np.asarray(CODES)[i] / 256 for i in active if i < 9), np.zeros(5))
    np.testing.assert_allclose(
        drive(CODES, active, form=BYTES, short_list=few), expected, rtol=1e-6
    )


def test_columns_are_changed_one_by_one():
    which = jnp.array([True, False, False, True, False])
    raised = lambda column, j: column + j.astype(jnp.float32) + 1  # noqa: E731
    actual = update_columns(WEIGHTS, which, raised)
    expected = np.asarray(WEIGHTS) + np.asarray(which) * (np.arange(5) + 1)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    none = update_columns(WEIGHTS, jnp.zeros(5, bool), raised)
    assert np.array_equal(none, WEIGHTS)


def test_rows_are_changed_once_and_padding_not_at_all():
    active = jnp.array([2, 7, 2, 9, 9])
    actual = synapses.update_rows(WEIGHTS, active, lambda rows: rows - 0.01)
    expected = np.asarray(WEIGHTS).copy()
    expected[[2, 7]] -= 0.01
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_codes_stay_on_their_grid_and_others_untouched():
    codes, which = CODES, jnp.array([False, True, False, False, False])
    actual = update_columns(codes, which, lambda c, j: c * 1.5, form=BYTES)
    assert actual.dtype == jnp.uint8
    assert np.array_equal(np.delete(actual, 1, 1), np.delete(codes, 1, 1))
    expected = np.minimum(np.round(1.5 * np.asarray(codes)[:, 1]), 255)
    np.testing.assert_allclose(np.asarray(actual)[:, 1], expected, atol=1)


def test_small_updates_are_lost_by_rounding_and_kept_by_chance():
    """Changes below half a step of 8 bits vanish by rounding to nearest, not stochastically."""
    half = jnp.full((500, 1), 0.5)
    which, change = jnp.array([True]), 1e-3

    @functools.partial(jax.jit, static_argnums=0)
    def after(form):
        def step(codes, key):
            raised = synapses.update_columns(
                codes, which, lambda column, j: column + change, form=form, key=key
            )
            return raised, None

        codes = form.to_integers(half, key=jax.random.key(0))
        codes, _ = jax.lax.scan(step, codes, jax.random.split(jax.random.key(1), 50))
        return form.from_integers(codes).mean()

    assert after(BYTES) == 0.5
    assert after(QFormat(0, 8, rounding=stochastic)) == pytest.approx(0.55, abs=2e-3)


@pytest.mark.parametrize(
    "dependence", [plasticity.weight_dependence.Additive(), plasticity.weight_dependence.Power(0.0)]
)
def test_a_power_of_zero_is_additive(dependence):
    assert np.array_equal(dependence.up(WEIGHTS, 1.0), np.ones_like(WEIGHTS))
    assert np.array_equal(dependence.down(WEIGHTS, 1.0), np.ones_like(WEIGHTS))
