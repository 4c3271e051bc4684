"""Checkpoints of older forms are read, of newer ones refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from snnjax import training
from snnjax.training import checkpoints
from snnjax.training.checkpoints import format as schema
from snnjax.training.checkpoints import integrity
from tests.training.conftest import assert_same_bits


def write_first_form(folder, state):
    """As snnjax wrote them before notes had a schema."""
    path = folder / f"{int(state.step):08}"
    state = schema.Unscaled(*state[: len(schema.Unscaled._fields)])
    said = {"leaves": schema.leaves(state), "accuracy": 0.5}
    ocp.save(str(path.resolve()), state, custom_metadata=said)
    return path


@pytest.mark.parametrize("sizes", [True, False])
def test_a_checkpoint_without_a_schema_is_read(tmp_path, session, sizes):
    path = write_first_form(tmp_path, session.state)
    if sizes:  # it was written last
        integrity.write_sizes(path)
    assert integrity.checked_note(path)["schema"] == 1
    assert checkpoints.best(tmp_path) == checkpoints.newest(tmp_path) == path
    assert_same_bits(checkpoints.load(path, session.state), session.state)


def test_a_newer_form_is_refused_and_not_passed_over(tmp_path, session):
    checkpoints.save(tmp_path, session.state)
    path = checkpoints.save(tmp_path, session.state._replace(step=session.state.step + 1))
    file = path / "_CHECKPOINT_METADATA"
    said = json.loads(file.read_text())
    said["custom_metadata"]["schema"] = schema.SCHEMA + 1
    file.write_text(json.dumps(said))
    assert schema.SCHEMA < 9  # the file keeps its length
    for read in (
        lambda: checkpoints.load(path, session.state),
        lambda: checkpoints.load_newest(tmp_path, session.state, warn=pytest.fail),
    ):
        with pytest.raises(
            training.errors.CheckpointError, match="newer snnjax.*upgrade"
        ) as refused:
            read()
        assert not isinstance(refused.value, training.errors.DamagedCheckpointError)


def test_every_form_so_far_has_a_migration():
    assert len(schema.MIGRATIONS) == schema.SCHEMA - 1


def test_migrations_are_done_one_after_the_other():
    """Form 1 has w, form 2 calls it v, form 3 has a second array beside it."""
    migrations = [
        schema.Migration(
            older=lambda tree: {"w": tree["v"]}, newer=lambda tree, _: {"v": tree["w"]}
        ),
        schema.Migration(
            older=lambda tree: {"v": tree["v"]}, newer=lambda tree, state: {**state, **tree}
        ),
    ]
    state = jax.device_put({"v": jnp.zeros(2), "more": jnp.ones(3)})
    form = schema.saved_form(state, 1, migrations=migrations)
    assert schema.leaves(form) == {"['w']": "float32[2]"}
    assert set(schema.saved_form(state, 2, migrations=migrations)) == {"v"}
    assert set(schema.saved_form(state, 3, migrations=migrations)) == {"v", "more"}
    read = schema.migrate({"w": jnp.full(2, 7.0)}, 1, state, migrations=migrations)
    np.testing.assert_array_equal(read["v"], [7, 7])
    np.testing.assert_array_equal(read["more"], [1, 1, 1])
