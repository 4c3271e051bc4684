"""The step is pure, and statistics move once per step."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from snnjax import data, nn, training
from tests.training.conftest import assert_same_bits, bits, make


def test_the_same_arguments_give_the_same_bits(session):
    step = jax.jit(functools.partial(training.train_step, session.program))
    batch = session.loader.batch(3)
    first, again = step(session.state, batch), step(session.state, batch)
    assert_same_bits(first, again)
    assert int(first[0].step) == int(first[0].position) == 1


def test_compiling_for_a_mesh_changes_nothing(session):
    step = jax.jit(functools.partial(training.train_step, session.program))
    batch = session.loader.batch(0)
    plain, _ = step(session.state, batch)
    meshed, _ = session.train(session.state, training.sharded(batch, session.mesh))
    assert_same_bits(plain, meshed)


def test_statistics_move_exactly_once(session):
    state, batch = session.state, session.loader.batch(0)
    after, _ = jax.jit(functools.partial(training.train_step, session.program))(state, batch)
    encode_key, network_key = jax.random.split(jax.random.fold_in(state.key, 0))
    frames = session.experiment.encode(session.experiment, batch.inputs, encode_key)
    network = session.program.network(state)
    start = network.initial_state(len(batch.labels))
    _, aux = network(
        frames, nn.State(start.neurons, state.statistics), training=True, key=network_key
    )
    moved = jax.tree.leaves(aux.statistics)
    assert moved
    for got, want, before in zip(
        jax.tree.leaves(after.statistics), moved, jax.tree.leaves(state.statistics), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
        assert not np.allclose(got, before)


def test_each_step_draws_other_numbers(session):
    step = jax.jit(functools.partial(training.train_step, session.program))
    batch = session.loader.batch(0)
    _, first = step(session.state, batch)
    _, second = step(session.state._replace(step=session.state.step + 1), batch)
    assert float(first.loss) != float(second.loss)


def test_a_step_that_is_not_finite_changes_nothing_but_the_flag(session):
    step = jax.jit(functools.partial(training.train_step, session.program))
    params = jax.tree.map(lambda p: p * jnp.float32(jnp.inf), session.state.params)
    broken = session.state._replace(params=params)
    batch = session.loader.batch(0)
    after, metrics = step(broken, batch)
    assert not metrics.finite and not after.finite
    assert_same_bits(after._replace(finite=broken.finite), broken)
    # Once it happened, a step that would be finite changes nothing either.
    frozen = session.state._replace(finite=after.finite)
    still, metrics = step(frozen, batch)
    assert metrics.finite
    assert_same_bits(still, frozen)


def test_padding_does_not_count(session):
    state, judge = session.state, functools.partial(training.eval_step, session.program)
    batch = session.loader.batch(0)
    half = batch._replace(weights=jnp.where(jnp.arange(256) < 128, 1.0, 0.0))
    short = jax.tree.map(lambda x: x[:128], batch)
    a, b = jax.jit(judge)(state, half), jax.jit(judge)(state, short)
    assert float(a.weight) == 128
    assert float(a.correct) == float(b.correct)
    np.testing.assert_allclose(a.loss, b.loss, rtol=1e-5)


def test_evaluation_measures_rates_of_layers_that_spike(session):
    judge = functools.partial(training.eval_step, session.program, rates=True)
    found = training.evaluate(
        judge, session.state, session.dataset.test, session.mesh, batch_size=180
    )
    assert list(found.rates) == ["lif3"]
    assert 0 <= found.rates["lif3"] <= 1
    assert 0 <= found.accuracy <= 1


def test_a_loss_of_ones_own_is_used():
    def loss(experiment, outputs, labels):
        return jnp.sum(outputs, (0, 2)) * 0 + experiment.width

    experiment = dataclasses.replace(make(), loss=loss)
    program, state = training.initialize(experiment, steps=1)
    batch = data.Loader(experiment.dataset(experiment).train, batch_size=4).batch(0)
    _, metrics = jax.jit(functools.partial(training.train_step, program))(state, batch)
    assert float(metrics.loss) == 8


def test_the_seed_decides_the_parameters():
    first, second = (training.initialize(make(seed=s), steps=1)[1] for s in (0, 1))
    assert_same_bits(first, training.initialize(make(seed=0), steps=1)[1])
    a, b = bits(first.params), bits(second.params)
    assert any((a[name] != b[name]).any() for name in a)
