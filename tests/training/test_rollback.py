"""A step that is not finite is skipped, or training goes on from before it."""

import dataclasses
import shutil
import time

import jax.numpy as jnp
import pytest

from snnjax import training
from snnjax.training.checkpoints import integrity
from tests.training.conftest import assert_same_bits
from tests.training.test_loop import fresh, stop_after

ROLLBACK = {"not_finite": "rollback", "checkpoint_every": 2, "eval_every": 2}


def ill(session, *, at, **fields):
    """The session again; the batches at some positions of the loader give no number."""
    session = fresh(session)
    experiment = dataclasses.replace(session.experiment, **fields)

    def train(state, batch):
        if int(state.position) not in at:
            return session.train(state, batch)
        loss, accuracy, norm, rate = jnp.full((4,), jnp.nan)
        metrics = training.step.TrainMetrics(
            loss, {"accuracy": accuracy}, norm, rate, jnp.zeros((), bool), jnp.zeros(())
        )
        if experiment.not_finite == "skip":  # what train_step does then
            return state._replace(step=state.step + 1, position=state.position + 1), metrics
        return state._replace(finite=jnp.zeros((), bool)), metrics

    return dataclasses.replace(session, experiment=experiment, train=train)


def by_hand(session, positions):
    """The state after training on these batches of the loader."""
    session = fresh(session)
    state = session.state
    for position in positions:
        state = state._replace(position=jnp.asarray(position, jnp.int32))
        batch = training.sharding.shard_batch(session.loader.batch(position), session.mesh)
        state, _ = session.train(training.sharding.place(state, session.mesh), batch)
    return state


def test_skipped_steps_are_counted_and_in_no_mean(compiled, run):
    session = ill(compiled, at={2, 3, 8}, not_finite="skip")
    result = training.fit(session, run)
    assert (result.step, int(result.state.position)) == (10, 10)
    trained = [r for r in run.records() if r["kind"] == "train"]
    # The window of steps 3 and 4 had nothing else: it is told with the next one.
    assert [(r["step"], r.get("skipped")) for r in trained] == [
        (2, None), (5, 2), (6, None), (8, None), (10, 1)
    ]  # fmt: skip
    assert all(0 < r["loss"] < 9 and r["memory_bytes"] > 2**20 for r in trained)


def test_training_goes_on_behind_the_batch_that_failed(compiled, run):
    said, seen = [], []
    session = ill(compiled, at={5}, **ROLLBACK)
    result = training.fit(session, run, warn=said.append, report=seen.append)
    assert (result.step, int(result.state.position)) == (10, 12)
    assert_same_bits(result.state, by_hand(compiled, [0, 1, 2, 3, *range(6, 12)]))
    (warning,) = said
    assert "not finite at step 6" in warning and "back to step 4" in warning
    assert "batch 6" in warning
    steps = [r["step"] for r in run.records() if r["kind"] == "train"]
    assert steps == sorted(set(steps)) and steps[-1] == 10
    (back,) = [r for r in run.records() if r["kind"] == "rollback"]
    assert (back["step"], back["failed"], back["position"]) == (4, 5, 6)
    assert back in seen


@pytest.mark.parametrize("stop", [6, pytest.param(8, marks=pytest.mark.slow)])
def test_resuming_honours_the_position(compiled, run, stop):
    first = training.fit(ill(compiled, at={5}, **ROLLBACK), run, stop=stop_after(stop))
    assert first.interrupted
    second = training.fit(ill(compiled, at={5}, **ROLLBACK), run)
    assert_same_bits(second.state, by_hand(compiled, [0, 1, 2, 3, *range(6, 12)]))


def test_without_a_checkpoint_it_goes_back_to_the_start(compiled, run):
    session = ill(compiled, at={0, 2}, not_finite="rollback")
    result = training.fit(session, run)
    # Batch 0 fails, batches 1 and 2 follow, batch 2 fails: the start again, behind it.
    assert_same_bits(result.state, by_hand(compiled, range(3, 13)))


def test_the_fourth_rollback_to_one_step_ends_the_run(compiled, run):
    session = ill(compiled, at=set(range(2, 40)), **ROLLBACK)
    with pytest.raises(training.errors.NotFiniteError, match="3 rollbacks did not help") as error:
        training.fit(session, run)
    assert error.value.step == 2
    assert len([r for r in run.records() if r["kind"] == "rollback"]) == 3
    # Another learning rate, say, and it goes on.
    assert training.fit(fresh(compiled), run).step == 10


def test_a_stream_past_its_bound_is_never_rolled_back(compiled, run):
    session = ill(compiled, at=set(), **ROLLBACK)

    def train(state, batch):
        state, metrics = session.train(state, batch)
        return state, metrics._replace(stream=jnp.full((), 2.0))

    with pytest.raises(training.errors.StreamBoundError):
        training.fit(dataclasses.replace(session, train=train), run, warn=pytest.fail)


def test_a_rollback_passes_over_damaged_checkpoints(compiled, run):
    session = ill(compiled, at={5}, **ROLLBACK)
    harmed, said = [], []

    def report(record):
        """Step 4 was saved when step 5 is told."""
        if record["kind"] == "step" and record["step"] == 5 and not harmed:
            path = run.checkpoints / "00000004"
            while not path.exists():
                time.sleep(0.01)
            # The run may move the damaged checkpoint away meanwhile.
            harmed.append(shutil.rmtree(path / "state", ignore_errors=True))

    result = training.fit(session, run, warn=said.append, report=report)
    assert_same_bits(result.state, by_hand(compiled, [0, 1, *range(6, 14)]))
    assert "back to step 2" in said[-1]
    assert integrity.is_complete(run.checkpoints / "00000010")
