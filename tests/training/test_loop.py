"""A run that was stopped and resumed ends with the same bits as one that never was."""

import dataclasses
import struct
import sys

import jax
import jax.numpy as jnp
import pytest

from snnjax import data, training
from snnjax.training import checkpoints
from tests.training.conftest import assert_same_bits, make


def fresh(session):
    """The session again with a state that was not consumed."""
    _, state = training.initialize(session.experiment, steps=session.steps)
    return dataclasses.replace(session, state=training.sharding.place(state, session.mesh))


def stop_after(count):
    calls = iter(range(1, 10_000))
    return lambda: next(calls) >= count


def without_time(records):
    timed = {"seconds", "examples_per_second", "memory_bytes"}
    return [{k: v for k, v in r.items() if k not in timed} for r in records]


@pytest.fixture(scope="module")
def straight(compiled, tmp_path_factory):
    run = training.Run.create(tmp_path_factory.mktemp("straight") / "run", make(), "")
    return run, training.fit(fresh(compiled), run)


def test_a_run_ends_after_its_last_epoch(straight, compiled):
    run, result = straight
    assert result.step == int(result.state.step) == compiled.steps == 10
    assert not result.interrupted
    assert 0 < result.evaluation.accuracy <= result.best <= 1
    records = run.records()
    assert [r["step"] for r in records if r["kind"] == "train"] == [2, 4, 5, 6, 8, 10]
    assert [r["step"] for r in records if r["kind"] == "eval"] == [5, 10]
    assert records[-1]["accuracy"] == result.evaluation.accuracy
    assert checkpoints.steps(run.checkpoints)[-1] == 10
    assert list((run.path / "tensorboard").iterdir())


@pytest.mark.parametrize("stop", [pytest.param(1, marks=pytest.mark.slow), 5, 7])
def test_resuming_changes_no_bit(straight, compiled, tmp_path, stop):
    run = training.Run.create(tmp_path / "run", make(), "")
    first = training.fit(fresh(compiled), run, stop=stop_after(stop))
    assert first.interrupted and first.step == stop
    assert (first.evaluation is None) == (stop != 5)
    second = training.fit(fresh(compiled), run)
    assert second.step == 10
    assert_same_bits(second.state, straight[1].state)
    evals = lambda records: [r for r in without_time(records) if r["kind"] == "eval"]  # noqa: E731
    assert evals(run.records()) == evals(straight[0].records())


@pytest.mark.slow
def test_resuming_in_float16_goes_on_with_its_scale(tmp_path):
    half = training.prepare(make(precision="float16"))
    straight, run = (training.Run.create(tmp_path / n, half.experiment, "") for n in "ab")
    whole = training.fit(fresh(half), straight)
    training.fit(fresh(half), run, stop=stop_after(3))
    assert_same_bits(training.fit(fresh(half), run).state, whole.state)
    assert int(whole.state.loss_scale.finite_steps) == 10


def test_resuming_from_an_old_checkpoint_makes_the_records_again(straight, compiled, tmp_path):
    """As after `kill -9`: records are newer than the newest checkpoint."""
    run = training.Run.create(tmp_path / "run", make(), "")
    training.fit(fresh(compiled), run)
    import shutil

    shutil.rmtree(run.checkpoints / "00000010")
    result = training.fit(fresh(compiled), run)
    assert_same_bits(result.state, straight[1].state)
    assert without_time(run.records()) == without_time(straight[0].records())


def test_a_damaged_checkpoint_is_passed_over(straight, compiled, tmp_path):
    run = training.Run.create(tmp_path / "run", make(), "")
    training.fit(fresh(compiled), run, stop=stop_after(7))
    (run.checkpoints / "00000007" / "_CHECKPOINT_METADATA").write_text("{")
    said, seen = [], []
    result = training.fit(fresh(compiled), run, warn=said.append, report=seen.append)
    assert seen[0] == {"kind": "start", "step": 5}
    assert len(said) == 1 and "00000007 cannot be read" in said[0]
    assert_same_bits(result.state, straight[1].state)
    assert checkpoints.steps(run.checkpoints) == [5, 10]


def test_resuming_gives_the_start_state_its_memory_back(compiled, run):
    training.fit(fresh(compiled), run, stop=stop_after(3))
    session = fresh(compiled)
    training.fit(session, run)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(session.state.params))


