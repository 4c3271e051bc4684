"""Fixed point: the grid, three roundings, codes, the gradient, and the small updates it loses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax.quantization import QFormat
from snnjax.quantization.fixed_point import nearest, stochastic, straight_through, truncate

ROUNDINGS = (truncate, nearest, stochastic)
FORMATS = [
    QFormat(0, 8),
    QFormat(0, 3, signed=True),
    QFormat(2, 4, signed=True),
    QFormat(-2, 6),
    QFormat(6, -2, signed=True),
    QFormat(0, 1),
    QFormat(4, 12, signed=True),
]
KEY = jax.random.key(0)
SOME = jnp.array([0.0995, 0.5, 0.999, 1.2, 0.0014])


def name(format):
    return f"{'s' if format.signed else 'u'}{format.int_bits}.{format.frac_bits}"


def key_for(rounding):
    return KEY if rounding is stochastic else None


def spread(format, count=2000):
    """Values in range and out of it."""
    width = format.maximum - format.minimum
    low, high = format.minimum - width, format.maximum + width
    return jax.random.uniform(jax.random.key(1), (count,), minval=low, maxval=high)


def test_nearest_on_eight_unsigned_bits():
    expected = [0.09765625, 0.5, 0.99609375, 0.99609375, 0.0]
    np.testing.assert_array_equal(QFormat(0, 8)(SOME), expected)


def test_the_released_quantizer_floors_and_does_not_saturate():
    """SNN4Agents' Q1.7 counts the sign bit in front of the point: seven bits behind it."""
    released = QFormat(0, 7, signed=True, rounding=truncate, saturate=False)
    np.testing.assert_array_equal(released(SOME), [0.09375, 0.5, 0.9921875, 1.1953125, 0.0])
    assert released(jnp.array([-0.001])) == -(2.0**-7), "toward minus infinity, not toward zero"


@pytest.mark.parametrize(
    ("format", "bits", "step", "minimum", "maximum", "dtype"),
    [
        (QFormat(0, 8), 8, 2**-8, 0.0, 1 - 2**-8, "uint8"),
        (QFormat(0, 7, signed=True), 8, 2**-7, -1.0, 1 - 2**-7, "int8"),
        (QFormat(0, 3, signed=True), 4, 2**-3, -1.0, 0.875, "int8"),
        (QFormat(1, 8), 9, 2**-8, 0.0, 2 - 2**-8, "uint16"),
        (QFormat(4, 12, signed=True), 17, 2**-12, -16.0, 16 - 2**-12, "int32"),
        (QFormat(-2, 6), 4, 2**-6, 0.0, 0.25 - 2**-6, "uint8"),
        (QFormat(6, -2, signed=True), 5, 4.0, -64.0, 60.0, "int8"),
    ],
)
def test_bits_of_a_format(format, bits, step, minimum, maximum, dtype):
    assert (format.bits, format.step) == (bits, step)
    assert (format.minimum, format.maximum, format.dtype) == (minimum, maximum, dtype)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("format", FORMATS, ids=name)
