"""`snnjax cost`: an experiment, a run, the zoo, and what it refuses."""

import json
import pathlib

import pytest

from snnjax import cost
from snnjax.cli import main
from snnjax.cost.energy import millijoules
from tests.training import micro

MICRO = micro.__file__
SMALL = ["--width", "4", "--examples", "20"]


def call(capsys, *arguments):
    """Exit code, the last line of stdout as JSON, and stderr."""
    capsys.readouterr()
    code = main(argv=["cost", *arguments, "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]), err


def test_an_experiment_is_measured_freshly_drawn(capsys):
    code, found, err = call(capsys, MICRO, *SMALL)
    assert code == 0 == found["exit_code"] and found["command"] == "cost"
    assert found["source"] == "experiment" and found["name"] == "micro"
    assert (found["examples"], found["timesteps"], found["batch"]) == (20, 2, 16)
    first, last = found["layers"]
    assert first["static"] and first["kind"] == "MAC" and first["dense"] == 2 * 64 * 4
    assert last["kind"] == "AC" and not last["static"] and last["dense"] == 2 * 4 * 10
    figures, energy = found["neurobench"], found["energy"]
    assert figures["parameters"] == 64 * 4 + 4 + 8 + 4 * 10 + 10
    assert figures["dense"] == first["dense"] + last["dense"]
    assert energy["macs"] == 64 * 4
    assert energy["millijoules"] == millijoules(energy["macs"], energy["acs"])
    assert found["firing_rate"] == pytest.approx(1 - figures["activation_sparsity"])
    assert found["attention"] == found["backward"] == found["over_time"] == found["uncounted"] == []
    assert found["break_even"] == cost.BREAK_EVEN
    # Both reports are said to people, and what they are to be held against.
    for words in ("fresh weights", "NeuroBench", "45 nm", "5.7 %", "memory traffic", "T = 2"):
        assert words in err


def test_a_run_is_measured_as_trained(capsys, tmp_path):
    folder = tmp_path / "run"
    assert main(argv=["train", MICRO, "--out", str(folder), "--epochs", "1"]) == 0
    code, found, err = call(capsys, str(folder), "--examples", "8")
    assert code == 0 and found["source"] == "run" and found["step"] == 5
    assert found["examples"] == 8 and "trained weights" in err
    rates = json.loads((folder / "result.json").read_text())["firing_rates"]
    assert found["firing_rate"] == pytest.approx(rates["lif3"], abs=0.2)


def test_backward_spikes_of_a_spiking_solver_are_counted(capsys, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).resolve().parents[1]))
    path = tmp_path / "spide.py"
    path.write_text(
        "from tests.learning.test_training import experiment\n\n"
        "def config():\n    return experiment(rule='spide', timesteps=3)\n"
    )
    code, found, err = call(capsys, str(path), "--examples", "8")
    assert code == 0 and found["timesteps"] == 3
    (row,) = found["backward"]
    assert row["neurons"] == 16 and 0 < row["rate"] < 1
    assert row["spikes"] == row["neurons"] * row["timesteps"] * row["rate"]
    assert f"{row['spikes']:,.1f} spikes per example over {row['timesteps']} timesteps" in err


def test_models_of_the_zoo_in_one_table(capsys):
    code, found, err = call(capsys, "--models", "mlp,efficient_lif_har")
    assert code == 0 and found["interrupted"] is None and found["seconds"] > 0
    assert [row["model"] for row in found["rows"]] == ["mlp", "efficient_lif_har"]
    mlp, har = found["rows"]
    assert mlp["parameters_published"] == mlp["neurobench"]["parameters"] == 101_770
    assert mlp["neurobench"]["dense"] == 4 * (784 * 128 + 128 * 10)
    assert har["neurobench"]["membrane_updates"] is None
    assert all(row["seconds"] > 0 and row["firing_rate"] > 0 for row in found["rows"])
    assert "do not mix" in err and "5.7 %" in err and "2 models in" in err


REFUSALS = {
    "neither": (["nowhere"], "no run directory and no experiment"),
    "no file": (["nowhere.py"], "not there"),
    "no model": (["--models", "alexnet"], "--models takes some of mlp, conv_net"),
    "no models": (["--models", ","], "--models takes some of"),
    "no examples": ([MICRO, "--examples", "0"], "--examples must be at least 1"),
    "wrong field": ([MICRO, "--learning-rate", "-1"], "learning_rate"),
    "option": (["--exampels", "3"], "exampels"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_bad_input_gets_one_message(capsys, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, needle = REFUSALS[name]
    code, said, err = call(capsys, *arguments)
    assert code == 2 == said["exit_code"] and needle in said["error"]
    assert "Traceback" not in err and not list(tmp_path.iterdir())


def test_measurements_before_a_signal_are_kept(capsys, monkeypatch):
    import os
    import signal

    from snnjax.cli import cost as module

    spoken = module.row_line

    def interrupted(row):
        os.kill(os.getpid(), signal.SIGINT)
        return spoken(row)

    monkeypatch.setattr(module, "row_line", interrupted)
    code, found, err = call(capsys, "--models", "mlp")
    assert code == 130 == found["exit_code"] and found["interrupted"] == "SIGINT"
    assert len(found["rows"]) == 1 and "earlier measurements are kept" in err
