"""A file that is no experiment is refused with what an experiment is."""

import pytest

from snnjax import training
from tests.training import micro


def refuse(tmp_path, text, match, name="mine.py"):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(training.errors.ExperimentError, match=match):
        training.config.load_experiment(path)


def test_files_that_are_no_experiment(tmp_path):
    refuse(tmp_path, "x = 1", "no function config")
    refuse(tmp_path, "config = 3", "no function config")
    refuse(tmp_path, "def config(:", "line 1: ")
    refuse(tmp_path, "1 / 0", "failed: ZeroDivisionError")
    refuse(tmp_path, "import nothing_of_that_name", "nothing_of_that_name, which is not installed")
    refuse(tmp_path, "def config(): return {}", "returned dict")
    refuse(tmp_path, "def config(): raise KeyError('a')", r"config\(\) failed: KeyError")
    refuse(tmp_path, "def config(x): ...", r"config\(\) failed: TypeError")
    refuse(tmp_path, "{}", "does not end in .py", name="config.json")


def test_paths_that_are_no_file(tmp_path):
    with pytest.raises(training.errors.ExperimentError, match="not there"):
        training.config.load_experiment(tmp_path / "none.py")
    with pytest.raises(training.errors.ExperimentError, match="a directory"):
        training.config.load_experiment(tmp_path)


def test_a_run_gives_its_experiment_back(tmp_path):
    experiment = training.config.override(micro.config(), {"width": 12, "clip_norm": 1.0})
    with open(micro.__file__) as file:
        run = training.Run.create(tmp_path / "run", experiment, file.read())
    again = run.experiment()
    assert training.config.plain_values(again) == training.config.plain_values(experiment)
    assert again.width == 12
