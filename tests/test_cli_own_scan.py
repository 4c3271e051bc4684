"""A scan of the user's own on the command line: imported from a module, or named by the file."""

import json
import sys

import pytest

from snnjax.cli import main
from snnjax.memory import notation
from tests.training import micro

MICRO = micro.__file__
TINY = ["--batch", "256", "--width", "4", "--epochs", "1"]

SCANS = '''
"""Scans of one's own."""
import dataclasses
from snnjax import memory

@dataclasses.dataclass(frozen=True)
class Keep4:
    every: int = 4

    def __call__(self, step, params, state, xs):
        return memory.recompute(self.every)(step, params, state, xs)

def keep(every):
    """Returns a new function on each call."""
    return lambda step, params, state, xs: Keep4(every)(step, params, state, xs)
'''

EXPERIMENT = (
    SCANS
    + """
from tests.training import micro

memory.register_scan("kept", Keep4)

def config():
    return dataclasses.replace(micro.config(), memory=memory.Strategy(time=Keep4(2)))
"""
)


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    """Runs a command beside a module `own_scans`: exit code, its JSON object, stderr."""
    (tmp_path / "own_scans.py").write_text(SCANS)
    (tmp_path / "own.py").write_text(EXPERIMENT)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(notation, "_REGISTERED", {})

    def run(*arguments):
        capsys.readouterr()
        code = main(argv=[*arguments, "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out.splitlines()[-1]), err

    yield run
    sys.modules.pop("own_scans", None)


def config_of(run):
    with open(f"{run}/config.json") as file:
        return json.load(file)


# tests/test_extensions.py does so with one scan instead of three.
@pytest.mark.slow
@pytest.mark.parametrize("command", ["check", "plan"])
def test_it_is_checked_and_planned_beside_ours(call, command):
    own = {"check": ["--repeats", "0"], "plan": ["--budget", "1GB"]}[command]
    texts = ["time=own_scans:Keep4", "time=own_scans:keep(1)", "time=recompute(1)"]
    code, said, _ = call(command, MICRO, *TINY[:4], "--strategies", "; ".join(texts), *own)
    assert code == 0
    shown = [row["strategy"] for row in said["rows"]][-3:]
    assert shown == ["time=own_scans:Keep4()", *texts[1:]]
    assert all(row["ok"] for row in said["rows"])


def test_a_run_is_trained_and_resumed_under_it(call, monkeypatch):
    code, said, _ = call(
        "train", MICRO, *TINY, "--memory", "time=own_scans:keep(2)", "--out", "run"
    )
    assert code == 0 and config_of("run")["memory"] == "time=own_scans:keep(2)"
    assert call("train", "--resume", "run", "--epochs", "2")[0] == 0
    assert config_of("run")["memory"] == "time=own_scans:keep(2)"

    # As in a process that does not find the module any more.
    monkeypatch.setitem(sys.modules, "own_scans", None)
    code, said, _ = call("train", "--resume", "run", "--epochs", "3")
    assert code == 2 and "importing own_scans failed" in said["error"]
    assert "PYTHONPATH" in said["error"]


def test_a_scan_in_the_file_of_an_experiment_is_known_by_its_registered_name(call):
    code, _, _ = call("train", "own.py", *TINY, "--out", "run")
    assert code == 0 and config_of("run")["memory"] == "time=kept(every=2)"
    assert call("train", "--resume", "run", "--epochs", "2", "--memory", "time=kept")[0] == 0
    assert config_of("run")["memory"] == "time=kept()"


def test_one_without_a_name_is_refused_before_anything_is_compiled(call, tmp_path):
    text = EXPERIMENT.replace('memory.register_scan("kept", Keep4)', "")
    (tmp_path / "own.py").write_text(text)
    code, said, _ = call("train", "own.py", *TINY, "--out", "run")
    assert code == 2 and "memory.register_scan(name, scan)" in said["error"]
    assert not (tmp_path / "run").exists()
