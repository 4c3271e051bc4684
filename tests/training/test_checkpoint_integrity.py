"""Damage of any file of a checkpoint is found, and the one before it is taken."""

import errno
import gc
import json
import shutil

import jax
import pytest

from snnjax import training
from snnjax.training import checkpoints
from snnjax.training.checkpoints import integrity, store
from snnjax.training.checkpoints.background import Saver
from tests.programs import loaded
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


def test_a_checkpoint_without_read_permission_is_not_damaged(folder, compiled, monkeypatch):
    def denied(*arguments, **options):
        raise PermissionError("not yours")

    from orbax.checkpoint import v1 as ocp

    monkeypatch.setattr(ocp, "load", denied)
    with pytest.raises(PermissionError):
        checkpoints.load_newest(folder, compiled.state, warn=pytest.fail)


def only_warning(folder, state):
    """Loads, and returns the step and the one warning."""
    said = []
    loaded = checkpoints.load_newest(folder, state, warn=said.append)
    (warning,) = said
    return int(loaded.step), warning


def test_changed_bits_and_blocks_are_noticed():
    """The slow form, with 1,000 bits and 200 blocks, is the program itself."""
    found = loaded("benchmarks/checkpoints.py").damage(10, 10, seed=1)
    assert (found["passed"], found["silent"], found["other"]) == (20, 0, [])


def test_every_bit_of_a_manifest_counts(folder):
    """Also spaces and escapes, which say nothing."""
    file = folder / "00000002" / "manifest.json"
    text = file.read_text()
    for changed in (text.replace(": ", ":", 1), text + " ", text.replace("score", "scor\\u0065")):
        assert changed != text
        file.write_text(changed)
        assert not integrity.is_complete(folder / "00000002")


def in_its_place(path, kind):
    """Puts something else in the place of the manifest or of the whole checkpoint."""
    manifest = path / "manifest.json"
    if kind == "a folder":
        manifest.unlink()
        manifest.mkdir()
    elif kind == "nothing":
        manifest.unlink()
    elif kind == "an older manifest":
        shutil.copy(path.with_name("00000001") / "manifest.json", manifest)
    elif kind == "deep brackets":
        manifest.write_text("[" * 100_000)
    elif kind == "an empty folder":
        shutil.rmtree(path)
        path.mkdir()
    else:
        shutil.rmtree(path)
        shutil.copytree(path.with_name("00000001"), path)


@pytest.mark.parametrize(
    "kind",
    [
        "a folder", "nothing", "an older manifest", "deep brackets", "an empty folder",
        "another step",
    ],
)  # fmt: skip
def test_anything_in_the_place_of_a_checkpoint_is_passed_over(folder, compiled, kind):
    in_its_place(folder / "00000002", kind)
    step, warning = only_warning(folder, compiled.state)
    assert step == 1 and "00000002" in warning and "passed over" in warning
    name = "_CHECKPOINT_METADATA" if kind == "an empty folder" else "manifest.json"
    assert name in warning


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EACCES, errno.ESTALE])
def test_an_error_of_the_system_is_no_damage(folder, compiled, monkeypatch, number):
    """An older checkpoint would be resumed, and the good one replaced."""
    monkeypatch.setattr(
        integrity, "_digest", lambda file: (_ for _ in ()).throw(OSError(number, "no", "x"))
    )
    with pytest.raises(OSError, match="no") as raised:
        checkpoints.load_newest(folder, compiled.state, warn=pytest.fail)
    assert raised.value.errno == number


def test_the_best_one_is_undamaged(folder, compiled):
    """Its digests are compared, not only its sizes."""
    file = folder / "00000002" / "state" / "manifest.ocdbt"
    file.write_bytes(b"\0" * file.stat().st_size)
    said = []
    assert checkpoints.best(folder, warn=said.append).name == "00000001"
    assert checkpoints.newest(folder, warn=said.append).name == "00000001"
    assert len(said) == 2 and all("state/manifest.ocdbt" in text for text in said)


def test_a_changed_one_pushes_no_good_one_out(folder, compiled):
    """With `keep=2`: the newest, and the one before it that can be read."""
    file = folder / "00000002" / "state" / "manifest.ocdbt"
    file.write_bytes(b"\0" * file.stat().st_size)
    with Saver(folder, keep=2, step=1) as saver:
        saver.save(compiled.state._replace(step=compiled.state.step + 3))
    assert checkpoints.steps(folder) == [1, 3]


