"""Readouts, losses and rates of a padded batch: every example as alone, cut to its length."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import losses, metrics, readout
from snnjax.metrics.operations import membrane_updates

T, K = 7, 3
LENGTHS = np.array([7, 3, 5, 1], np.int32)
LABELS = jnp.array([0, 2, 1, 1])

READOUTS = {
    "rate": readout.rate,
    "weighted_rate": lambda o, lengths: readout.weighted_rate(
        o, jnp.arange(1.0, len(o) + 1), lengths=lengths
    ),
    "decayed_rate": functools.partial(readout.decayed_rate, decay=0.7),
    "total": readout.total,
    "max_membrane": readout.max_membrane,
    "last": readout.last,
}
LOSSES = {
    "rate_cross_entropy": losses.rate_cross_entropy,
    "smoothed cross entropy": functools.partial(losses.rate_cross_entropy, label_smoothing=0.1),
    "temporal_cross_entropy": losses.temporal_cross_entropy,
    "rate_mse": functools.partial(losses.rate_mse, correct=0.8, incorrect=0.1),
    "distance": lambda o, labels, lengths: losses.distance(
        o, jnp.tile(jax.nn.one_hot(labels, K)[:, None], (1, len(o), 1)), lengths=lengths
    ),
    "spike_rate_penalty": lambda o, labels, lengths: losses.spike_rate_penalty(
        o, lower=0.2, upper=0.4, lengths=lengths
    ),
}


@pytest.fixture(scope="module")
def outputs():
    return jax.random.normal(jax.random.key(0), (T, len(LENGTHS), K))


def all_values(outputs, labels, lengths):
    """Every readout and loss with the derivative of a sum of its squares, by name."""
    functions = {name: lambda o, f=f: f(o, lengths=lengths) for name, f in READOUTS.items()}
    functions |= {name: lambda o, f=f: f(o, labels, lengths=lengths) for name, f in LOSSES.items()}
    return {
        name: (f(outputs), jax.grad(lambda o, f=f: jnp.square(f(o)).sum())(outputs))
        for name, f in functions.items()
    }


# One program per shape for all of them.
@functools.cache
def compiled():
    return jax.jit(all_values)


@pytest.mark.parametrize("fill", [0.0, 1e9, jnp.nan])
def test_padding_changes_no_bit_of_a_readout_or_a_loss(outputs, fill):
    valid = readout.mask(LENGTHS, T)
    padded = compiled()(jnp.where(valid[..., None], outputs, fill), LABELS, LENGTHS)
    assert padded.keys() == READOUTS.keys() | LOSSES.keys()
    for i, length in enumerate(LENGTHS):
        row = slice(i, i + 1)
        alone = compiled()(outputs[:length, row], LABELS[row], LENGTHS[row])
        for name, (value, gradient) in alone.items():
            values, gradients = padded[name]
            assert np.asarray(value[0]).tobytes() == np.asarray(values[i]).tobytes(), name
            own = np.asarray(gradients[:, i])
            assert np.asarray(gradient[:, 0]).tobytes() == own[:length].tobytes(), name
            assert not own[length:].any(), name


def test_full_lengths_are_no_lengths(outputs):
    full = jnp.full(len(LENGTHS), T, jnp.int32)
    one, two = compiled()(outputs, LABELS, full), compiled()(outputs, LABELS, None)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, two)


def test_long_padding_does_not_underflow_the_weights_of_a_decayed_rate():
    outputs = jnp.ones((3000, 1, K))
    found = readout.decayed_rate(outputs, decay=0.5, lengths=jnp.array([2]))
    np.testing.assert_allclose(found, 1.0)


def test_rates_and_updates_count_valid_timesteps():
    spikes = (jax.random.uniform(jax.random.key(3), (T, len(LENGTHS), 5)) < 0.4).astype(jnp.float32)
    valid = np.asarray(readout.mask(LENGTHS, T))[..., None]
    analog = jnp.where(valid, spikes, 0.5)  # padding of real numbers does not make a layer analog
    each = [float(spikes[:n, i].mean()) for i, n in enumerate(LENGTHS)]
    weights = jnp.array([1.0, 1.0, 0.0, 1.0])
    expected = (each[0] + each[1] + each[3]) / 3
    taps = {"spikes": analog}, {"rates": analog.mean(2), "analog": (analog == 0.5).any(2)}
    for tap in taps:
        found = metrics.firing_rates({"lif": tap}, weights=weights, lengths=LENGTHS)
        assert float(found["lif"]) == pytest.approx(expected, rel=1e-6)
    updates = membrane_updates(analog, lengths=LENGTHS).tolist()
    assert updates == [
        int(membrane_updates(spikes[:n, i : i + 1])[0]) for i, n in enumerate(LENGTHS)
    ]


def test_a_distance_and_its_relative_median_leave_padding_out(outputs):
    """With a first timestep that counts, and targets of padding that are NaN."""
    lengths, start = np.array([7, 3, 5, 4]), 2
    valid = np.asarray(readout.mask(lengths, T)).T[..., None]
    targets = jnp.where(valid, outputs.swapaxes(0, 1) ** 2, jnp.nan)
    value = lambda o: losses.distance(o, targets, start=start, lengths=lengths)  # noqa: E731
    alone = [
        losses.distance(outputs[:n, i : i + 1], targets[i : i + 1, :n], start=start)
        for i, n in enumerate(lengths)
    ]
    np.testing.assert_allclose(value(outputs), jnp.concatenate(alone), rtol=1e-6)
    gradient = np.asarray(jax.grad(lambda o: value(o).sum())(outputs)).swapaxes(0, 1)
    assert not gradient[~valid[..., 0]].any() and not gradient[:, :start].any()
    assert gradient[valid[..., 0]].any() and np.isfinite(gradient).all()
    with pytest.raises(ValueError, match="start=3 leaves nothing of a sequence of 3"):
        losses.distance(outputs, targets, start=3, lengths=lengths)
    late = jax.jit(functools.partial(losses.distance, start=4))(outputs, targets, lengths=lengths)
    assert np.isnan(late).tolist() == [False, True, False, True]
    found = metrics.median_relative_error(outputs, targets, lengths=lengths)
    relative = [
        np.linalg.norm(o - t) / np.linalg.norm(t)
        for i, n in enumerate(lengths)
        for o, t in zip(outputs[:n, i], targets[i, :n], strict=True)
        if np.linalg.norm(t) >= np.radians(1)
    ]
    assert float(found) == pytest.approx(np.median(relative), rel=1e-5)


def test_sigmoid_cross_entropy_is_that_of_each_label():
    logits = jnp.array([[2.0, -1.0, 0.0], [jnp.nan, 0.0, 0.0]])
    targets = jnp.array([[1.0, 0.0, 0.5], [0.0, 0.0, 0.0]])
    p = 1 / (1 + np.exp(-np.asarray(logits[0], np.float64)))
    q = np.asarray(targets[0])
    expected = -(q * np.log(p) + (1 - q) * np.log(1 - p)).mean()
    found = losses.sigmoid_cross_entropy(logits, targets)
    assert float(found[0]) == pytest.approx(expected, rel=1e-6) and np.isnan(found[1])
    for wrong, error, words in [
        (jnp.zeros((2, 2)), ValueError, "one number per logit"),
        (jnp.full((2, 3), 2.0), ValueError, r"in \[0, 1\]"),
        (jnp.full((2, 3), 2), TypeError, "floating"),
    ]:
        with pytest.raises(error, match=words):
            losses.sigmoid_cross_entropy(logits, wrong)
