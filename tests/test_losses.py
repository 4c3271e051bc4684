"""Laws of the losses: a NumPy oracle, limits, and padding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from snnjax import losses

T, B, K = 5, 4, 3
OVER_TIME = [losses.rate_cross_entropy, losses.temporal_cross_entropy, losses.rate_mse]
close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6)


@pytest.fixture
def outputs():
    return 2 * jax.random.normal(jax.random.key(0), (T, B, K))


@pytest.fixture
def labels():
    return jnp.array([0, 2, 1, 1])


def oracle(logits, labels, smoothing=0.0):
    """Cross entropy in NumPy float64, one example and one class at a time."""
    found = []
    for row, label in zip(np.asarray(logits, np.float64), labels, strict=True):
        log_p = row - row.max() - np.log(np.exp(row - row.max()).sum())
        q = [(1 - smoothing) * (k == label) + smoothing / len(row) for k in range(len(row))]
        found.append(-sum(a * b for a, b in zip(q, log_p, strict=True)))
    return np.array(found)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_cross_entropies_match_the_oracle(outputs, labels, smoothing):
    logits, target = outputs[0], np.asarray(labels)
    options = {"label_smoothing": smoothing}
    close(losses.cross_entropy(logits, labels, **options), oracle(logits, target, smoothing))
    close(
        losses.rate_cross_entropy(outputs, labels, **options),
        oracle(np.asarray(outputs).mean(0), target, smoothing),
    )
    each = np.mean([oracle(o, target, smoothing) for o in outputs], axis=0)
    distance = ((np.asarray(outputs) - 0.5) ** 2).mean((0, 2))
    close(
        losses.temporal_cross_entropy(outputs, labels, regularization=0.2, phi=0.5, **options),
        0.8 * each + 0.2 * distance,
    )


def test_label_smoothing_is_optax_s(outputs, labels):
    smooth = optax.smooth_labels(jax.nn.one_hot(labels, K), 0.1)
    found = losses.cross_entropy(outputs[0], labels, label_smoothing=0.1)
    close(found, optax.softmax_cross_entropy(outputs[0], smooth))
    close(
        losses.cross_entropy(outputs[0], labels, label_smoothing=1e-9),
        losses.cross_entropy(outputs[0], labels),
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_tet_without_regularization_of_one_timestep_is_cross_entropy(outputs, labels, smoothing):
    options = {"label_smoothing": smoothing}
    found = losses.temporal_cross_entropy(outputs[:1], labels, regularization=0.0, **options)
    np.testing.assert_array_equal(found, losses.cross_entropy(outputs[0], labels, **options))
    close(found, losses.rate_cross_entropy(outputs[:1], labels, **options))


def test_tet_is_never_below_the_loss_of_the_mean_and_equal_without_change(outputs, labels):
    tet = functools.partial(losses.temporal_cross_entropy, regularization=0.0)
    assert bool(jnp.all(tet(outputs, labels) >= losses.rate_cross_entropy(outputs, labels)))
    constant = jnp.broadcast_to(outputs[:1], outputs.shape)
    close(tet(constant, labels), losses.rate_cross_entropy(constant, labels))


def test_tet_regularization_alone_is_zero_at_phi(labels):
    found = losses.temporal_cross_entropy(
        jnp.full((T, B, K), 0.7), labels, regularization=1.0, phi=0.7
    )
    np.testing.assert_array_equal(found, 0.0)


def test_rate_mse_is_zero_at_its_targets_and_matches_the_oracle(outputs, labels):
    target = np.where(np.eye(K)[np.asarray(labels)] == 1, 0.8, 0.1).astype(np.float32)
    exact = jnp.broadcast_to(jnp.asarray(target), (T, B, K))
    mse = functools.partial(losses.rate_mse, correct=0.8, incorrect=0.1)
    close(mse(exact, labels), 0.0)
    close(mse(outputs, labels), ((np.asarray(outputs).mean(0) - target) ** 2).mean(1))


def test_spike_rate_penalty_is_flat_inside_the_band_and_pulls_back_outside():
    rates = jnp.array([[0.0, 0.1, 0.25], [0.4, 0.5, 1.0]])  # [B, N]
    spikes = jnp.broadcast_to(rates, (T, 2, 3))
    penalty = functools.partial(losses.spike_rate_penalty, lower=0.1, upper=0.5)
    close(penalty(spikes), [0.1**2 / 3, 0.5**2 / 3])
    pull = jax.grad(lambda s: penalty(s).sum())(spikes).sum(0)
    np.testing.assert_array_equal(jnp.sign(pull), [[-1, 0, 0], [0, 0, 1]])
    close(losses.spike_rate_penalty(spikes), 0.0)
    assert penalty(jnp.ones((T, 2, 4, 4, 3))).shape == (2,)
    assert penalty(jnp.ones((T, 2))).shape == (2,)


@pytest.mark.parametrize("loss", OVER_TIME)
def test_examples_are_independent_and_the_order_of_time_does_not_matter(loss, outputs, labels):
    found = loss(outputs, labels)
    assert found.shape == (B,)
    close(loss(outputs[:, ::-1], labels[::-1]), found[::-1])
    close(loss(outputs[::-1], labels), found)
    other = jax.grad(lambda o: loss(o, labels)[0])(outputs)[:, 1:]
    np.testing.assert_array_equal(other, 0.0)


@pytest.mark.parametrize("loss", OVER_TIME)
@pytest.mark.parametrize("kind", ["uint8", "int32"])
def test_jit_and_dtypes(loss, kind, outputs, labels):
    labels = labels.astype(kind)
    close(jax.jit(loss)(outputs, labels), loss(outputs, labels))
    half = loss(outputs.astype(jnp.bfloat16), labels)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, loss(outputs, labels), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("loss", OVER_TIME)
def test_gradients_match_finite_differences(loss, x64, labels):
    del x64
    o = jax.random.normal(jax.random.key(1), (T, B, K), jnp.float64)
    d = jax.random.normal(jax.random.key(2), (T, B, K), jnp.float64)
    value = jax.jit(lambda a: loss(o + a * d, labels).mean())
    slope = (value(1e-6) - value(-1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(value)(0.0), slope, rtol=1e-7, atol=1e-9)


def test_mean_leaves_padding_out_whatever_it_holds():
    values = jnp.array([1.0, 2.0, 6.0, 4.0])
    padded = jnp.concatenate([values, jnp.array([jnp.nan, jnp.inf])])
    weights = jnp.array([1, 1, 1, 1, 0, 0])
    for w in (weights, weights.astype(bool), weights.astype(jnp.float32)):
        close(losses.mean(padded, weights=w), losses.mean(values))
    close(losses.mean(values, weights=jnp.array([2.0, 0.0, 0.0, 1.0])), 2.0)
    np.testing.assert_array_equal(losses.mean(values, weights=jnp.zeros(4)), 0.0)
    slopes = jax.grad(lambda v: losses.mean(v, weights=weights))(padded)
    close(slopes, np.array([1, 1, 1, 1, 0, 0]) / 4)


def test_traced_labels_are_not_checked():
    logits = jnp.zeros((1, 3))
    found = jax.jit(losses.cross_entropy)(logits, jnp.array([3]))
    assert bool(jnp.isnan(found[0]))  # seen in the loss instead


o, y = np.ones((T, B, K), np.float32), np.zeros(B, np.int32)


@pytest.mark.parametrize(
    ("call", "error", "cure"),
    [
        (lambda: losses.cross_entropy(o, y), ValueError, "readout"),
        (lambda: losses.cross_entropy(y.astype(np.float32), y), ValueError, r"\[B, K\]"),
        (lambda: losses.rate_cross_entropy(o[0], y), ValueError, r"\[T, B, K\]"),
        (lambda: losses.rate_mse(o[:0], y), ValueError, r"\[T, B, K\]"),
        (lambda: losses.cross_entropy(o[0].astype(int), y), TypeError, "float32"),
        (lambda: losses.cross_entropy(o[0], y.astype(np.float32)), TypeError, "int32"),
        (lambda: losses.cross_entropy(o[0], o[0].astype(int)), ValueError, "argmax"),
        (lambda: losses.cross_entropy(o[0], y[:-1]), ValueError, "batch of 4"),
        (lambda: losses.cross_entropy(o[0], y + K), ValueError, "count from 0"),
        (lambda: losses.cross_entropy(o[0], y - 1), ValueError, "count from 0"),
        (lambda: losses.cross_entropy(o[0], y, label_smoothing=1.0), ValueError, "smoothing"),
        (lambda: losses.temporal_cross_entropy(o, y, regularization=2), ValueError, "0.05"),
        (lambda: losses.spike_rate_penalty(o, lower=0.5, upper=0.1), ValueError, "band"),
        (lambda: losses.spike_rate_penalty(o[0, 0]), ValueError, r"\[T, B, ...\]"),
        (lambda: losses.mean(o[0, 0], weights=y), ValueError, "per example"),
    ],
)
def test_wrong_arguments_name_the_cure(call, error, cure):
    with pytest.raises(error, match=cure):
        call()