def test_a_run_without_a_readable_checkpoint_is_refused(compiled, run):
    training.fit(fresh(compiled), run, stop=stop_after(1))
    (run.checkpoints / "00000001" / "manifest.json").unlink()
    with pytest.raises(training.errors.CheckpointError, match="none of the 1 checkpoints"):
        training.fit(fresh(compiled), run)


def test_resuming_a_finished_run_only_judges_it(straight, compiled):
    run, result = straight
    before = run.records()
    again = training.fit(fresh(compiled), run)
    assert again.evaluation == result.evaluation and again.step == result.step
    assert (again.best, again.best_step) == (result.best, result.best_step)
    assert run.records() == before


def test_a_run_that_diverges_stops_with_the_last_good_state_saved(compiled, run, monkeypatch):
    session = fresh(compiled)
    poisoned = []

    def train(state, batch):
        if int(state.step) == 3 and not poisoned:
            poisoned.append(True)
            huge = jax.tree.map(lambda p: jnp.full_like(p, jnp.nan), state.params)
            after, metrics = session.train(
                jax.tree.map(jnp.copy, state)._replace(params=huge), batch
            )
            return state._replace(finite=after.finite), metrics
        return session.train(state, batch)

    with pytest.raises(
        training.errors.NotFiniteError, match="--learning-rate .*--clip-norm"
    ) as caught:
        training.fit(dataclasses.replace(session, train=train), run)
    assert caught.value.step == 3
    assert checkpoints.steps(run.checkpoints) == [3]
    saved = checkpoints.load(run.checkpoints / "00000003", fresh(compiled).state)
    assert all(bool(jnp.isfinite(p).all()) for p in jax.tree.leaves(saved.params))
    # Whatever made it diverge is gone: it goes on.
    assert training.fit(fresh(compiled), run).step == 10


def test_patience_ends_a_run_early(compiled, run):
    session = training.prepare(make(epochs=5, patience=2))
    accuracies = iter([0.2, 0.5, 0.4, 0.5, 0.4, 0.3])

    def judge(state, batch):
        del state, batch
        return training.step.EvalMetrics(1.0, {"accuracy": next(accuracies)}, 1.0, {}, {}, {})

    loader = data.Loader(session.dataset.test, batch_size=360, shuffle=False, drop_last=False)
    judged = dataclasses.replace(session, eval=judge, evaluation_loader=loader)
    result = training.fit(judged, run)
    assert (result.step, result.best_step, result.best) == (20, 10, 0.5)
    assert not result.interrupted
    assert checkpoints.steps(run.checkpoints) == [10, 15, 20]
    again = training.fit(fresh(session), run)
    assert again.step == 20


def test_a_checkpoint_of_another_model_is_refused(straight):
    run, _ = straight
    with pytest.raises(training.errors.CheckpointError, match="another model"):
        training.fit(training.prepare(make(width=9)), run)


def test_every_record_and_every_step_is_reported(compiled, run):
    seen = []
    training.fit(fresh(compiled), run, report=seen.append)
    assert [r["step"] for r in seen if r["kind"] == "step"] == list(range(1, 11))
    assert [r for r in seen if r["kind"] != "step"] == run.records()


def test_tensorboard_reads_the_same_numbers(straight):
    run, _ = straight
    from tensorboardX.proto.event_pb2 import Event

    path = run.path / "tensorboard"
    path = max(path.iterdir(), key=lambda file: file.stat().st_size)  # of the session that trained
    raw, events = path.read_bytes(), []
    while raw:
        (size,) = struct.unpack("<Q", raw[:8])
        events.append(Event.FromString(raw[12 : 12 + size]))
        raw = raw[16 + size :]
    found = {(e.step, v.tag): v.simple_value for e in events for v in e.summary.value}
    for record in run.records():
        tag = (record["step"], f"{record['kind']}/loss")
        assert found[tag] == pytest.approx(record["loss"], rel=1e-6)


def test_without_tensorboardx_records_go_to_the_file_only(compiled, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX.event_file_writer", None)
    training.fit(fresh(compiled), run)
    assert run.records() and not (run.path / "tensorboard").exists()
