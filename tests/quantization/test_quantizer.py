"""Scales fitted to weights: the fit, the gradient, powers of two, and their storage."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax.quantization import Quantizer

WEIGHTS = jax.random.normal(jax.random.key(0), (3, 3, 8, 4)) * jnp.array([1, 0.1, 4, 0.01])
WAYS = [
    Quantizer(8),
    Quantizer(8, per="tensor", fit="largest"),
    Quantizer(4),
    Quantizer(4, fit="largest"),
    Quantizer(4, power_of_two=True),
    Quantizer(4, fit="largest", power_of_two=True),
    Quantizer(2, per="tensor"),
]


def spell(way):
    return f"{way.bits}-{way.per}-{way.fit}{'-power' if way.power_of_two else ''}"


@functools.partial(jax.jit, static_argnums=0)
def both(quantizer, weights):
    """Stored and rounded; eagerly the search for a scale would be compiled at every call."""
    return quantizer.store(weights), quantizer(weights)


def rounded_by(quantizer, weights=WEIGHTS):
    return both(quantizer, weights)[1]


def error(quantizer, weights=WEIGHTS):
    return np.square(np.asarray(rounded_by(quantizer, weights) - weights, np.float64)).sum(
        (0, 1, 2)
    )


@pytest.mark.parametrize("quantizer", WAYS, ids=spell)
def test_stored_weights_are_the_rounded_ones_in_as_many_bytes_as_it_says(quantizer):
    stored, rounded = both(quantizer, WEIGHTS)
    np.testing.assert_array_equal(stored.values(), rounded)
    assert stored.codes.nbytes == -(-quantizer.bits * WEIGHTS.size // 8)
    scales = 4 if quantizer.per == "channel" else 1
    assert stored.scale.nbytes == scales * (1 if quantizer.power_of_two else 4)
    assert stored.nbytes == sum(leaf.nbytes for leaf in jax.tree.leaves(stored))


@pytest.mark.parametrize("quantizer", WAYS, ids=spell)
def test_few_levels_in_a_channel_and_zero_is_one_of_them(quantizer):
    rounded = np.asarray(rounded_by(quantizer, WEIGHTS.at[0, 0].set(0)))
    assert (rounded[0, 0] == 0).all()
    for channel in rounded.reshape(-1, 4).T:
        assert len(np.unique(channel)) <= 2**quantizer.bits


def test_the_largest_weight_is_kept_and_no_error_is_above_half_a_step():
    quantizer = Quantizer(5, fit="largest")
    rounded, scale = quantizer(WEIGHTS), quantizer.scale(WEIGHTS)
    largest = jnp.abs(WEIGHTS).max((0, 1, 2))
    np.testing.assert_allclose(scale, largest / 15, rtol=1e-6)
    np.testing.assert_allclose(jnp.abs(rounded).max((0, 1, 2)), largest, rtol=1e-6)
    assert (jnp.abs(rounded - WEIGHTS) <= scale / 2 * (1 + 1e-5)).all()


def test_the_least_error_is_no_more_than_that_of_the_largest_weight_kept():
    for power in (False, True):
        fitted, largest = (
            error(Quantizer(3, fit=fit, power_of_two=power)) for fit in ("least_error", "largest")
        )
        assert (fitted <= largest).all() and (fitted < 0.8 * largest).any()


def test_the_least_error_is_that_of_the_best_candidate():
    """Against a plain search over the same shares."""
    column = np.asarray(WEIGHTS)[..., :1].astype(np.float64)
    largest = np.abs(column).max() / 7
    errors = []
    for share in 1 - 0.01 * np.arange(80):
        scale = largest * share
        errors.append(np.square(np.clip(np.round(column / scale), -8, 7) * scale - column).sum())
    np.testing.assert_allclose(error(Quantizer(4), WEIGHTS[..., :1])[0], min(errors), rtol=1e-4)


def test_a_scale_per_channel_is_worth_it_where_channels_differ():
    assert error(Quantizer(4))[3] < 1e-2 * error(Quantizer(4, per="tensor"))[3]


def test_powers_of_two_are_exact():
    for fit in ("least_error", "largest"):
        quantizer = Quantizer(4, fit=fit, power_of_two=True)
        scale = np.asarray(jax.jit(quantizer.scale)(WEIGHTS))
        np.testing.assert_array_equal(np.frexp(scale)[0], 0.5)
        stored = both(quantizer, WEIGHTS)[0]
        np.testing.assert_array_equal(2.0 ** np.asarray(stored.scale, np.float64), scale)
    above = Quantizer(4, fit="largest", power_of_two=True).scale(WEIGHTS)
    largest = Quantizer(4, fit="largest").scale(WEIGHTS)
    assert ((above >= largest) & (above < 2 * largest)).all()
    exactly = jnp.array([[7 * 2.0**-3]])
    assert Quantizer(4, fit="largest", power_of_two=True).scale(exactly) == 2.0**-3


def test_a_channel_of_zeros():
    weights = WEIGHTS.at[..., 1].set(0)
    for quantizer in WAYS:
        rounded = rounded_by(quantizer, weights)
        assert jnp.isfinite(rounded).all() and (rounded[..., 1] == 0).all()


def test_the_gradient_passes_where_nothing_is_clipped():
    weights = jnp.append(jnp.linspace(-1, 1, 200), 4.0)[:, None]
    quantizer = Quantizer(3)
    slopes = jax.jit(jax.grad(lambda w: (quantizer(w) * 3).sum()))(weights)
    scale = jax.jit(quantizer.scale)(weights)[0]
    inside = (weights >= -4 * scale) & (weights <= 3 * scale)
    assert not inside.all(), "the outlier is not clipped: this says nothing"
    np.testing.assert_array_equal(slopes, jnp.where(inside, 3.0, 0.0))
    assert (jax.grad(lambda w: Quantizer(3, fit="largest")(w).sum())(weights) == 1).all()


def test_the_dtype_is_that_of_the_weights():
    weights = WEIGHTS.astype(jnp.bfloat16)
    stored, rounded = both(Quantizer(4), weights)
    assert rounded.dtype == stored.values().dtype == jnp.bfloat16
    np.testing.assert_array_equal(stored.values(), rounded)


def test_impossible_quantizers_are_refused():
    for bits in (1, 17):
        with pytest.raises(ValueError, match="2 to 16 bits"):
            Quantizer(bits)
    with pytest.raises(ValueError, match="per must be one of"):
        Quantizer(4, per="layer")
    with pytest.raises(ValueError, match="fit must be one of"):
        Quantizer(4, fit="best")
    assert Quantizer(4) == Quantizer(4) and hash(Quantizer(4)) == hash(Quantizer(4))
