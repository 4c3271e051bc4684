"""`snnjax convert`: a run of the spiking network, its table, and refusals before the work."""

import json
import pathlib
import shutil

import pytest

from snnjax import conversion, training
from snnjax.cli import convert, main
from snnjax.cli._options import parse
from tests.training import micro, source


def call(capsys, *arguments):
    """Exit code, the last line of stdout as JSON, and stderr."""
    capsys.readouterr()
    code = main(argv=[*map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]), err


def train(folder, *arguments):
    command = ["train", source.__file__, "--out", str(folder), *arguments]
    assert main(argv=command) == 0
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runs of a source by activation, trained when one is asked for."""
    folder, runs = tmp_path_factory.mktemp("sources"), {}

    def get(activation="qcfs"):
        if activation not in runs:
            runs[activation] = train(folder / activation, "--activation", activation)
        return runs[activation]

    return get


@pytest.fixture(scope="module")
def converted(trained):
    """The source's run as one of 16 timesteps."""
    run = trained()
    command = ["convert", run, "--timesteps", "16,2", "--counted", 16]
    assert main(argv=list(map(str, command))) == 0
    return pathlib.Path(f"{run}-qcfs")


def test_a_converted_run_is_a_run(converted, trained, capsys):
    said = json.loads((converted / "conversion.json").read_text())
    assert said["method"] == "qcfs" and said["run"] == str(converted)
    assert said["source"] == str(trained())
    rows = said["rows"]
    assert [row["timesteps"] for row in rows] == [2, 16]
    # Longer windows round less: the loss approaches that of the source.
    assert rows[-1]["accuracy"] >= said["source_accuracy"] - 0.02
    assert rows[0]["spikes"] < rows[1]["spikes"]
    assert rows[1]["spikes"] == pytest.approx(rows[1]["rate"] * 16 * 48)
    assert all(pathlib.Path(path).stat().st_size > 5000 for path in said["pictures"].values())
    for row in said["layers"]:
        parts = ("clipping", "quantization", "inherited", "unevenness")
        assert row["total"] <= sum(row[part] for part in parts) + 1e-6
    code, again, err = call(capsys, "eval", converted)
    assert code == 0 and "trained on other data" not in err
    assert again["test_accuracy"] == rows[-1]["accuracy"] and again["step"] == 0
    assert again["nasfr"] == rows[-1]["rate"]


# Each compiles programs of its own for a run that `eval` took already.
@pytest.mark.slow
def test_every_other_command_takes_it(converted, capsys):
    rows = json.loads((converted / "conversion.json").read_text())["rows"]
    code, shown, _ = call(capsys, "show", converted)
    assert code == 0 and len(shown["firing_rates"]) == 2
    code, counted, _ = call(capsys, "cost", converted, "--examples", 16)
    assert code == 0 and counted["energy"]["millijoules"] == rows[-1]["millijoules"]
    code, exported, _ = call(capsys, "export", converted, "--platforms", "cpu")
    assert code == 0 and exported["difference"] == 0


def test_it_trains_on(converted, capsys, tmp_path):
    folder = shutil.copytree(converted, tmp_path / "spiking")
    said = json.loads((converted / "conversion.json").read_text())
    code, tuned, _ = call(capsys, "train", "--resume", folder, "--epochs", 2)
    assert code == 0 and tuned["steps"] == 22
    assert tuned["test_accuracy"] >= said["rows"][-1]["accuracy"] - 0.02


def test_options_make_a_recipe():
    given = ["run", "--last", "spiking", "--shift", "step", "--reset", "hard", "--latency"]
    for arguments, recipe in (
        (given, conversion.Recipe(last="spiking", shift="step", reset="hard", latency=True)),
        (given[:1], conversion.Recipe()),
        ([*given[:1], "--method", "rmp"], conversion.Recipe(shift="none")),
    ):
        assert convert._recipe(parse("snnjax convert", "", convert._OPTIONS, arguments)) == recipe


# Only the recipes are new, and tests/conversion runs them.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "options"),
    [
        ("relu", ["--method", "rmp", "--examples", "64"]),
        ("relu", ["--last", "spiking", "--shift", "step", "--percentile", "99.9"]),
        ("threshold_relu", ["--reset", "hard"]),
        ("qcfs", ["--last", "spiking", "--latency"]),
    ],
)
def test_every_option_of_the_recipe_reaches_the_run(trained, capsys, tmp_path, activation, options):
    folder = tmp_path / "spiking"
    command = ("convert", trained(activation), "--timesteps", 32, "--counted", 8, "--out", folder)
    code, said, _ = call(capsys, *command, *options)
    assert code == 0
    assert said["rows"][0]["accuracy"] >= said["source_accuracy"] - 0.1
    assert said["recipe"] in training.Run.open(folder).source.read_text()
    recipe = eval(said["recipe"], {"Recipe": conversion.Recipe})
    assert (recipe.last == "spiking") == ("spiking" in options)
    assert recipe.latency == ("--latency" in options)
    code, again, _ = call(capsys, "eval", folder)
    assert code == 0 and again["test_accuracy"] == said["rows"][0]["accuracy"]


