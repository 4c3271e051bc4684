"""The command line: what it prints for machines, and what it refuses with one message."""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest

from snnjax.cli import main
from tests.training import micro

MICRO = micro.__file__


def call(capsys, *arguments):
    """Exit code, the last line of stdout as JSON, and stderr."""
    capsys.readouterr()
    code = main(argv=[*arguments, "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]), err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of the micro experiment with fields of one's own, and what training it printed."""
    import contextlib
    import io

    folder = tmp_path_factory.mktemp("trained") / "run"
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        options = ["--width", "6", "--clip-norm", "1.5", "--learning_rate", "0.02"]
        assert main(argv=["train", MICRO, "--out", str(folder), *options, "--json"]) == 0
    return folder, json.loads(out.getvalue().splitlines()[-1])


def test_train_says_what_it_measured(trained):
    folder, said = trained
    assert said["command"] == "train" and said["exit_code"] == 0 and said["name"] == "micro"
    assert said["run"] == str(folder)
    assert 0 <= said["test_accuracy"] <= said["best_test_accuracy"] <= 1
    assert said["steps"] == 10 and said["epochs"] == 2.0 and said["parameters"] == 472
    assert said["seconds"] > said["train_seconds"] > 0 and said["compile_seconds"] > 0
    assert said["interrupted"] is None
    assert list(said["firing_rates"]) == ["lif3"] and said["nasfr"] == said["firing_rates"]["lif3"]
    assert json.loads((folder / "result.json").read_text()) == said


def test_pages_are_kept_when_asked_for(monkeypatch, capsys):
    from snnjax import training

    monkeypatch.setattr(training, "keep_pages", lambda: False)  # not in this process
    wrong = ["train", MICRO, "--coordinator", "nowhere"]
    code, _, err = call(capsys, *wrong, "--keep-pages")
    assert code == 2 and "needs Linux with glibc" in err
    assert "glibc" not in call(capsys, *wrong)[2]


def test_eval_measures_the_same_as_train(trained, capsys):
    folder, said = trained
    code, found, _ = call(capsys, "eval", str(folder))
    assert code == 0
    assert found["test_accuracy"] == said["test_accuracy"]
    assert found["test_loss"] == pytest.approx(said["test_loss"], rel=1e-6)
    assert found["step"] == 10 and found["examples"] == 360
    assert found["firing_rates"] == said["firing_rates"] and found["neurons"] == {"lif3": 6}
    assert found["nasfr"] == said["nasfr"]
    code, best, _ = call(capsys, "eval", str(folder), "--checkpoint", "best")
    assert best["test_accuracy"] == said["best_test_accuracy"]
    assert best["step"] == said["best_step"]


def test_show_draws_pictures_and_one_page(trained, capsys):
    folder, _ = trained
    code, found, _ = call(capsys, "show", str(folder), "--example", "3")
    assert code == 0
    assert set(found["pictures"]) == {
        "learning_curve", "firing_rates", "raster lif3", "membrane lif3",
    }  # fmt: skip
    for path in found["pictures"].values():
        assert pathlib.Path(path).read_bytes().startswith(b"\x89PNG")
    page = pathlib.Path(found["page"]).read_text()
    assert page.count("data:image/png;base64,") == 4
    assert "http://" not in page and "https://" not in page


def test_info_names_versions_devices_and_memory(capsys):
    code, found, _ = call(capsys, "info")
    assert code == 0
    assert {"snnjax", "jax", "flax", "optax", "orbax-checkpoint"} <= set(found["packages"])
    assert found["memory"] and {"python", "cores", "host_memory_bytes", "cache"} <= set(found)


def test_people_get_lines_with_rates_and_the_time_to_go(capsys, tmp_path):
    assert main(argv=["train", MICRO, "--out", str(tmp_path / "run"), "--epochs", "1"]) == 0
    out, err = capsys.readouterr()
    assert "626 parameters" in out and "steps/s" in out and "to go" in out
    assert "snnjax show" in out and not err


def test_results_never_overwrite_each_other(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    taken = tmp_path / "runs" / "micro-0"
    taken.mkdir(parents=True)
    (taken / "config.json").write_text("{}")
    assert call(capsys, "train", MICRO, "--epochs", "1")[1]["run"] == "runs/micro-0-2"
    assert [path.name for path in taken.iterdir()] == ["config.json"]


def test_fields_are_overridden_and_kept(trained, capsys, tmp_path):
    folder, said = shutil.copytree(trained[0], tmp_path / "run"), trained[1]
    config = json.loads((folder / "config.json").read_text())
    assert config["width"] == 6 and config["clip_norm"] == 1.5 and config["learning_rate"] == 0.02
    assert (folder / "experiment.py").read_text() == pathlib.Path(MICRO).read_text()
    # More epochs, asked for later; the model is that of the run.
    code, more, _ = call(capsys, "train", "--resume", str(folder), "--epochs", "3")
    assert code == 0 and more["steps"] == 15 and more["parameters"] == said["parameters"]
    assert json.loads((folder / "config.json").read_text())["epochs"] == 3


REFUSALS = {
    "unknown field": (["train", MICRO, "--depth", "3"], "--depth"),
    "near miss": (["train", MICRO, "--epoch", "3"], "--epochs"),
    "wrong type": (["train", MICRO, "--epochs", "many"], "--epochs"),
    "no value": (["train", MICRO, "--epochs"], "--epochs"),
    "no timesteps": (["train", MICRO, "--timesteps", "0"], "timesteps must be at least 1"),
    "large batch": (["train", MICRO, "--batch", "5000"], "larger than the 1437"),
    "negative rate": (["train", MICRO, "--learning-rate", "-1"], "learning_rate"),
    "no file": (["train", "none.py"], "not there"),
    "no experiment": (["train", __file__], "no function config"),
    "not python": (["train", "pyproject.toml"], "none"),
    "file last": (["train", "--epochs", "1", MICRO], "comes first"),
    "no run": (["eval", "none"], "not there"),
    "no run to resume": (["train", "--resume", "none"], "not there"),
    "resume what": (["train", "--resume"], "needs a value"),
    "resume and file": (["train", MICRO, "--resume", "run"], "leave out"),
    "an unset variable": (["train", "--resume", ""], "--resume is empty"),
    "another unset one": (["train", "--resume="], "--resume is empty"),
    "no out": (["train", MICRO, "--out", ""], "--out is empty"),
    "no run of a name": (["eval", ""], "run is empty"),
    "no checkpoint": (["eval", "run", "--checkpoint", ""], "--checkpoint is empty"),
    "resume twice": (["train", "--resume", "a", "--resume", "b"], "--resume is given twice"),
    "out twice": (["train", MICRO, "--out=a", "--out", "b"], "--out is given twice"),
    "other data of none": (["train", MICRO, "--other-data"], "goes with --resume"),
    "no argument": (["eval"], "run"),
    "command": (["fly"], "choose one of train"),
    "show nothing": (["show", "none"], "not there"),
    "info takes nothing": (["info", "--loud"], "--loud"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_bad_input_gets_one_message_and_leaves_nothing(capsys, tmp_path, monkeypatch, name):
    arguments, needle = REFUSALS[name]
    if name == "not python":
        (tmp_path / "pyproject.toml").write_text("")
        needle = "does not end in .py"
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code, said, err = call(capsys, *arguments)
    assert code == 2 == said["exit_code"]
    assert needle in said["error"]
    assert err == f"snnjax: {said['error']}\n" and "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_directory_in_the_way_is_refused(trained, capsys):
    folder, _ = trained
    before = (folder / "metrics.jsonl").read_text()
    code, said, _ = call(capsys, "train", MICRO, "--out", str(folder))
    assert code == 2 and "--resume" in said["error"]
    assert (folder / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        # Tests of checkpoints refuse it, too, without compiling another model.
        pytest.param(["--width", "9"], "another model", marks=pytest.mark.slow),
        (["--seed", "1"], "cannot change seed"),
        (["--out", "elsewhere"], "leave out --out"),
    ],
)
def test_a_resumed_run_stays_what_it_is(trained, capsys, options, needle):
    folder, _ = trained
    before = (folder / "config.json").read_text()
    code, said, _ = call(capsys, "train", "--resume", str(folder), *options)
    assert code == 2 and needle in said["error"]
    assert (folder / "config.json").read_text() == before


# tests/training/test_run.py reads such records, without the commands.
@pytest.mark.slow
@pytest.mark.parametrize("command", [["train", "--resume"], ["show"]], ids=str)
def test_damaged_records_cost_their_lines_only(trained, capsys, tmp_path, command):
    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    file = folder / "metrics.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + b"\xff\n[1]\n" + b"".join(lines[1:]))
    damaged = file.read_bytes()
    code, _, err = call(capsys, *command, str(folder))
    assert code == 0 and err.count("lines 2, 3 cannot be read") == 1
    assert file.read_bytes() == damaged


FOLDS = """
import dataclasses
import numpy as np
from snnjax import data, training
from tests.training import micro

@dataclasses.dataclass(frozen=True, kw_only=True)
class Folds(micro.Micro):
    fold: int = 0

def dataset(experiment):
    digits = data.load("digits")
    parts = [digits.train.take(np.arange(n, 1437, 3)) for n in range(3)]
    test = parts.pop(experiment.fold)
    inputs, labels = (np.concatenate([getattr(p, n) for p in parts]) for n in ("inputs", "labels"))
    train = data.dataset.Split(inputs, labels)
    return dataclasses.replace(digits, train=train, test=test)

def config():
    fields = {f.name: getattr(micro.config(), f.name) for f in dataclasses.fields(micro.Micro)}
    return Folds(**fields | {"dataset": dataset, "epochs": 1})
"""


# Four commands; tests/training/test_fingerprint.py has the refusal, the record and the warning.
@pytest.mark.slow
def test_another_fold_is_refused_or_recorded(capsys, tmp_path):
    (tmp_path / "folds.py").write_text(FOLDS)
    run = str(tmp_path / "run")
    code, said, _ = call(capsys, "train", str(tmp_path / "folds.py"), "--out", run)
    assert code == 0 and said["other_data"] == []
    more = ["train", "--resume", run, "--epochs", "2", "--fold", "1"]
    code, said, _ = call(capsys, *more)
    assert code == 2 and "fold is 1 and was 0" in said["error"]
    assert "other labels" in said["error"] and "--other-data" in said["error"]
    code, said, err = call(capsys, *more, "--other-data")
    assert code == 0 and said["other_data"] == [3] and "goes on with other data" in err
    code, _, err = call(capsys, "eval", run)
    assert code == 0 and "up to step 3" in err


def test_a_checkpoint_that_is_not_there(trained, capsys):
    code, said, _ = call(capsys, "eval", str(trained[0]), "--checkpoint", "7")
    assert code == 2 and "choose last, best" in said["error"]


# A program for each learning rate; tests/training/test_loop.py has the error and what is saved.
@pytest.mark.slow
def test_a_loss_that_is_not_finite(capsys, tmp_path):
    folder = tmp_path / "run"
    options = ["--out", str(folder), "--learning-rate", "1e38", "--weight-decay", "1e38"]
    code, said, err = call(capsys, "train", MICRO, *options)
    assert code == 1 and "Traceback" not in err
    assert "NaN or an infinity" in said["error"] and "--clip-norm" in said["error"]
    assert list((folder / "checkpoints").iterdir())
    before = json.loads((folder / "config.json").read_text())
    call(capsys, "train", "--resume", str(folder), "--learning-rate", "1e-3")
    after = json.loads((folder / "config.json").read_text())
    # What was saved can be read and gone on from: only then is the config written anew.
    assert (before["learning_rate"], after["learning_rate"]) == (1e38, 1e-3)


def test_help_is_quick_and_imports_nothing_heavy():
    code = (
        "import sys; import snnjax.cli as cli; assert cli.main(argv=['--help']) == 0;"
        "heavy = {'jax', 'flax', 'numpy', 'tyro', 'rich', 'matplotlib'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout and "info" in done.stdout


def test_help_of_train_lists_the_fields_of_the_experiment(capsys):
    with pytest.raises(SystemExit) as end:
        main(argv=["train", MICRO, "--help"])
    assert not end.value.code
    out = capsys.readouterr().out
    assert "--width" in out and "Hidden neurons" in out and "--resume" in out


def test_the_version(capsys):
    assert main(argv=["--version"]) == 0
    assert capsys.readouterr().out.startswith("snnjax ")


def test_the_default_experiment_is_the_one_in_the_folder_of_experiments():
    from snnjax import default_experiment, training

    path = pathlib.Path(__file__).parents[1] / "experiments" / "digits.py"
    found = training.config.load_experiment(path)
    assert training.config.plain_values(found) == training.config.plain_values(
        default_experiment.config()
    )