NAMES = ["[1]", "a*b", "x?y", "back\\slash", "gs:", "\u65e5\u672c", "a [b] {c}", "new\nline", "%41"]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_folder_can_keep_checkpoints(tmp_path, compiled, name):
    folder = tmp_path / name / "checkpoints"
    # A pattern would match this one too.
    (tmp_path / "aXb" / "checkpoints").mkdir(parents=True)
    with Saver(folder, keep=2, step=0) as saver:
        saver.save(compiled.state._replace(step=compiled.state.step + 1))
    state = checkpoints.load_newest(folder, compiled.state, warn=pytest.fail)
    assert int(state.step) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "aXb"])
    assert not list((tmp_path / "aXb" / "checkpoints").iterdir())


def test_several_processes_refuse_a_name_that_is_not_literal(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    store.check_folder(tmp_path / "plain")
    with pytest.raises(training.errors.CheckpointError, match="another --out"):
        store.check_folder(tmp_path / "[1]")


def test_the_first_one_of_a_session_is_read_back(tmp_path, compiled, monkeypatch):
    """A folder that returns other bytes than were written ends training at once."""
    finish = store.Writing.finish

    def lossy(self, **options):
        write = integrity.write_manifest

        def after_the_loss(path, note):
            for file in path.rglob("d/*"):
                file.write_bytes(b"\0" * file.stat().st_size)
            write(path, note)

        monkeypatch.setattr(store, "write_manifest", after_the_loss)
        return finish(self, **options)

    monkeypatch.setattr(store.Writing, "finish", lossy)
    with (
        pytest.raises(training.errors.CheckpointError, match="read back.*another --out"),
        Saver(tmp_path, keep=2, step=0) as saver,
    ):
        saver.save(compiled.state)


def test_other_arrays_read_back_are_named(tmp_path, compiled):
    content = store.Content.measure(compiled.state)
    path = checkpoints.save(tmp_path, compiled.state)
    store.check_read_back(path, content)
    other = compiled.state._replace(position=compiled.state.position + 1)
    with pytest.raises(training.errors.CheckpointError, match="its arrays differ"):
        store.check_read_back(path, store.Content.measure(other))


def test_damage_while_writing_is_warned_of_and_the_older_ones_stay(tmp_path, compiled, monkeypatch):
    said = []
    with Saver(tmp_path, keep=1, step=0, warn=said.append) as saver:
        for step in (1, 2):
            if step == 2:
                monkeypatch.setattr(
                    "snnjax.training.checkpoints.background.checked_note",
                    lambda path: (_ for _ in ()).throw(
                        integrity.damage(path, OSError("bad block"))
                    ),
                )
            saver.save(compiled.state._replace(step=compiled.state.step + step))
            saver.wait()
    (warning,) = said
    assert "00000002" in warning and "bad block" in warning and "the one before it" in warning
    assert checkpoints.steps(tmp_path) == [1, 2]


def test_files_of_a_user_stay(folder, compiled):
    """Beside the checkpoints, in them, and under the name of one."""
    mine = {
        "backup/00000001/state": "a", "notes.txt": "b", "2026/plan": "c", "00000001-copy/x": "d",
        "00000001/why.md": "e", "00000003/thesis.tex": "f", "00000004.part-of-mine/x": "g",
    }  # fmt: skip
    for name, text in mine.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "00000004.part.orbax-checkpoint-tmp-123").mkdir()
    (folder / "00000004.deleted").mkdir()
    assert checkpoints.steps(folder) == [1, 2, 3]
    with Saver(folder, keep=1, step=2) as saver:
        for step in (3, 4):
            saver.save(compiled.state._replace(step=compiled.state.step + step))
    assert checkpoints.steps(folder) == [4]
    files = [file for file in folder.rglob("*") if file.is_file() and file.stat().st_size == 1]
    assert sorted(file.read_text() for file in files) == sorted(mine.values())
    assert (folder / "00000001.kept" / "why.md").exists()
    assert (folder / "00000003.kept" / "thesis.tex").exists()
    assert not (folder / "00000004.deleted").exists()


@pytest.mark.fast
@pytest.mark.parametrize("text", ["[OS error 24: Too many open files]", "[os_error_code='24']"])
def test_too_few_descriptors_are_no_damage(tmp_path, text):
    """TensorStore spells numbers of the system in two ways."""
    with pytest.raises(ValueError, match="24"):
        integrity.damage(tmp_path, ValueError(f"RESOURCE_EXHAUSTED: Failed to open {text}"))
    assert "cannot be read" in str(integrity.damage(tmp_path, ValueError("[os_error_code='5']")))
