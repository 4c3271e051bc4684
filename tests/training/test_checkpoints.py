"""A checkpoint holds every bit, says when it is of another model, and is whole or not there."""

import jax
import jax.numpy as jnp
import pytest

from snnjax import training
from snnjax.training import checkpoints
from snnjax.training.checkpoints import store
from tests.training.conftest import assert_same_bits, make


@pytest.fixture
def state(session):
    return session.state


def at(state, step):
    return state._replace(step=state.step + step)


def test_every_bit_comes_back(tmp_path, state):
    odd = state._replace(
        key=jax.random.fold_in(state.key, 5),
        statistics=jax.tree.map(lambda x: x / 3, state.statistics),
    )
    path = checkpoints.save(tmp_path, odd)
    loaded = checkpoints.load(path, state)
    assert_same_bits(loaded, odd)
    assert jax.tree.structure(loaded) == jax.tree.structure(odd)
    assert jnp.issubdtype(loaded.key.dtype, jax.dtypes.prng_key)
    same = jax.tree.map(lambda a, b: a.sharding == b.sharding, loaded, state)
    assert all(jax.tree.leaves(same))


def test_another_model_is_refused_with_the_difference(tmp_path, state):
    path = checkpoints.save(tmp_path, state)
    _, wider = training.initialize(make(width=9), steps=1)
    with pytest.raises(
        training.errors.CheckpointError, match=r"another model.*kernel.*\[64, 8\].*\[64, 9\]"
    ):
        checkpoints.load(path, wider)


def test_newest_best_and_pruning(tmp_path, state):
    for step, accuracy in [(1, 0.3), (2, 0.9), (3, None), (4, 0.9), (5, 0.4)]:
        checkpoints.save(tmp_path, at(state, step), score=accuracy)
    (tmp_path / "00000006.orbax-checkpoint-tmp").mkdir()  # what a killed process leaves
    assert checkpoints.steps(tmp_path) == [1, 2, 3, 4, 5]
    assert checkpoints.best(tmp_path).name == "00000002"
    store.prune(tmp_path, keep=2, spare=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000002", "00000004", "00000005"]
    assert checkpoints.newest(tmp_path).name == "00000005"


def test_no_folder_no_checkpoints(tmp_path):
    assert checkpoints.newest(tmp_path / "none") is None
    assert checkpoints.best(tmp_path / "none") is None


def test_a_damaged_checkpoint_is_named(tmp_path, state):
    (tmp_path / "00000009").mkdir()
    with pytest.raises(training.errors.CheckpointError, match="cannot be read.*delete that folder"):
        checkpoints.load(tmp_path / "00000009", state)
