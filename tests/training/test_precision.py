"""Loss scaling: found by halving, raised by patience, and exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax.nn.precision import Precision
from snnjax.training import precision as scaling

pytestmark = pytest.mark.fast

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
    assert scaling.scaled(loss, nothing) is loss
    assert scaling.unscaled(gradients, nothing)["w"] is gradients["w"]
    assert scaling.after_step(nothing, NO) == ()
    assert not scaling.overflowed(nothing, NO)
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
    assert numbers(jax.jit(scaling.after_step)(before, finite)) == after


def test_an_overflow_is_mended_until_the_floor():
    assert scaling.overflowed(started(2), NO)
    assert not scaling.overflowed(started(1), NO)
    assert not scaling.overflowed(started(2), YES)


def test_what_float16_would_flush_survives():
    """A gradient of 1e-8 is 0 in float16; under the scale it is right to its 11 bits."""

    def loss(w):
        return 1e-8 * w.astype(jnp.float16).astype(jnp.float32)

    scale = started()
    plain = jax.grad(loss)(jnp.float32(1))
    lifted = jax.grad(lambda w: scaling.scaled(loss(w), scale))(jnp.float32(1))
    assert plain == 0
    np.testing.assert_allclose(scaling.unscaled(lifted, scale), 1e-8, rtol=2.0**-11)


def test_scaling_rounds_nothing():
    values = jax.random.normal(jax.random.key(0), (100,))
    again = scaling.unscaled(scaling.scaled(values, started()), started())
    np.testing.assert_array_equal(again, values)
    assert scaling.unscaled(values.astype(jnp.bfloat16), started()).dtype == jnp.float32
