"""Damage of any file of a checkpoint is found, and the one before it is taken."""

import gc
import json
import shutil

import pytest

from snnjax import training
from snnjax.training import checkpoints
from snnjax.training.checkpoints import integrity, store
from tests.training.conftest import assert_same_bits


@pytest.fixture(scope="module")
def two(compiled, tmp_path_factory):
    """A folder with the checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("two")
    for step, accuracy in ((1, 0.4), (2, 0.6)):
        state = compiled.state._replace(step=compiled.state.step + step)
        checkpoints.save(folder, state, score=accuracy)
    return folder


@pytest.fixture
def folder(two, tmp_path):
    shutil.copytree(two, tmp_path / "two")
    return tmp_path / "two"


def test_a_whole_one_is_whole(folder):
    assert integrity.is_complete(folder / "00000002")
    assert not integrity.is_complete(folder / "00000003")


def test_every_file_counts(folder, compiled):
    """Each file in turn: deleted, cut in half, emptied."""
    path = folder / "00000002"
    whole = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert len(whole) > 5
    for file, content in whole.items():
        for harm in ("delete", "halve", "empty"):
            if harm == "delete":
                file.unlink()
            elif not content:
                continue
            else:
                file.write_bytes(content[: len(content) // 2 if harm == "halve" else 0])
            assert not integrity.is_complete(path), f"{harm} {file.name}"
            with pytest.raises(
                training.errors.DamagedCheckpointError, match="cannot be read.*delete"
            ):
                checkpoints.load(path, compiled.state)
            file.write_bytes(content)
    assert integrity.is_complete(path)


def test_a_damaged_one_is_neither_the_newest_nor_the_best(folder):
    assert checkpoints.newest(folder).name == checkpoints.best(folder).name == "00000002"
    (folder / "00000002" / "manifest.json").write_text("[1]")
    assert checkpoints.newest(folder).name == checkpoints.best(folder).name == "00000001"
    assert checkpoints.steps(folder) == [1, 2]


def test_the_one_before_it_is_read_with_a_warning(folder, compiled):
    shutil.rmtree(folder / "00000002" / "state")
    said = []
    state = checkpoints.load_newest(folder, compiled.state, warn=said.append)
    assert int(state.step) == 1
    (warning,) = said
    assert "00000002 cannot be read" in warning and "passed over" in warning
    assert "delete" not in warning


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_arrays_that_cannot_be_decoded_are_damage_too(folder, compiled):
    """Their files have the right digests: only reading tells, and Orbax forgets its other tasks."""
    path = folder / "00000002"
    note = integrity.checked_note(path)
    for file in path.rglob("d/*"):
        file.write_bytes(b"\xff" * file.stat().st_size)
    assert not integrity.is_complete(path)
    integrity.write_manifest(path, note)
    assert integrity.is_complete(path)
    said = []
    state = checkpoints.load_newest(folder, compiled.state, warn=said.append)
    assert int(state.step) == 1 and len(said) == 1
    gc.collect()  # those tasks are complained of here, not in another test


def test_all_of_them_damaged_is_an_error(folder, compiled):
    for step in (1, 2):
        (folder / f"{step:08}" / "manifest.json").unlink()
    said = []
    with pytest.raises(
        training.errors.CheckpointError, match="none of the 2 checkpoints"
    ) as refused:
        checkpoints.load_newest(folder, compiled.state, warn=said.append)
    assert len(said) == 2 and not isinstance(refused.value, training.errors.DamagedCheckpointError)
    assert checkpoints.newest(folder) is None and checkpoints.best(folder) is None


@pytest.mark.parametrize("nonsense", ["null", "0", '"two"', "[]"])
def test_a_note_that_makes_no_sense_is_damage(folder, nonsense):
    """In a checkpoint without digests."""
    path = folder / "00000002"
    file = path / "_CHECKPOINT_METADATA"
    (path / "manifest.json").unlink()
    said = json.loads(file.read_text())
    said["custom_metadata"] = {"schema": json.loads(nonsense), "leaves": {}, "score": None}
    file.write_text(json.dumps(said))
    with pytest.raises(training.errors.DamagedCheckpointError, match="schema"):
        integrity.checked_note(folder / "00000002")


def test_a_damaged_one_is_replaced_when_its_step_is_reached_again(folder, compiled):
    path = folder / "00000002"
    (path / "manifest.json").write_text("{")
    state = compiled.state._replace(step=compiled.state.step + 2)
    assert checkpoints.save(folder, state) == path and integrity.is_complete(path)
    assert_same_bits(checkpoints.load(path, compiled.state), state)
    store.prune(folder, keep=5)
    assert sorted(p.name for p in folder.iterdir()) == ["00000001", "00000002"]


def test_what_may_not_be_read_is_not_damaged(folder, compiled, monkeypatch):
    def denied(*arguments, **options):
        raise PermissionError("not yours")

    from orbax.checkpoint import v1 as ocp

    monkeypatch.setattr(ocp, "load", denied)
    with pytest.raises(PermissionError):
        checkpoints.load_newest(folder, compiled.state, warn=pytest.fail)
