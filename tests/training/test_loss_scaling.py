"""Loss scaling: found by halving, raised by patience, and exact; steps in each precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import data, training
from snnjax.nn.mixed_precision import Precision
from snnjax.training import _loss_scaling as scaling
from tests.compare import assert_close
from tests.training.conftest import assert_same_bits, make

HALF = Precision(compute="float16")
YES, NO = jnp.asarray(True), jnp.asarray(False)


def started(scale=2.0**15, steps=0):
    return scaling.LossScale(jnp.float32(scale), jnp.int32(steps))


def numbers(scale):
    return float(scale.scale), int(scale.finite_steps)


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_only_float16_has_a_scale(compute):
    nothing = scaling.initial_scale(Precision(compute=compute))
    assert nothing == ()
    loss, gradients = jnp.float32(3), {"w": jnp.ones(2)}
    assert scaling.scale_loss(loss, nothing) is loss
    assert scaling.unscale_gradients(gradients, nothing)["w"] is gradients["w"]
    assert scaling.next_scale(nothing, NO) == ()
    assert not scaling.is_overflow(nothing, NO)
    assert numbers(scaling.initial_scale(HALF)) == (2.0**15, 0)


@pytest.mark.parametrize(
    ("before", "finite", "after"),
    [
        (started(8, 5), YES, (8, 6)),
        (started(8, 1999), YES, (16, 0)),
        (started(2.0**24, 1999), YES, (2.0**24, 0)),
        (started(8, 1999), NO, (4, 0)),
        (started(1, 7), NO, (1, 0)),
    ],
)
def test_the_scale_doubles_by_patience_and_halves_at_once(before, finite, after):
    assert numbers(jax.jit(scaling.next_scale)(before, finite)) == after


def test_an_overflow_is_mended_until_the_floor():
    assert scaling.is_overflow(started(2), NO)
    assert not scaling.is_overflow(started(1), NO)
    assert not scaling.is_overflow(started(2), YES)


def test_gradients_that_float16_would_flush_survive():
    """A gradient of 1e-8 is 0 in float16; under the scale it is right to its 11 bits."""

    def loss(w):
        return 1e-8 * w.astype(jnp.float16).astype(jnp.float32)

    scale = started()
    plain = jax.grad(loss)(jnp.float32(1))
    lifted = jax.grad(lambda w: scaling.scale_loss(loss(w), scale))(jnp.float32(1))
    assert plain == 0
    np.testing.assert_allclose(scaling.unscale_gradients(lifted, scale), 1e-8, rtol=2.0**-11)


def test_scaling_rounds_nothing():
    values = jax.random.normal(jax.random.key(0), (100,))
    again = scaling.unscale_gradients(scaling.scale_loss(values, started()), started())
    np.testing.assert_array_equal(again, values)
    assert scaling.unscale_gradients(values.astype(jnp.bfloat16), started()).dtype == jnp.float32


# Steps.


@functools.cache
def stepping(precision, accumulate=1):
    """The compiled step of a tiny run, its state before the first step, and a batch."""
    experiment = make(precision=precision, accumulate=accumulate, batch=32)
    program, state = training.initialize(experiment, steps=10)
    dataset = training.config.load_dataset(experiment)
    batch = jax.tree.map(jnp.asarray, data.Loader(dataset.train, batch_size=32, seed=0).batch(0))
    return jax.jit(functools.partial(training.train_step, program)), state, batch


def kernels(tree):
    return [leaf for leaf in jax.tree.leaves(tree) if leaf.ndim == 2]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_the_first_step_is_that_of_float32_but_for_rounding(precision):
    """Norms of a gradient, as single entries jump where a rounding flips a spike."""
    step, state, batch = stepping(precision)
    _, metrics = step(state, batch)
    plain, before, _ = stepping("float32")
    _, expected = plain(before, batch)
    assert metrics.finite
    assert_close(metrics.loss, expected.loss, 0.05)
    assert_close(metrics.gradient_norm, expected.gradient_norm, 0.15)
    assert float(metrics.gradient_norm) != float(expected.gradient_norm)


def test_only_float16_tells_a_scale():
    assert stepping("bfloat16")[0](*stepping("bfloat16")[1:])[1].loss_scale == ()
    step, state, batch = stepping("float16")
    after, metrics = step(state, batch)
    assert float(metrics.loss_scale) == 2.0**15
    assert numbers(after.loss_scale) == (2.0**15, 1)


def test_an_overflow_halves_the_scale_and_leaves_the_update_out():
    step, state, batch = stepping("float16")
    high = state._replace(loss_scale=started(2.0**40))
    after, metrics = step(high, batch)
    assert not metrics.finite and after.finite and jnp.isfinite(metrics.loss)
    assert (int(after.step), int(after.position)) == (1, 1)
    assert numbers(after.loss_scale) == (2.0**24, 0)  # what it may be at most
    for part in ("params", "optimizer", "statistics"):
        assert_same_bits(getattr(after, part), getattr(high, part))


def test_at_the_floor_it_is_a_fault():
    step, state, batch = stepping("float16")
    broken = state._replace(
        params=jax.tree.map(lambda p: p * jnp.float32(jnp.inf), state.params),
        loss_scale=started(1),
    )
    after, metrics = step(broken, batch)
    assert not metrics.finite and not after.finite
    assert_same_bits(after._replace(finite=broken.finite), broken)


def test_bfloat16_parameters_are_moved_in_float32():
    step, state, batch = stepping("compute=bfloat16, params=bfloat16")
    after, metrics = step(step(state, batch)[0], batch)  # the first learning rate is 0
    assert metrics.finite
    assert {w.dtype for w in kernels(after.params)} == {jnp.dtype("bfloat16")}
    assert {w.dtype for w in kernels(after.optimizer)} == {jnp.dtype("float32")}
    pairs = zip(kernels(after.params), kernels(state.params), strict=True)
    assert all(not np.array_equal(new, old) for new, old in pairs)


def test_accumulated_gradients_are_scaled_part_by_part():
    """Batch norm sees other batches in parts: of one size, but for that."""
    parts, state, batch = stepping("float16", accumulate=2)
    _, metrics = parts(state, batch)
    assert metrics.finite
    _, whole = stepping("float16")[0](state, batch)
    assert_close(metrics.gradient_norm, whole.gradient_norm, 0.3)
