"""Checkpoints of older forms are read, of newer ones refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from snnjax import nn, training
from snnjax.training import checkpoints
from snnjax.training.checkpoints import format as schema
from snnjax.training.checkpoints import integrity
from tests.training import planted
from tests.training.conftest import assert_same_bits


def write_sizes(path):
    """As forms 1 to 4 recorded their files."""
    files = [file for file in path.rglob("*") if file.is_file()]
    sizes = {str(file.relative_to(path)): file.stat().st_size for file in files}
    (path / "sizes.json").write_text(json.dumps(sizes))


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
        write_sizes(path)
    assert integrity.checked_note(path)["schema"] == 1
    assert checkpoints.best(tmp_path) == checkpoints.newest(tmp_path) == path
    assert_same_bits(checkpoints.load(path, session.state), session.state)


def test_a_newer_form_is_refused_and_not_passed_over(tmp_path, session):
    checkpoints.save(tmp_path, session.state)
    path = checkpoints.save(tmp_path, session.state._replace(step=session.state.step + 1))
    integrity.write_manifest(path, schema.note(session.state, score=None) | {"schema": 99})
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
            older=lambda tree, _: {"w": tree["v"]}, newer=lambda tree, _: {"v": tree["w"]}
        ),
        schema.Migration(
            older=lambda tree, _: {"v": tree["v"]}, newer=lambda tree, state: {**state, **tree}
        ),
    ]
    state = jax.device_put({"v": jnp.zeros(2), "more": jnp.ones(3)})
    form = schema.saved_form(state, 1, {}, migrations=migrations)
    assert schema.leaves(form) == {"['w']": "float32[2]"}
    assert set(schema.saved_form(state, 2, {}, migrations=migrations)) == {"v"}
    assert set(schema.saved_form(state, 3, {}, migrations=migrations)) == {"v", "more"}
    read = schema.migrate({"w": jnp.full(2, 7.0)}, 1, state, migrations=migrations)
    np.testing.assert_array_equal(read["v"], [7, 7])
    np.testing.assert_array_equal(read["more"], [1, 1, 1])


def half(rngs):
    return nn.Sequential(nn.Linear(8, 8, rngs=rngs), nn.BatchNorm(8))


def nested(rngs):
    return nn.Sequential(nn.Reversible(half, half, 2, rngs=rngs), nn.BatchNorm(16))


def reversible(experiment, rngs):
    """A stream inside of a stream, and one in a residual branch."""
    layers = [nn.Flatten(), nn.Linear(64, 32, rngs=rngs)]
    layers += [nn.Reversible(nested, nested, 3, rngs=rngs), nn.Residual(nested_flat(rngs))]
    return nn.Network(nn.Sequential(*layers, nn.Linear(32, 10, rngs=rngs)), (8, 8, 1))


def nested_flat(rngs):
    return nn.Reversible(lambda r: nn.Sequential(nn.BatchNorm(16)), nested, 1, rngs=rngs)


def test_a_checkpoint_whose_statistics_hold_peaks_is_read(tmp_path):
    """Form 3; `bound` and `peak` are dropped, at any depth, and all else is kept."""
    _, state = training.initialize(planted.experiment(reversible), steps=1)
    peak = lambda *shape: schema.StreamPeak(jnp.ones(shape), jnp.full(shape, 16.0))  # noqa: E731
    flat, linear, (f, g), (branch, shortcut), last = state.statistics
    inner = lambda part: ((part[0], peak(3)), part[1])  # noqa: E731
    deep = ((branch[0], ((branch[1][0], peak(1)), branch[1][1])), peak())
    older = state._replace(
        statistics=(flat, linear, ((inner(f), inner(g)), peak()), (deep, shortcut), last)
    )
    path = tmp_path / "00000000"
    said = {"schema": 3, "leaves": schema.leaves(older), "accuracy": None}
    assert sum(".peak" in name for name in said["leaves"]) == 5
    ocp.save(str(path.resolve()), older, custom_metadata=said)
    write_sizes(path)
    assert_same_bits(checkpoints.load(path, state), state)


def test_peaks_of_columns_are_the_last_of_three():
    columns, peak = ((jnp.zeros(2), jnp.ones(2)), (jnp.zeros(3),)), schema.StreamPeak(1, 2)
    older = schema._insert((columns,), [0], 2, peak)
    assert older == ((*columns, peak),)
    assert schema._without_peaks(older) == (columns,)
