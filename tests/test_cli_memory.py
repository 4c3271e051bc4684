"""`snnjax memory`: its rows, its table and picture, what it refuses, and where it is stopped."""

import json
import os
import pathlib
import signal
import textwrap

import jax
import pytest

from snnjax import memory
from snnjax.cli import main
from tests.training import micro

MICRO = micro.__file__
TINY = ["--size", "4", "--channels", "8", "--batch", "1"]
DEEP = """
    import dataclasses
    from flax import nnx
    from snnjax import nn, training
    from tests.training import micro

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Deep(training.Experiment):
        depth: int = 2
        width: int = 6

    def network(experiment, rngs):
        if not (w := experiment.width):
            raise TypeError("no width")
        half = lambda rngs: nn.Sequential(nn.LIF(), nn.Linear(w, w, rngs=rngs), nn.BatchNorm(w))
        return nn.Network(nn.Sequential(
            nn.Flatten(), nn.Linear(64, 2 * w, rngs=rngs),
            nn.Reversible(half, half, experiment.depth, rngs=rngs),
            nn.LIF(), nn.Linear(2 * w, 10, rngs=rngs),
        ), input_shape=(8, 8, 1))

    def config():
        return Deep(name="deep", network=network, dataset=micro.dataset, encode=micro.encode,
                    timesteps=2, batch=512)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in, with an experiment that has a depth beside it."""
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).resolve().parents[1]))
    (tmp_path / "deep.py").write_text(textwrap.dedent(DEEP))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def call(capsys, *arguments):
    """Exit code, the last line of stdout as JSON, and stderr."""
    capsys.readouterr()
    code = main(argv=["memory", *arguments, "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]), err


def by(rows, *names):
    """temp_bytes of each row by some of its entries."""
    return {tuple(row[name] for name in names): row["temp_bytes"] for row in rows}


@pytest.mark.slow
def test_without_an_experiment_it_measures_couplings(capsys, here):
    code, found, err = call(capsys, "--depths", "2,3", *TINY)
    assert code == 0 == found["exit_code"] and found["command"] == "memory"
    rows = found["rows"]
    assert [(r["depth"], r["strategy"]) for r in rows] == [
        (d, s) for d in (2, 3) for s in ("depth=store", "depth=recompute(1)", "depth=reverse")
    ]
    for row in rows:
        assert row["timesteps"] == 4 and row["batch"] == 1 and row["refused"] is None
        assert row["argument_bytes"] > 0 and row["output_bytes"] > 0
        parts = row["argument_bytes"] + row["output_bytes"] + row["temp_bytes"]
        assert row["total_bytes"] == parts == row["bytes_per_sample"]
        assert row["compile_seconds"] > 0
    assert found["jax"] == jax.__version__ and found["device"] and found["seconds"] > 0
    assert found["interrupted"] is None
    bytes_of = by(rows, "strategy", "depth")
    store, recompute, reverse = (bytes_of[row["strategy"], 3] for row in rows[:3])
    assert store > recompute > reverse
    # Files: the same numbers, and a picture.
    assert found["folder"] == "runs/memory-couplings"
    assert json.loads((here / found["folder"] / "memory.json").read_text()) == found
    assert (here / found["picture"]).read_bytes().startswith(b"\x89PNG")
    # The table, said to people.
    assert err.count("depth=reverse  ") == 2 and "100%" in err
    assert "one more block: depth=store" in err and "one more timestep" not in err


def test_the_numbers_are_those_of_the_library(capsys, here):
    from snnjax.cli.memory import Couplings

    given = "depth=reverse; depth=store;; depth=reverse"
    code, found, _ = call(capsys, "--depths", "2,2", "--strategies", given, *TINY)
    assert code == 0
    # The baseline comes first, and nothing is measured twice.
    assert [row["strategy"] for row in found["rows"]] == ["depth=store", "depth=reverse"]
    step, shapes = Couplings(1, 8, 4).gradient(2, 4, memory.parse_strategy("depth=reverse"))
    assert found["rows"][1]["temp_bytes"] == memory.measure(step, *shapes).temp_bytes


@pytest.mark.slow
def test_the_very_training_step_of_an_experiment(capsys, here):
    from snnjax import training

    options = ["--depths", "2,3", "--timesteps", "2,4", "--width", "5", "--batch", "2048"]
    options += ["--strategies", "depth=reverse"]
    code, found, err = call(capsys, "../deep.py", *options)
    assert code == 0 and found["name"] == "deep" and found["folder"] == "runs/memory-deep"
    assert {(r["depth"], r["timesteps"]) for r in found["rows"]} == {(2, 2), (2, 4), (3, 2), (3, 4)}
    assert all(row["batch"] == 2048 and row["refused"] is None for row in found["rows"])
    assert "one more block: depth=reverse" in err and "one more timestep: depth" in err
    experiment = training.config.override(
        training.config.load_experiment("../deep.py"),
        {"depth": 3, "timesteps": 4, "width": 5, "batch": 2048},
    )
    dataset = training.config.load_dataset(experiment)
    strategy = memory.parse_strategy("depth=reverse")
    step, shapes = training.planning.training_step(experiment, strategy, dataset=dataset)
    measured = memory.measure(step, *shapes, samples=2048)
    row = found["rows"][-1]
    assert (row["strategy"], row["depth"], row["timesteps"]) == ("depth=reverse", 3, 4)
    assert row["temp_bytes"] == measured.temp_bytes
    assert row["total_bytes"] == measured.total_bytes
    assert row["bytes_per_sample"] == measured.bytes_per_sample


@pytest.mark.slow
def test_without_a_depth_it_goes_along_time_and_refusals_are_rows_said_once(capsys, here):
    code, found, err = call(capsys, MICRO, "--timesteps", "1,2")
    assert code == 0
    refused = [row for row in found["rows"] if row["refused"]]
    assert [(r["strategy"], r["timesteps"]) for r in refused] == [
        ("depth=reverse", 1), ("depth=reverse", 2),
    ]  # fmt: skip
    assert all("no layer of this network uses depth" in row["refused"] for row in refused)
    assert all(row["temp_bytes"] is None is row["compile_seconds"] for row in refused)
    assert err.count("refused:") == 1
    assert all(row["depth"] is None for row in found["rows"])


def test_the_memory_of_an_unchanged_experiment(capsys, here):
    options = ["--strategies", "as written", "--out", "there"]
    code, found, _ = call(capsys, "../deep.py", *options)
    assert code == 0 and found["folder"] == "there"
    assert [(r["strategy"], r["depth"], r["timesteps"]) for r in found["rows"]] == [
        ("as written", 2, 2),
    ]  # fmt: skip
    assert sorted(p.name for p in (here / "there").iterdir()) == ["memory.json", "memory.png"]


def test_results_never_overwrite_each_other(capsys, here):
    options = ["--depths", "2", "--strategies", "depth=store", *TINY]
    folders = [here / "runs" / f"memory-couplings{n}" for n in ("", "-2")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "memory.json").write_text("mine")
    assert call(capsys, *options)[1]["folder"] == "runs/memory-couplings-3"
    assert all((folder / "memory.json").read_text() == "mine" for folder in folders)
    code, said, _ = call(capsys, *options, "--out", "runs/memory-couplings-3")
    assert code == 2 and "never overwritten" in said["error"]


def test_people_get_a_table(capsys, here):
    assert main(argv=["memory", "--depths", "2", "--strategies", "depth=store", *TINY]) == 0
    out, err = capsys.readouterr()
    title, header, row, last = out.splitlines()
    assert "compiled alike" in title and not err
    assert len(header) == len(row)
    assert header.split()[:4] == ["strategy", "depth", "T", "temp"]
    assert row.split()[:3] == ["depth=store", "2", "4"]
    assert last == (
        "picture: runs/memory-couplings/memory.png    numbers: runs/memory-couplings/memory.json"
    )


REFUSALS = {
    "no strategy": (["--strategies", "depth=magic"], "cannot read the strategy 'depth=magic'"),
    "no strategies": (["--strategies", " ; "], "names none"),
    "half a strategy": (["--strategies", "depth=store; depth=recompute(0)"], "positive integer"),
    "letters": (["--depths", "a,b"], "--depths takes whole numbers from 1"),
    "empty": (["--depths", ""], "--depths is empty"),
    "gap": (["--depths", "2,,3"], "--depths takes whole numbers"),
    "zero": (["--depths", "4,0"], "--depths takes whole numbers from 1"),
    "fraction": (["--timesteps", "1.5"], "--timesteps takes whole numbers"),
    "negative": (["--timesteps=-1"], "--timesteps takes whole numbers"),
    "odd channels": (["--channels", "7"], "even number"),
    "no batch": (["--batch", "0"], "--batch must be at least 1"),
    "folder in a file": (["--out", "../deep.py/new"], "choose another folder by --out"),
    "file last": (["--depths", "2", "../deep.py"], "comes first"),
    "no file": (["none.py"], "not there"),
    "no depth": ([MICRO, "--depths", "2"], "an int field `depth`"),
    "one depth": (["../deep.py", "--depth", "3"], "--depths"),
    "wrong field": (["../deep.py", "--learning-rate", "-1"], "learning_rate"),
    "nothing admitted": ([MICRO, "--strategies", "depth=reverse"], "admits none"),
    "broken": (["../deep.py", "--depths", "2", "--width", "0"], "failed: TypeError: no width"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_bad_input_gets_one_message_and_leaves_nothing(capsys, here, name):
    arguments, needle = REFUSALS[name]
    code, said, err = call(capsys, *arguments)
    assert code == 2 == said["exit_code"]
    assert needle in said["error"] and "Traceback" not in err
    assert err.splitlines()[-1] == f"snnjax: {said['error']}"
    assert not list(here.iterdir())


@pytest.mark.parametrize("after", [0, 2])
def test_measurements_before_a_signal_are_kept(capsys, here, monkeypatch, after):
    measure, done = memory.measure, []

    def interrupted(*args, **options):
        if len(done) == after:
            os.kill(os.getpid(), signal.SIGINT)
        done.append(1)
        return measure(*args, **options)

    monkeypatch.setattr(memory, "measure", interrupted)
    before = signal.getsignal(signal.SIGINT)
    code, said, err = call(capsys, "--depths", "2", *TINY)
    assert signal.getsignal(signal.SIGINT) is before
    assert code == 130 == said["exit_code"] and "Traceback" not in err
    if not after:
        assert "stopped by SIGINT" in said["error"] and not list(here.iterdir())
        return
    assert said["interrupted"] == "SIGINT" and len(said["rows"]) == 2
    assert json.loads((here / said["folder"] / "memory.json").read_text()) == said
    assert "earlier measurements are kept" in err