# Three stages of training, which tests/training/test_progressive.py runs without the command.
@pytest.mark.slow
def test_progressive_conversion_trains_between_and_goes_on(trained, capsys, tmp_path):
    folder = tmp_path / "spiking"
    options = ["--timesteps", 4, "--epochs", 1, "--examples", 64, "--image", "constant"]
    command = ("convert", trained("plain"), "--progressive", *options, "--out", folder)
    code, said, err = call(capsys, *command)
    assert code == 0 and "Traceback" not in err and said["interrupted"] is None
    metrics = said["metrics"]
    assert metrics["spiking"]["accuracy"] >= metrics["primitive"]["accuracy"] - 0.05
    assert len(said["thresholds"]) == 2 and said["epochs"] == 3
    code, again, _ = call(capsys, *command)
    assert code == 0 and again["metrics"] == metrics, "it is done"
    code, found, _ = call(capsys, "eval", folder)
    assert code == 0 and found["test_accuracy"] == metrics["spiking"]["accuracy"]


def with_fields(run, folder, **fields):
    """A run as if it was trained with other fields."""
    shutil.copytree(run, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))
    return folder


def test_refusals_come_with_a_cure_and_leave_nothing(trained, capsys, tmp_path):
    """One message each; nothing is written."""
    run, out = trained(), tmp_path / "out"
    noisy = with_fields(run, tmp_path / "noisy", noise=True, timesteps=2)
    fixed = with_fields(run, tmp_path / "fixed", fixed=True)
    cases = [
        ((noisy,), "encoding.direct"),
        ((fixed,), "timesteps=4"),
        ((run, "--method", "other"), "qcfs, optimal, rmp"),
        ((run, "--timesteps", "0"), "from 1 up"),
        ((run, "--timesteps", "x"), "from 1 up"),
        ((run, "--reset", "none"), "soft"),
        ((run, "--percentile", "0"), "percentile"),
        ((run, "--percentile", "99"), "trained"),
        ((run, "--scale", "-1", "--method", "rmp"), "positive"),
        ((run, "--scale", "0.7"), "--method rmp"),
        ((run, "--patience", "2"), "add --progressive"),
        ((run, "--progressive", "--reset", "hard"), "leave out --progressive"),
        ((run, "--progressive", "--data-dir", "x"), "leave out --progressive"),
        ((run, "--progressive", "--timesteps", "4,8"), "one number"),
        ((run, "--progressive"), "conversion.ReLU"),
        ((run, "--examples", "0"), "at least 1"),
        ((run, "--counted", "0"), "at least 1"),
        ((tmp_path / "absent",), "not there"),
    ]
    for arguments, words in cases:
        code, said, err = call(capsys, "convert", *arguments, "--out", out)
        assert code == 2, (arguments, said)
        assert words in said["error"], said["error"]
        assert "Traceback" not in err and not out.exists(), arguments
    code, said, _ = call(capsys, "convert", run, "--timesteps", 1, "--counted", 8, "--out", out)
    assert code == 0
    code, said, _ = call(capsys, "convert", out)
    assert code == 2 and "if" in said["error"] and "spikes already" in said["error"]
    code, said, _ = call(capsys, "convert", run, "--out", out)
    assert code == 2 and "never overwritten" in said["error"]


@pytest.mark.slow  # another source to train for one message
def test_a_source_without_trained_thresholds_is_refused_under_qcfs(trained, capsys):
    code, said, _ = call(capsys, "convert", trained("relu"), "--method", "qcfs")
    assert code == 2 and "--method optimal" in said["error"]


def test_a_run_that_learned_by_spikes_is_refused_by_its_layer(capsys, tmp_path):
    run = tmp_path / "run"
    assert main(argv=["train", micro.__file__, "--out", str(run), "--epochs", "1"]) == 0
    code, said, _ = call(capsys, "convert", run)
    assert code == 2 and "lif3" in said["error"] and "conversion.ReLU" in said["error"]
    shutil.rmtree(run)
