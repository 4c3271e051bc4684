"""A run directory is never overwritten, and its records can be rewound."""

import errno
import fcntl
import json
import threading

import pytest

from snnjax import training
from tests.training.conftest import make


def test_a_new_run_holds_what_defines_it(tmp_path):
    run = training.Run.create(tmp_path / "a" / "b", make(), "text")
    assert run.source.read_text() == "text"
    assert run.config() == json.loads(json.dumps(training.config.plain_values(make())))
    versions = json.loads((run.path / "versions.json").read_text())
    assert {"python", "packages", "devices"} <= set(versions)
    assert training.Run.open(run.path).path == run.path


def test_files_of_a_run_are_not_overwritten(tmp_path, run):
    with pytest.raises(training.errors.RunError, match="--resume"):
        training.Run.create(run.path, make(), "")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(training.errors.RunError, match="never overwritten"):
        training.Run.create(tmp_path / "mine", make(), "")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_an_empty_folder_may_be_used(tmp_path):
    (tmp_path / "empty").mkdir()
    training.Run.create(tmp_path / "empty", make(), "")


def test_only_runs_are_opened(tmp_path):
    with pytest.raises(training.errors.RunError, match="no run directory"):
        training.Run.open(tmp_path)
    with pytest.raises(training.errors.RunError, match="not there"):
        training.Run.open(tmp_path / "none")


def test_a_damaged_configuration_is_named(run):
    (run.path / "config.json").write_text("{")
    with pytest.raises(training.errors.RunError, match="config.json is damaged"):
        run.config()


def test_records_are_rewound_and_a_cut_line_is_dropped(run):
    assert run.records() == [] and run.rewind(3) == []
    for step in (1, 2, 3):
        run.append({"kind": "train", "step": step})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tr')
    assert [r["step"] for r in run.records()] == [1, 2, 3]
    assert [r["step"] for r in run.rewind(2)] == [1, 2]
    run.append({"kind": "train", "step": 3})
    assert [r["step"] for r in run.records()] == [1, 2, 3]


def test_two_processes_do_not_train_in_one_directory(run):
    with (
        run.lock(),
        pytest.raises(training.errors.RunError, match="another process"),
        training.Run.open(run.path).lock(),
    ):
        pass
    with run.lock():
        pass


def test_a_full_disk_leaves_no_half_made_run(tmp_path, monkeypatch):
    def full(self, name, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training.Run, "write_json", full)
    with pytest.raises(OSError):
        training.Run.create(tmp_path / "run", make(), "")
    assert not (tmp_path / "run").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError):
        training.Run.create(tmp_path / "empty", make(), "")
    assert list((tmp_path / "empty").iterdir()) == []  # the user's own folder stays


def create_at_once(count, **options):
    """Runs created by threads at the same moment, or their errors."""
    barrier, outcomes = threading.Barrier(count), []

    def create():
        barrier.wait()
        try:
            outcomes.append(training.Run.create(source="x", experiment=make(), **options))
        except training.errors.RunError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=create) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_simultaneous_starts_take_different_numbers(tmp_path):
    runs = create_at_once(4, path=tmp_path / "runs" / "micro-0", numbered=True)
    names = ["micro-0", "micro-0-2", "micro-0-3", "micro-0-4"]
    assert sorted(run.path.name for run in runs) == names
    assert all(run.config() and run.source.read_text() == "x" for run in runs)


@pytest.mark.parametrize("empty", [False, True])
def test_a_lost_race_leaves_the_winner_alone(tmp_path, empty):
    if empty:
        (tmp_path / "run").mkdir()
    outcomes = create_at_once(4, path=tmp_path / "run")
    (winner,) = [run for run in outcomes if isinstance(run, training.Run)]
    assert winner.source.read_text() == "x" and winner.config()
    assert {p.name for p in winner.path.iterdir()} == {
        "experiment.py", "config.json", "versions.json"
    }  # fmt: skip


def test_a_file_in_the_place_of_the_parent_is_named(tmp_path):
    (tmp_path / "runs").write_text("")
    for numbered in (False, True):
        with pytest.raises(training.errors.RunError, match="is no folder"):
            training.Run.create(tmp_path / "runs" / "a", make(), "", numbered=numbered)


DAMAGED = [
    b"\xff\xfe", b"[1]", b"null", b"[" * 10**5, b'{"kind": "train"}', b'{"kind": "train", "st',
    b'{"kind": "eval", "step": "9"}', b'{"kind": "eval", "step": 2, "loss": "x"}',
]  # fmt: skip


@pytest.mark.parametrize("line", DAMAGED)
def test_a_damaged_line_costs_that_line_only(run, line):
    for step in (1, 3):
        run.append({"kind": "train", "step": step})
    file = run.path / "metrics.jsonl"
    first, third = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join([first, line, third, b""]))
    said = []
    assert [r["step"] for r in run.records(warn=said.append)] == [1, 3]
    (warning,) = said
    assert "metrics.jsonl: line 2 cannot be read" in warning
    assert [r["step"] for r in run.rewind(2)] == [1]
    assert file.read_bytes() == b"\n".join([first, line, b""])
    run.append({"kind": "train", "step": 3})
    assert [r["step"] for r in run.records()] == [1, 3]


def test_a_damaged_last_line_without_an_end_is_no_cut_record(run):
    run.append({"kind": "train", "step": 1})
    file = run.path / "metrics.jsonl"
    whole = file.read_bytes()
    said = []
    file.write_bytes(whole + b'{"kind": "tr')
    assert len(run.records(warn=said.append)) == 1 and not said
    file.write_bytes(whole + b"\xff")
    assert len(run.records(warn=said.append)) == 1 and len(said) == 1
    run.rewind(1)
    assert file.read_bytes() == whole + b"\xff\n"


def test_records_that_stay_are_not_rewritten(run):
    run.append({"kind": "train", "step": 1})
    before = (run.path / "metrics.jsonl").stat().st_ino
    run.rewind(1)
    assert (run.path / "metrics.jsonl").stat().st_ino == before


def test_the_configuration_is_written_only_if_it_changes(run):
    file = run.path / "config.json"
    before = file.stat().st_ino
    run.write_config(make())
    assert file.stat().st_ino == before
    run.write_config(make(epochs=7))
    assert run.config()["epochs"] == 7


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_warned_of(run, monkeypatch, number):
    def flock(file, operation):
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "flock", flock)
    said = []
    with run.lock(warn=said.append):
        pass
    (warning,) = said
    assert "has no locks (no locks here)" in warning
