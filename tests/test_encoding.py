"""Laws of the encoders: conservation, order, dependence."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snnjax import encoding

fast = settings(max_examples=15, deadline=None)
slices = st.sampled_from([1, 2, 3, 9])  # few shapes: every new one is compiled
# XLA takes subnormal numbers for 0.
unit = st.floats(0.0, 1.0, width=32, allow_subnormal=False)


def signal_of(values):
    return jnp.asarray(values, jnp.float32).reshape(-1, 1, 1)


# --- values


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
def test_direct_repeats_the_input_and_keeps_its_dtype(dtype):
    x = jnp.arange(6).reshape(2, 3).astype(dtype)
    y = encoding.direct(x, timesteps=4)
    assert y.shape == (4, 2, 3) and y.dtype == x.dtype
    assert bool(jnp.all(y == x[None]))


def test_direct_gradient_sums_over_time():
    grad = jax.grad(lambda x: encoding.direct(x, timesteps=5).sum())(jnp.ones((2, 3)))
    np.testing.assert_array_equal(grad, 5.0)


def test_poisson_mean_converges_to_the_rate():
    rates = jnp.linspace(0, 1, 11)[None]
    steps = 4096
    mean = encoding.poisson(jax.random.key(0), rates, timesteps=steps).mean(0)
    deviation = jnp.sqrt(rates * (1 - rates) / steps)
    assert bool(jnp.all(jnp.abs(mean - rates) <= 5 * deviation))  # exact at rates 0 and 1


def test_poisson_timesteps_and_elements_are_independent():
    spikes = encoding.poisson(jax.random.key(1), jnp.full((64, 8), 0.5), timesteps=64)
    trains = np.asarray(spikes).reshape(64, -1)
    over_time = np.corrcoef(trains[:-1].ravel(), trains[1:].ravel())[0, 1]
    over_space = np.corrcoef(trains[:, :-1].ravel(), trains[:, 1:].ravel())[0, 1]
    assert abs(over_time) < 0.03 and abs(over_space) < 0.03


def test_poisson_longer_window_extends_the_shorter_and_a_key_decides():
    rates = jnp.full((3, 5), 0.4)
    draw = functools.partial(encoding.poisson, rates=rates)
    short, long = draw(jax.random.key(2), timesteps=4), draw(jax.random.key(2), timesteps=9)
    np.testing.assert_array_equal(short, long[:4])
    assert bool(jnp.any(long != draw(jax.random.key(3), timesteps=9)))


@pytest.mark.parametrize("options", [{}, {"threshold": 0.2}, {"threshold": 0.05, "tau": 3.0}])
@fast
@given(values=st.lists(unit, min_size=6, max_size=6), timesteps=slices)
def test_latency_keeps_the_order_and_fires_once_above_the_threshold(options, values, timesteps):
    x = jnp.asarray(values, jnp.float32)[None]
    spikes = np.asarray(encoding.latency(x, timesteps=timesteps, **options))[:, 0]
    threshold = np.float32(options.get("threshold", 0.0))
    np.testing.assert_array_equal(spikes.sum(0), np.asarray(x)[0] > threshold)
    fired = np.flatnonzero(spikes.sum(0))
    times = spikes.argmax(0)[fired]
    order = np.argsort(-np.asarray(x)[0][fired], kind="stable")
    assert np.all(np.diff(times[order]) >= 0)


def test_latency_spans_the_window_and_the_logarithm_is_the_charging_time_of_a_membrane():
    ends = encoding.latency(jnp.array([[1.0, 1e-6]]), timesteps=10)
    np.testing.assert_array_equal(ends.argmax(0)[0], [0, 9])

    x, tau, threshold = np.array([0.9, 0.5, 0.3, 0.25]), 8.0, 0.2
    t = encoding.latency(jnp.asarray([x], jnp.float32), timesteps=64, tau=tau, threshold=threshold)
    v = x * (1 - np.exp(-np.asarray(t.argmax(0))[0] / tau))  # the membrane when the spike is sent
    half_a_step = x / tau * 0.5 + 1e-6
    assert np.all(np.abs(v - threshold) <= half_a_step)


def test_population_centres_answer_with_one_and_neighbours_mirror():
    neurons, low, high = 6, -1.0, 3.0
    centres = low + (high - low) * (np.arange(neurons) - 0.5) / (neurons - 2)
    a = encoding.population(
        jnp.asarray(centres, jnp.float32)[:, None], neurons=neurons, low=low, high=high
    )
    np.testing.assert_allclose(a[:, 0], a[:, 0].T, rtol=1e-5)
    np.testing.assert_allclose(jnp.diagonal(a[:, 0]), 1.0, rtol=1e-6)
    np.testing.assert_allclose(a[0, 0, 1], np.exp(-0.5 * 1.5**2), rtol=1e-5)


def test_population_goes_on_to_latency():
    a = encoding.population(jnp.array([[0.1, 0.9]]), neurons=5)
    spikes = encoding.latency(a, timesteps=8, threshold=0.1)
    assert a.shape == (1, 2, 5) and spikes.shape == (8, 1, 2, 5)
    best = a.argmax(-1)[..., None]  # the best fitting neuron fires no later than the others
    times = jnp.where(spikes.sum(0) > 0, spikes.argmax(0), 8)
    np.testing.assert_array_equal(jnp.take_along_axis(times, best, -1)[..., 0], times.min(-1))


# --- signals


def test_series_and_frames_move_time_first():
    windows = jnp.arange(24).reshape(2, 4, 3)
    np.testing.assert_array_equal(encoding.series(windows)[1, 0], windows[0, 1])
    batch = jnp.arange(2 * 3 * 4 * 4 * 2, dtype=jnp.uint8).reshape(2, 3, 4, 4, 2)
    assert encoding.frames(batch).shape == (3, 2, 4, 4, 2)
    np.testing.assert_array_equal(encoding.frames(batch)[2, 1], batch[1, 2])


@fast
@given(
    moves=st.lists(st.floats(-1.0, 1.0, width=32), min_size=20, max_size=20),
    threshold=st.floats(0.05, 0.5),
    limit=st.integers(1, 3),
)
def test_delta_rebuilds_the_signal_within_the_threshold(moves, threshold, limit):
    x = signal_of(np.cumsum(np.asarray(moves) * limit * threshold))  # never faster than the limit
    spikes = np.asarray(encoding.delta(x, threshold=threshold, limit=limit))
    up, down = np.split(spikes, 2, axis=-1)
    rebuilt = np.asarray(x[0]) + np.float32(threshold) * np.cumsum(up - down, axis=0)
    assert np.abs(rebuilt - np.asarray(x)).max() <= threshold * (1 + 1e-4) + 1e-5
    assert spikes.max() <= limit and not ((up > 0) & (down > 0)).any()
    assert not spikes[0].any()


def test_delta_looks_only_back_and_mirrors():
    x = jax.random.normal(jax.random.key(0), (12, 2, 3)).cumsum(0)
    spikes = encoding.delta(x, threshold=0.3)
    later = encoding.delta(x.at[7:].add(5.0), threshold=0.3)
    np.testing.assert_array_equal(spikes[:7], later[:7])
    assert bool(jnp.any(spikes[7:] != later[7:]))
    mirrored = encoding.delta(-x, threshold=0.3)
    np.testing.assert_array_equal(mirrored, jnp.roll(spikes, 3, axis=-1))


def test_delta_takes_a_threshold_per_channel():
    x = signal_of([0.0, 1.0, 2.0, 3.0])
    both = jnp.concatenate([x, x], axis=-1)
    spikes = encoding.delta(both, threshold=jnp.array([1.0, 2.0]))
    np.testing.assert_array_equal(spikes[:, 0].sum(0), [3.0, 1.0, 0.0, 0.0])


# --- all together


def test_every_encoder_is_the_same_under_jit():
    x, key = jnp.linspace(0, 1, 6).reshape(2, 3), jax.random.key(0)
    table = [
        (functools.partial(encoding.direct, timesteps=3), (x,)),
        (functools.partial(encoding.poisson, timesteps=3), (key, x)),
        (functools.partial(encoding.latency, timesteps=3), (x,)),
        (functools.partial(encoding.latency, timesteps=3, threshold=0.1, tau=2.0), (x,)),
        (functools.partial(encoding.population, neurons=4), (x,)),
        (functools.partial(encoding.delta, threshold=0.1), (x[..., None],)),
        (encoding.series, (x[..., None],)),
    ]
    for encode, arguments in table:
        np.testing.assert_allclose(jax.jit(encode)(*arguments), encode(*arguments), rtol=1e-6)


def test_traced_values_are_not_checked():
    too_large = jnp.full((1, 2), 3.0)
    spikes = jax.jit(lambda x: encoding.latency(x, timesteps=4))(too_large)
    np.testing.assert_array_equal(spikes.sum(0), 1.0)
    jax.jit(lambda k, x: encoding.poisson(k, x, timesteps=4))(jax.random.key(0), too_large)
    jax.jit(lambda x, h: encoding.delta(x, threshold=h))(too_large[..., None], 0.0)


x = np.full((2, 3), 0.5, np.float32)
frames = np.ones((2, 3, 4, 5, 2), np.int64)


@pytest.mark.parametrize(
    ("call", "error", "cure"),
    [
        (lambda: encoding.direct(x, timesteps=0), ValueError, "timesteps=1"),
        (lambda: encoding.direct(x, timesteps=2.0), TypeError, "static_argnames"),
        (lambda: encoding.direct(x, timesteps=True), TypeError, "whole number"),
        (lambda: jax.jit(lambda t: encoding.direct(x, timesteps=t))(3), TypeError, "static_arg"),
        (lambda: encoding.direct(1.0, timesteps=2), ValueError, r"x\[None\]"),
        (lambda: encoding.poisson(jax.random.PRNGKey(0), x, timesteps=2), TypeError, "random.key"),
        (lambda: encoding.poisson(0, x, timesteps=2), TypeError, "random.key"),
        (
            lambda: encoding.poisson(jax.random.split(jax.random.key(0)), x, timesteps=2),
            TypeError,
            "one typed key",
        ),
        (lambda: encoding.poisson(jax.random.key(0), 3 * x, timesteps=2), ValueError, "rescale"),
        (lambda: encoding.poisson(jax.random.key(0), x * np.nan, timesteps=2), ValueError, "0, 1"),
        (
            lambda: encoding.poisson(jax.random.key(0), x.astype(int), timesteps=2),
            TypeError,
            "/ 255",
        ),
        (lambda: encoding.latency(-x, timesteps=2), ValueError, "rescale"),
        (lambda: encoding.latency(x, timesteps=2, threshold=1.0), ValueError, "threshold"),
        (lambda: encoding.latency(x, timesteps=2, tau=2.0), ValueError, "threshold=0.01"),
        (lambda: encoding.latency(x, timesteps=2, tau=0.0, threshold=0.1), ValueError, "tau > 0"),
        (lambda: encoding.population(x, neurons=2), ValueError, "3 neurons"),
        (lambda: encoding.population(x, neurons=4, low=1.0), ValueError, "swap"),
        (lambda: encoding.population(x, neurons=4, beta=0.0), ValueError, "1.5"),
        (lambda: encoding.series(x), ValueError, r"windows\[..., None\]"),
        (lambda: encoding.series(frames), ValueError, "event frames .* take encoding.frames"),
        (lambda: encoding.series(frames[0]), ValueError, r"encoding.frames\(frames\[None\]\)"),
        (lambda: encoding.series(np.ma.masked_equal(frames, 0)), TypeError, "masked array"),
        (lambda: encoding.series([np.zeros((2, 1)), np.zeros((3, 1))]), ValueError, "lengths"),
        (lambda: encoding.series(frames[0, 0].astype("U")), TypeError, "numbers"),
        (lambda: encoding.series(frames[0, 0].astype(object)), TypeError, "one by one"),
        (lambda: encoding.series(frames[0, 0] * 2**32), ValueError, "beyond int32"),
        (lambda: encoding.frames(frames * 2**32), ValueError, "beyond int32"),
        (lambda: encoding.frames(frames + 0j), TypeError, "must be real"),
        (lambda: encoding.frames(frames[0, 0]), ValueError, "encoding.series"),
        (lambda: encoding.frames(frames[0]), ValueError, r"batch\[None\]"),
        (lambda: encoding.direct(frames[0] * 2**32, timesteps=2), ValueError, "beyond int32"),
        (lambda: encoding.direct(np.float64(1e300) * x, timesteps=2), ValueError, "beyond float32"),
        (lambda: encoding.latency(x * np.nan, timesteps=2), ValueError, "rescale"),
        (
            lambda: encoding.latency(x, timesteps=2, tau=np.nan, threshold=0.1),
            ValueError,
            "tau > 0",
        ),
        (lambda: encoding.latency(x, timesteps=2, threshold=np.nan), ValueError, "threshold"),
        (lambda: encoding.population(x * np.nan, neurons=4), ValueError, "low and high"),
        (lambda: encoding.population(x + 9, neurons=4), ValueError, "low and high"),
        (lambda: encoding.population(x, neurons=4, high=np.inf), ValueError, "swap"),
        (lambda: encoding.population(x, neurons=4, beta=np.inf), ValueError, "1.5"),
        (lambda: encoding.delta(x[..., None] * np.nan, threshold=0.1), ValueError, "finite"),
        (lambda: encoding.delta(x[..., None] + np.inf, threshold=0.1), ValueError, "finite"),
        (lambda: encoding.delta(x[..., None], threshold=np.nan), ValueError, "above 0"),
        (lambda: encoding.delta(x[..., None], threshold=[0.1, 0.2]), ValueError, "per channel"),
        (lambda: encoding.delta(x[..., None], threshold=np.inf), ValueError, "above 0"),
        (lambda: encoding.frames(x), ValueError, "direct"),
        (lambda: encoding.delta(x, threshold=0.1), ValueError, r"\[..., None\]"),
        (lambda: encoding.delta(x[..., None], threshold=0.0), ValueError, "above 0"),
        (lambda: encoding.delta(x[..., None], threshold=0.1, limit=0), ValueError, "limit=1"),
        (lambda: encoding.delta(x[..., None] > 0, threshold=0.1), TypeError, "float32"),
    ],
)
def test_wrong_arguments_name_the_cure(call, error, cure):
    with pytest.raises(error, match=cure):
        call()
