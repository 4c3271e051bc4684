"""Mixup: one lambda per batch, the loss of mixed targets, and nothing at all where it is off."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from snnjax import data, memory, training
from snnjax.training import _mixup as mixup
from tests.training.conftest import assert_same_bits, make


@functools.cache
def batch():
    return jax.tree.map(jnp.asarray, data.Loader(data.load("digits").train, batch_size=8).batch(0))


def begun(**fields):
    return training.initialize(make(batch=8, epochs=10, **fields), steps=100)


def given(program):
    return jax.jit(functools.partial(training._objective.encode_batch, program))


def judge(program):
    def of(state, shown):
        return training._objective.objective(state.params, program, state, shown, batch())

    return jax.jit(of)


def jaxpr(**fields):
    program, state = begun(**fields)
    text = str(jax.make_jaxpr(functools.partial(training.train_step, program))(state, batch()))
    return re.sub("0x[0-9a-f]+", "", text)


@pytest.mark.fast
def test_without_mixup_the_step_is_what_it_was():
    plain = jaxpr()
    assert plain == jaxpr(mixup=0.0, mixup_epochs=3, mixup_probability=0.5)
    assert plain != (mixed := jaxpr(mixup=0.5))
    assert " rev[" not in plain and " rev[" in mixed


def shares(count=4000, *, step=0, **fields):
    experiment = make(mixup=0.5, epochs=10, **fields)
    keys = jax.random.split(jax.random.key(1), count)
    draw = lambda key: mixup.draw_share(key, experiment, jnp.int32(step), 100)  # noqa: E731
    return np.asarray(jax.jit(jax.vmap(draw))(keys))


@pytest.mark.fast
def test_shares_are_drawn_from_the_beta_distribution():
    found = shares()
    assert found.min() >= 0 and found.max() <= 1
    # Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1)).
    np.testing.assert_allclose([found.mean(), found.var()], [0.5, 1 / 8], atol=0.02)


def test_some_batches_and_late_epochs_are_left_alone():
    found = shares(mixup_probability=0.25)
    assert (found == 1).mean() == pytest.approx(0.75, abs=0.03)
    assert (shares(20, mixup_epochs=3, step=29) < 1).all()
    assert (shares(20, mixup_epochs=3, step=30) == 1).all()


def test_the_loss_is_that_of_mixed_frames_and_mixed_targets():
    program, state = begun(mixup=0.5, label_smoothing=0.1)
    shown = given(program)(state, batch())
    frames, share, _, key = shown
    assert 0 < share < 1
    found, (_, outputs, _) = judge(program)(state, shown)
    unmixed, own = begun(label_smoothing=0.1)
    plain, *nothing, same_key = given(unmixed)(own, batch())
    assert nothing == [None, None]
    assert_same_bits(key, same_key)  # dropout draws what it drew
    others = np.asarray(plain)[:, ::-1]
    by_hand = share * plain + (1 - share) * others
    np.testing.assert_allclose(frames, by_hand, rtol=1e-6, atol=1e-6)
    labels = optax.smooth_labels(jax.nn.one_hot(batch().labels, 10), 0.1)
    target = share * labels + (1 - share) * labels[::-1]
    expected = optax.softmax_cross_entropy(outputs.mean(0), target).mean()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_step_counts_the_label_of_the_larger_share():
    program, state = begun(mixup=0.5)
    shown, look = given(program)(state, batch()), judge(program)
    _, (plain, outputs, _) = look(state, shown._replace(share=jnp.float32(0.8)))
    answers = outputs.mean(0).argmax(-1)
    flipped = look(state, shown._replace(share=jnp.float32(0.2)))[1][0]
    assert float(plain["accuracy"]) == (answers == batch().labels).mean()
    assert float(flipped["accuracy"]) == (answers == batch().labels[::-1]).mean()


@pytest.mark.slow
def test_every_memory_strategy_sees_the_same_mixture():
    replayed = memory.Strategy(time=memory.recompute(1))
    (program, state), (other, same) = begun(mixup=0.5), begun(mixup=0.5, memory=replayed)
    assert_same_bits(
        training._objective.encode_batch(program, state, batch()),
        training._objective.encode_batch(other, same, batch()),
    )
    step = lambda program: jax.jit(functools.partial(training.train_step, program))  # noqa: E731
    (_, first), (_, second) = step(program)(state, batch()), step(other)(same, batch())
    np.testing.assert_allclose(first.loss, second.loss, rtol=1e-6)
    np.testing.assert_allclose(first.gradient_norm, second.gradient_norm, rtol=1e-5)


def test_frames_that_cannot_be_blended_are_refused():
    def encode(experiment, inputs, key):
        return jnp.zeros((2, len(inputs), 8, 8, 1), jnp.int32)

    experiment = dataclasses.replace(make(mixup=0.5), encode=encode)
    program, state = training.initialize(experiment, steps=10)
    with pytest.raises(training.errors.ExperimentError, match="these are int32"):
        training._objective.encode_batch(program, state, batch())
