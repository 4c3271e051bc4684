"""The step is pure, and statistics move once per step."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import data, encoding, nn, training
from tests.training.conftest import assert_same_bits, bits, make


@pytest.fixture(scope="module")
def step(compiled):
    """A step of the session, jitted once for all tests."""
    return jax.jit(functools.partial(training.train_step, compiled.program))


def test_the_same_arguments_give_the_same_bits(session, step):
    batch = session.loader.batch(3)
    first, again = step(session.state, batch), step(session.state, batch)
    assert_same_bits(first, again)
    assert int(first[0].step) == int(first[0].position) == 1


def test_compiling_for_a_mesh_changes_nothing(session, step):
    batch = session.loader.batch(0)
    plain, _ = step(session.state, batch)
    meshed, _ = session.train(session.state, training.sharding.shard_batch(batch, session.mesh))
    assert_same_bits(plain, meshed)


def test_statistics_move_exactly_once(session, step):
    state, batch = session.state, session.loader.batch(0)
    after, _ = step(state, batch)

    @jax.jit
    def once(state, batch):
        encode_key, network_key = jax.random.split(jax.random.fold_in(state.key, 0))
        frames = session.experiment.encode(session.experiment, batch.inputs, encode_key)
        network = session.program.network(state)
        start = nn.State(network.initial_state(len(batch.labels)).neurons, state.statistics)
        return network(frames, start, training=True, key=network_key)[1].statistics

    moved = jax.tree.leaves(once(state, batch))
    assert moved
    for got, want, before in zip(
        jax.tree.leaves(after.statistics), moved, jax.tree.leaves(state.statistics), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
        assert not np.allclose(got, before)


def test_each_step_draws_other_numbers(session, step):
    batch = session.loader.batch(0)
    _, first = step(session.state, batch)
    _, second = step(session.state._replace(step=session.state.step + 1), batch)
    assert float(first.loss) != float(second.loss)


def test_a_step_that_is_not_finite_changes_nothing_but_the_flag(session, step):
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
    assert float(a.metrics["accuracy"]) == float(b.metrics["accuracy"])
    np.testing.assert_allclose(a.loss, b.loss, rtol=1e-5)


def test_evaluation_measures_rates_of_layers_that_spike(session):
    judge = jax.jit(functools.partial(training.eval_step, session.program, rates=True))
    loader = data.Loader(session.dataset.test, batch_size=180, shuffle=False, drop_last=False)
    found = training._evaluation.evaluate(
        judge, session.state, loader, session.mesh, task=session.task
    )
    assert list(found.rates) == ["lif3"]
    assert 0 <= found.rates["lif3"] <= 1
    assert 0 <= found.accuracy <= 1


def test_a_loss_of_ones_own_is_used():
    def loss(experiment, outputs, labels):
        return jnp.sum(outputs, (0, 2)) * 0 + experiment.width

    experiment = dataclasses.replace(
        make(), task=functools.partial(training.task.classification, loss=loss)
    )
    program, state = training.initialize(experiment, steps=1)
    batch = data.Loader(experiment.dataset(experiment).train, batch_size=4).batch(0)
    _, metrics = jax.jit(functools.partial(training.train_step, program))(state, batch)
    assert float(metrics.loss) == 8


def test_the_seed_decides_the_parameters():
    first, second = (training.initialize(make(seed=s), steps=1)[1] for s in (0, 1))
    assert_same_bits(first, training.initialize(make(seed=0), steps=1)[1])
    a, b = bits(first.params), bits(second.params)
    assert any((a[name] != b[name]).any() for name in a)


def plain(width, **fields):
    """An experiment without dropout and augmentation, whose step may be cut into parts."""

    def network(experiment, rngs):
        norms = [nn.BatchNorm(width)] * experiment.normalised
        return nn.Network(
            nn.Sequential(nn.Flatten(), nn.Linear(64, width, rngs=rngs), *norms, nn.LIF(),
                          nn.Linear(width, 10, rngs=rngs)),
            input_shape=(8, 8, 1),
        )  # fmt: skip

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Plain(training.Experiment):
        normalised: bool = True

    names = {f.name for f in dataclasses.fields(training.Experiment)}
    given = {k: v for k, v in dataclasses.asdict(make()).items() if k in names}
    encode = lambda e, x, key: encoding.direct(data.rescale(x, 1 / 16), timesteps=2)  # noqa: E731
    # Under Adam a gradient of rounding errors, as of a bias in front of a norm, is a whole step.
    given |= {
        "network": network,
        "encode": encode,
        "batch": 24,
        "optimizer": training.optimizer.sgd,
    }
    return Plain(**given | {"learning_rate": 0.1, "warmup_epochs": 0.0} | fields)


def updated(experiment, batch):
    program, state = training.initialize(experiment, steps=10)
    return jax.jit(functools.partial(training.train_step, program))(state, batch)


def some_batch(size=24):
    return data.Loader(data.load("digits").train, batch_size=size, seed=1).batch(0)


def assert_close(found, expected):
    for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


# Three parts stand for any number between one and one example each.
@pytest.mark.parametrize("parts", [pytest.param(2, marks=pytest.mark.slow), 3,
                                   pytest.param(24, marks=pytest.mark.slow)])  # fmt: skip
def test_accumulated_gradients_are_those_of_the_large_batch(parts):
    batch = some_batch()
    whole = updated(plain(8, normalised=False), batch)
    cut = updated(plain(8, normalised=False, accumulate=parts), batch)
    assert_close((cut[0].params, cut[1]), (whole[0].params, whole[1]))


def test_parts_are_normalised_as_groups_are():
    batch = some_batch()
    cut = updated(plain(8, accumulate=3), batch)
    neighbours = np.arange(24).reshape(8, 3).T.ravel()  # part i is i, i + 3, ...
    grouped = updated(plain(8, norm_groups=3), jax.tree.map(lambda x: x[neighbours], batch))
    assert_close((cut[0].params, cut[0].statistics), (grouped[0].params, grouped[0].statistics))
    gaps = [np.abs(np.asarray(c) - w).max() for c, w in zip(
        jax.tree.leaves(cut[0].params), jax.tree.leaves(updated(plain(8), batch)[0].params),
        strict=True)]  # fmt: skip
    assert max(gaps) > 1e-3  # other statistics, another update


# Two steps with mixup: parts are cut above, batches mixed in tests/training/test_mixup.py.
@pytest.mark.slow
def test_mixed_labels_follow_their_parts():
    batch = some_batch()
    whole = updated(plain(8, normalised=False, mixup=0.5), batch)
    cut = updated(plain(8, normalised=False, mixup=0.5, accumulate=4), batch)
    assert_close((cut[0].params, cut[1]), (whole[0].params, whole[1]))


@pytest.mark.fast
def test_a_skipped_step_counts_and_changes_nothing_else():
    bad = some_batch()._replace(weights=np.full(24, np.inf, np.float32))
    program, state = training.initialize(plain(8, not_finite="skip"), steps=10)
    step = jax.jit(functools.partial(training.train_step, program))
    after, metrics = step(state, bad)
    assert not metrics.finite and after.finite
    assert_same_bits(after._replace(step=state.step, position=state.position), state)
    assert int(after.step) == int(after.position) == 1
    assert step(after, some_batch())[1].finite


@pytest.mark.fast
def test_a_batch_that_cannot_be_cut_is_refused():
    with pytest.raises(
        training.errors.ExperimentError, match=r"24 .* 5 parts .* of 2 groups .* of 10"
    ):
        training.config.check(plain(8, accumulate=5, norm_groups=2))