def test_values_are_on_the_grid_and_in_range(format, rounding):
    format = dataclasses.replace(format, rounding=rounding)
    values = spread(format)
    rounded = np.asarray(format(values, key=key_for(rounding)), np.float64)
    codes = rounded / format.step
    np.testing.assert_array_equal(codes, np.round(codes))
    assert rounded.min() == format.minimum and rounded.max() == format.maximum
    inside = (np.asarray(values) >= format.minimum) & (np.asarray(values) <= format.maximum)
    error = (rounded - np.asarray(values, np.float64))[inside]
    below, above = {truncate: (-1, 0), nearest: (-0.5, 0.5), stochastic: (-1, 1)}[rounding]
    assert below * format.step <= error.min() and error.max() <= above * format.step


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("format", FORMATS, ids=name)
def test_values_on_the_grid_stay(format, rounding):
    low, high = format.codes
    codes = np.arange(low, high + 1, max(1, (high - low) // 500))
    grid = np.resize(codes * format.step, 1001).astype(np.float32)  # one shape: compiled once
    again = dataclasses.replace(format, rounding=rounding)(grid, key=key_for(rounding))
    np.testing.assert_array_equal(again, grid)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("format", FORMATS, ids=name)
def test_codes_are_the_values(format, rounding):
    format = dataclasses.replace(format, rounding=rounding)
    values, key = spread(format), key_for(rounding)
    codes = format.to_integers(values, key=key)
    assert codes.dtype == format.dtype
    assert (codes.min(), codes.max()) == format.codes
    np.testing.assert_array_equal(format.from_integers(codes), format(values, key=key))


def test_ties_go_to_the_even_code():
    halves = jnp.array([0.5, 1.5, 2.5, -0.5, -1.5])
    np.testing.assert_array_equal(QFormat(3, 0, signed=True)(halves), [0, 2, 2, 0, -2])


def test_infinities_saturate_and_nan_stays():
    odd = jnp.array([jnp.inf, -jnp.inf, jnp.nan])
    for rounding in ROUNDINGS:
        format = QFormat(0, 3, signed=True, rounding=rounding)
        np.testing.assert_array_equal(format(odd, key=KEY), [0.875, -1.0, np.nan])


def test_the_dtype_is_that_of_the_values():
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        assert QFormat(0, 8)(SOME.astype(dtype)).dtype == dtype
    assert QFormat(0, 8).from_integers(jnp.array([255]), dtype=jnp.bfloat16) == 0.99609375


def test_float64(x64):
    values = jnp.asarray([0.1, 0.7], jnp.float64)
    for rounding in ROUNDINGS:
        rounded = QFormat(0, 20, rounding=rounding)(values, key=KEY)
        assert rounded.dtype == jnp.float64
        assert np.abs(np.asarray(rounded - values)).max() < 2**-20


def test_equal_arguments_give_equal_hashable_formats():
    a, b = (QFormat(0, 8, rounding=stochastic) for _ in range(2))
    assert a == b and hash(a) == hash(b) and a != QFormat(0, 8)


# Stochastic rounding


@pytest.mark.parametrize("value", [0.0014, 0.0995, -0.0001, 0.37])
def test_stochastic_rounding_is_right_on_average(value):
    format = QFormat(0, 7, signed=True, rounding=stochastic)
    count = 200_000
    rounded = np.asarray(format(jnp.full(count, value), key=KEY), np.float64)
    assert len(np.unique(rounded)) == 2
    share = value / format.step % 1
    deviation = format.step * np.sqrt(share * (1 - share) / count)
    assert abs(rounded.mean() - np.float32(value)) < 4 * deviation


def test_stochastic_rounding_draws_from_its_key():
    format = QFormat(0, 4, rounding=stochastic)
    values = jax.random.uniform(KEY, (1000,))
    once, again, other = (format(values, key=jax.random.key(k)) for k in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert (once != other).mean() > 0.1
    with pytest.raises(ValueError, match="key=jax.random.key"):
        format(values)


def test_stochastic_rounding_of_few_bits_of_mantissa_is_right_on_average():
    format = QFormat(0, 2, rounding=stochastic)
    value = jnp.full(100_000, 0.25 + 2**-9, jnp.bfloat16)
    assert value[0] > 0.25
    up = np.asarray(format(value, key=KEY) > 0.25).mean()
    assert abs(up - float(value[0] - 0.25) * 4) < 1e-3


# The gradient


def slope(format, values, key=None):
    return jax.grad(lambda v: straight_through(v, format, key=key).sum())(values)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_the_gradient_is_one_in_range_and_zero_outside(rounding):
    format = QFormat(0, 3, signed=True, rounding=rounding)
    step, key = format.step, key_for(rounding)
    values = jnp.array([-9, -1 - step, -1, -0.3, 0, 0.5, 0.875, 0.875 + 1e-6, 1, 9])
    np.testing.assert_array_equal(slope(format, values, key), [0, 0, 1, 1, 1, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(
        straight_through(values, format, key=key), format(values, key=key)
    )


def test_without_saturation_the_gradient_is_one_everywhere():
    format = QFormat(0, 3, signed=True, saturate=False)
    np.testing.assert_array_equal(slope(format, jnp.array([-9.0, 0.1, 9.0])), 1)


def test_straight_through_in_every_mode():
    """jit, vmap, forward mode and, being linear where it is smooth, a second derivative of 0."""
    format, values = QFormat(0, 4), jnp.array([0.31, 0.99, -1.0])
    quantize = lambda v: straight_through(v, format)  # noqa: E731
    np.testing.assert_array_equal(jax.jit(quantize)(values), format(values))
    np.testing.assert_array_equal(
        jax.jvp(quantize, (values,), (2 * values,))[1], 2 * values * jnp.array([1, 0, 0.0])
    )
    np.testing.assert_array_equal(jax.vmap(jax.grad(quantize))(values), [1, 0, 0])
    np.testing.assert_array_equal(jax.grad(jax.grad(quantize))(values[0]), 0)
    key = jax.random.key(3)
    drawn = QFormat(0, 4, rounding=stochastic)
    with_key = jax.jit(jax.grad(lambda v, k: straight_through(v, drawn, key=k).sum()))
    np.testing.assert_array_equal(with_key(values, key), [1, 0, 0])


def test_a_learned_scale_gets_its_gradient_too():
    """Of `scale * q(v / scale)`: the rounding error in range, the bound outside."""
    format, scale = QFormat(3, 0, signed=True), jnp.asarray(0.5)
    values = jnp.array([0.65, 100.0, -100.0])
    per_value = jax.vmap(
        jax.grad(lambda s, v: s * straight_through(v / s, format)), in_axes=(None, 0)
    )(scale, values)
    np.testing.assert_allclose(per_value, [1 - 1.3, 7, -8], rtol=1e-6)


# Errors


def test_impossible_formats_are_refused():
    for bits in ((0, 0), (-3, 3), (20, 5)):
        with pytest.raises(ValueError, match="give 1 to 24"):
            QFormat(*bits)


def test_misfits_are_refused():
    with pytest.raises(TypeError, match="from_integers"):
        QFormat(0, 8)(jnp.array([1, 2]))
    with pytest.raises(ValueError, match="bfloat16 holds 8 bits"):
        QFormat(0, 9)(SOME.astype(jnp.bfloat16))
    with pytest.raises(ValueError, match="saturate=True"):
        QFormat(0, 8, saturate=False).to_integers(SOME)


# Small updates. The numbers are those of spike-timing rules: a potentiation of 0.0014 and a
# depression of 0.0001, many times, on eight unsigned bits (a step of 0.0039).

START, TIMES = 0.5, 300


def repeated(update, format):
    """A weight that is put back on the grid after each update; `[4096]` of them, for the mean."""

    def one(weights, key):
        return format(weights + update, key=key), None

    start = jnp.full(4096, START)
    return jax.lax.scan(one, start, jax.random.split(jax.random.key(4), TIMES))[0]


@pytest.mark.parametrize("update", [0.0014, -0.0001])
def test_nearest_loses_small_updates(update):
    assert abs(update) < QFormat(0, 8).step / 2
    np.testing.assert_array_equal(repeated(update, QFormat(0, 8)), START)


def test_truncation_loses_small_increases_and_multiplies_small_decreases():
    floor = QFormat(0, 8, rounding=truncate)
    np.testing.assert_array_equal(repeated(0.0014, floor), START)
    # One of 39 is due at each step: after 300 the weight has long met its lower bound.
    np.testing.assert_array_equal(repeated(-0.0001, floor), 0.0)


@pytest.mark.parametrize("update", [0.0014, -0.0001])
def test_stochastic_rounding_keeps_small_updates_on_average(update):
    format = QFormat(0, 8, rounding=stochastic)
    moved = np.asarray(repeated(update, format), np.float64) - START
    share = update / format.step % 1
    deviation = format.step * np.sqrt(TIMES * share * (1 - share) / 4096)
    assert abs(moved.mean() - TIMES * update) < 4 * deviation


@pytest.mark.parametrize("update", [0.0014, -0.0001])
def test_full_precision_weights_keep_small_updates(update):
    """The network reads the quantised copy; what learns is not quantised."""
    format, shadow = QFormat(0, 8), jnp.asarray(START)
    for _ in range(TIMES):
        shadow = jnp.clip(shadow + update, format.minimum, format.maximum)
    assert abs(float(format(shadow)) - (START + TIMES * update)) <= format.step / 2 + 1e-4
