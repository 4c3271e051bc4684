"""A run directory is never overwritten, and its records can be rewound."""

import json

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


def test_what_is_there_is_not_overwritten(tmp_path, run):
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
