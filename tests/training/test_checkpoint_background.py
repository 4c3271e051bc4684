"""A checkpoint is written beside the training, whole, of the state as it was."""

import errno
import functools
import os
import threading
import time

import jax
import jax.numpy as jnp
import pytest
from orbax.checkpoint import v1 as ocp

from snnjax.training import checkpoints
from snnjax.training.checkpoints import store
from snnjax.training.checkpoints.background import Saver
from tests.training.conftest import assert_same_bits, bits


class Slow:
    """Orbax, but nothing is read or written until it is let go."""

    def __init__(self, monkeypatch, error=None):
        self.gate, self.error = threading.Event(), error
        monkeypatch.setattr(ocp, "save_async", self)

    def __call__(self, path, tree, **options):
        self.given = path, tree, options
        return self

    def result(self):
        assert self.gate.wait(20)
        if self.error:
            raise self.error
        path, tree, options = self.given
        ocp.save(path, tree, **options)


@pytest.fixture
def state(session):
    return session.state


def at(state, step):
    return state._replace(step=state.step + step)


@functools.partial(jax.jit, donate_argnums=0)
def _ruin(state):
    key = jax.random.fold_in(state.key, 1)
    rest = jax.tree.map(lambda x: x * jnp.zeros((), x.dtype), state._replace(key=state.step))
    return rest._replace(key=key)


def test_a_state_that_is_donated_and_overwritten_does_not_reach_the_checkpoint(
    tmp_path, state, monkeypatch
):
    slow, before = Slow(monkeypatch), bits(jax.tree.map(jnp.copy, state))
    with Saver(tmp_path, keep=2, step=-1) as saver:
        saver.save(state)
        jax.block_until_ready(_ruin(state))
        assert state.step.is_deleted()
        slow.gate.set()
        saver.wait()
    template = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    after = bits(ocp.load(str((tmp_path / "00000000").resolve()), template))
    assert {n: v.tobytes() for n, v in after.items()} == {n: v.tobytes() for n, v in before.items()}


def test_training_goes_on_while_it_is_written(tmp_path, state, monkeypatch):
    slow = Slow(monkeypatch)
    with Saver(tmp_path, keep=2, step=0) as saver:
        assert saver.save(at(state, 1))
        saver.check()
        assert checkpoints.steps(tmp_path) == []
        slow.gate.set()
        saver.wait()
        assert checkpoints.steps(tmp_path) == [1] and store.is_complete(tmp_path / "00000001")
        assert not saver.save(at(state, 1))


def test_the_next_save_waits_for_the_one_before(tmp_path, state, monkeypatch):
    slow = Slow(monkeypatch)
    threading.Timer(0.2, slow.gate.set).start()
    with Saver(tmp_path, keep=2, step=0) as saver:
        saver.save(at(state, 1))
        saver.save(at(state, 2))
        assert 1 in checkpoints.steps(tmp_path)
    assert checkpoints.steps(tmp_path) == [1, 2]


def test_old_ones_and_halves_go_when_the_new_one_is_whole(tmp_path, state):
    for step in (1, 2, 3):
        checkpoints.save(tmp_path, at(state, step))
    half = tmp_path / "00000009.part.orbax-checkpoint-tmp"
    half.mkdir()
    with Saver(tmp_path, keep=2, step=3) as saver:
        assert not half.exists()
        saver.save(at(state, 4), spare=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000001", "00000003", "00000004"]


def test_damaged_ones_ahead_push_nothing_out_and_are_replaced(tmp_path, state):
    for step in (2, 6, 8):
        checkpoints.save(tmp_path, at(state, step))
    for step in (6, 8):
        (tmp_path / f"{step:08}" / "manifest.json").unlink()
    with Saver(tmp_path, keep=2, step=2) as saver:
        for step, left in ((4, [2, 4, 6, 8]), (7, [4, 7, 8]), (8, [7, 8])):
            assert saver.save(at(state, step))
            saver.wait()
            assert checkpoints.steps(tmp_path) == left
    assert store.is_complete(tmp_path / "00000008")
    assert checkpoints.newest(tmp_path).name == "00000008"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
def test_a_full_disk_reaches_the_thread_that_trains(tmp_path, state, monkeypatch, number):
    checkpoints.save(tmp_path, at(state, 1))
    slow = Slow(monkeypatch, OSError(number, os.strerror(number)))
    (tmp_path / "00000002.part.orbax-checkpoint-tmp").mkdir()
    slow.gate.set()
    with pytest.raises(OSError) as full, Saver(tmp_path, keep=2, step=1) as saver:  # noqa: PT012
        saver.save(at(state, 2))
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            saver.check()
            time.sleep(0.001)
    assert full.value.errno == number
    assert [path.name for path in tmp_path.iterdir()] == ["00000001"]
    assert_same_bits(checkpoints.load(tmp_path / "00000001", state), at(state, 1))


def test_an_error_that_is_leaving_is_not_replaced(tmp_path, state, monkeypatch):
    slow = Slow(monkeypatch, OSError(errno.ENOSPC, "full"))
    slow.gate.set()
    with pytest.raises(KeyError), Saver(tmp_path, keep=2, step=0) as saver:
        saver.save(at(state, 1))
        raise KeyError("first")


def test_leaving_waits_for_the_writing(tmp_path, state, monkeypatch):
    slow = Slow(monkeypatch)
    threading.Timer(0.2, slow.gate.set).start()
    with pytest.raises(KeyError), Saver(tmp_path, keep=2, step=0) as saver:
        saver.save(at(state, 1))
        raise KeyError("first")
    assert checkpoints.steps(tmp_path) == [1]


def test_steps_behind_a_rollback_are_saved_again(tmp_path, state):
    with Saver(tmp_path, keep=9, step=0) as saver:
        saver.save(at(state, 1))
        saver.save(at(state, 2))
        saver.rewind(1)
        changed = at(state, 2)._replace(position=jnp.asarray(9, jnp.int32))
        assert not saver.save(at(state, 1)) and saver.save(changed)
    assert int(checkpoints.load(tmp_path / "00000002", state).position) == 9
