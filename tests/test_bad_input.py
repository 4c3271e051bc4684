"""Wrong commands, fields and files: exit code 2, one message that names the cure, nothing written.

`test_cli.REFUSALS` has the first twenty; here are those of meshes, processes, precision, guards,
budgets, experiment files and run directories, and words that nobody chose.
"""

import json
import pathlib

import hypothesis
import pytest
from hypothesis import strategies as st

from snnjax.cli import main
from tests.training import micro

MICRO = micro.__file__
STDP = str(pathlib.Path(__file__).parents[1] / "experiments" / "stdp_mnist.py")


def train(*options):
    return ["train", MICRO, *options]


WORDS = {
    # fields out of their range
    "no batch": (train("--batch", "0"), "batch must be at least 1"),
    "no epochs": (train("--epochs", "0"), "epochs must be at least 1"),
    "a rate of zero": (train("--learning-rate", "0"), "above 0"),
    "a rate that is no number": (train("--learning-rate", "nan"), "finite"),
    "a rate without end": (train("--learning-rate", "inf"), "finite"),
    "all labels smoothed": (train("--label-smoothing", "1"), r"[0, 1)"),
    "negative mixup": (train("--mixup", "-0.1"), "mixup must be at least 0"),
    "too probable mixup": (train("--mixup-probability", "1.5"), r"[0, 1]"),
    "no clipping": (train("--clip-norm", "0"), "clip_norm must be above 0"),
    "a seed below zero": (train("--seed", "-1"), "seed must be at least 0"),
    "a seed beyond 32 bits": (train("--seed", str(2**32)), "below 2**32"),
    "no checkpoints": (train("--keep", "0"), "newest checkpoint"),
    "checkpoints never": (train("--checkpoint-every", "0"), "checkpoint_every must be at least 1"),
    "no evaluation": (train("--eval-every", "0"), "eval_every must be at least 1"),
    "no records": (train("--log-every", "0"), "log_every must be at least 1"),
    "no patience": (train("--patience", "0"), "patience must be at least 1"),
    "half an epoch": (train("--epochs", "1.5"), "--epochs"),
    "a name with a slash": (train("--name", "a/b"), "name of a folder"),
    "no name": (train("--name", ""), "--name is empty"),
    # memory, precision, what is not finite
    "an unknown strategy": (train("--memory", "depth=forget"), "memory"),
    "an unfinished strategy": (train("--memory", "depth=recompute("), "memory"),
    "a strategy nothing takes": (train("--memory", "depth=reverse"), "reverse"),
    "an unknown part": (train("--memory", "width=store"), "memory"),
    "an unknown precision": (train("--precision", "float8"), "precision"),
    "a narrow stream": (train("--precision", "stream=bfloat16"), "stream"),
    "an unknown guard": (train("--not-finite", "ignore"), "not_finite"),
    # parts and devices
    "no parts": (train("--accumulate", "0"), "accumulate must be at least 1"),
    "uneven parts": (train("--accumulate", "3"), "multiple of 3"),
    "uneven groups": (train("--norm-groups", "3"), "multiple of 3"),
    "no groups": (train("--norm-groups", "0"), "norm_groups must be at least 1"),
    "too many devices": (train("--mesh", "data=1000"), "JAX_NUM_CPU_DEVICES=1000"),
    "no devices": (train("--mesh", "data=0"), "at least 1"),
    "an unknown axis": (train("--mesh", "rows=2"), "not one of data, fsdp, model"),
    "an axis without size": (train("--mesh", "data"), 'data=-1'),
    "an axis twice": (train("--mesh", "data=2, data=2"), "twice"),
    "all devices twice": (train("--mesh", "data=-1, fsdp=-1"), "one may be -1"),
    "a batch no devices share": (train("--mesh", "data=3"), "multiple of 3"),
    "groups no devices share": (train("--mesh", "data=4", "--norm-groups", "2"), "multiple of 4"),
    "a mesh for a plan": (["plan", MICRO, "--mesh", "data=0", "--budget", "1GB"], "at least 1"),
    "plasticity on devices": (["train", STDP, "--mesh", "data=2"], "leave the mesh out"),
    # processes
    "processes alone": (train("--processes", "2"), "--coordinator HOST:PORT"),
    "one of them alone": (train("--process", "0"), "--coordinator HOST:PORT"),
    "no port": (train("--coordinator", "here", "--processes", "2", "--process", "0"), "HOST:PORT"),
    "half of it": (train("--coordinator", "here:1234"), "--processes N"),
    "one too many": (train("--coordinator", "here:1234", "--processes", "2", "--process", "2"),
                     "0 to 1"),
    "auto and more": (train("--coordinator", "auto", "--processes", "2"), "leave the others out"),
    "nobody says": (train("--coordinator", "auto"), "give --coordinator"),
    # other commands
    "a budget of words": (["plan", MICRO, "--budget", "plenty"], "plenty"),
    "a negative budget": (["plan", MICRO, "--budget", "-1GB"], "-1GB"),
    "a field to enlarge": (["plan", MICRO, "--budget", "1GB", "--largest", "depth"], "depth"),
    "a field that is no number": (["plan", MICRO, "--budget", "1GB", "--largest", "name"], "name"),
    "an unknown plan": (["plan", MICRO, "--budget", "1GB", "--strategies", "magic"], "magic"),
    "a check of nothing": (["check", "nothing.py"], "not there"),
    "a memory table of nothing": (["memory", MICRO, "--timesteps", "four"], "four"),
    "plasticity has no gradient": (["check", STDP], "plasticity"),
    "nor a plan": (["plan", STDP, "--budget", "1GB"], "plasticity"),
    "fspinn what": (["fspinn"], "search"),
    "fspinn of gradients": (["fspinn", "search", MICRO, "--grid", "width=1"],
                            "training.unsupervised.Unsupervised"),
    "fspinn without a file": (["fspinn", "search"], "search"),
    "export nothing": (["export", "nowhere"], "not there"),
    "export for no machine": (["export", "nowhere", "--platforms", "abacus"], "abacus"),
    "cost of nothing": (["cost", "nowhere"], "nowhere"),
    "redundancy of nothing": (["redundancy", "nowhere"], "not there"),
    "a data folder that is none": (train("--data-dir", "nowhere", "--source", "x"), "--source"),
}  # fmt: skip

FILES = {
    "empty": ("", "no function config"),
    "broken": ("def config(:\n", "line 1"),
    "raises": ("raise ValueError('no')\n", "ValueError: no"),
    "imports what is not there": ("import nothing_of_the_kind\n", "not installed"),
    "config is no function": ("config = 3\n", "no function config"),
    "config fails": ("def config():\n    return 1 / 0\n", "ZeroDivisionError"),
    "config of the wrong kind": ("def config():\n    return 3\n", "int"),
    "config takes arguments": ("def config(x):\n    return x\n", "config() failed"),
}
BROKEN = {
    "dataset": ("dataset=lambda e: 3", "must return a data.Dataset"),
    "a data set that fails": ("dataset=lambda e: e.nothing", "dataset(experiment) failed"),
    "network": ("network=lambda e, rngs: 3", "must return an nn.Network"),
    "a network that fails": ("network=lambda e, rngs: e.nothing", "network(experiment, rngs)"),
    "encode": ("encode=lambda e, x, key: x", "failed"),
    "an encode that fails": ("encode=lambda e, x, key: 1 / 0", "ZeroDivisionError"),
    "optimizer": ("optimizer=lambda e, s: 1 / 0", "optimizer(experiment, schedule) failed"),
    "schedule": ("schedule=lambda e, n: 1 / 0", "schedule(experiment, steps) failed"),
    "loss": (
        "task=lambda e: training.task.classification(e, loss=lambda e, o, y: o.mean())",
        "one number per example",
    ),
    "layout": ("layout=lambda p, s, m: P('rows')", "layout"),
    "a wrong type": ("epochs='two'", "epochs must be int"),
    "a name that is a number": ("name=3", "name must be str"),
}


def call(capsys, *arguments):
    code = main(argv=[*arguments, "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]), err


def refused(capsys, folder, needle, *arguments):
    before = sorted(folder.rglob("*"))
    code, said, err = call(capsys, *arguments)
    assert code == 2 == said["exit_code"], said
    assert needle in said["error"], said["error"]
    assert err == f"snnjax: {said['error']}\n" and "Traceback" not in err
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("name", WORDS)
def test_words_are_refused(capsys, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    arguments, needle = WORDS[name]
    refused(capsys, tmp_path, needle, *arguments)


@pytest.mark.fast
@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_experiment_are_refused(capsys, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    text, needle = FILES[name]
    (tmp_path / "mine.py").write_text(text)
    refused(capsys, tmp_path, needle, "train", "mine.py")


@pytest.mark.parametrize("name", BROKEN)
def test_experiments_with_a_broken_part_are_refused(capsys, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    change, needle = BROKEN[name]
    (tmp_path / "mine.py").write_text(
        "import dataclasses\nfrom jax.sharding import PartitionSpec as P\n"
        "from snnjax import training\nfrom tests.training import micro\n"
        f"def config():\n    return dataclasses.replace(micro.config(), {change})\n"
    )
    mesh = ["--mesh", "data=2"] if name == "layout" else []
    refused(capsys, tmp_path, needle, "train", "mine.py", *mesh)


@pytest.mark.parametrize(
    "name, text, needle",
    [
        ("config.json", "{", "is damaged"),
        ("config.json", '{"depth": 3}', "no field depth"),
        ("experiment.py", "", "no function config"),
    ],
)
def test_run_directories_with_a_broken_file_are_refused(capsys, tmp_path, name, text, needle):
    (tmp_path / "experiment.py").write_text(pathlib.Path(MICRO).read_text())
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_text(text)
    refused(capsys, tmp_path, needle, "train", "--resume", str(tmp_path))


def test_runs_without_a_checkpoint_are_refused(capsys, tmp_path):
    (tmp_path / "experiment.py").write_text(pathlib.Path(MICRO).read_text())
    (tmp_path / "config.json").write_text("{}")
    for command in ("eval", "show", "redundancy", "export"):
        refused(capsys, tmp_path, "no checkpoint yet", command, str(tmp_path))


words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)


# Each example is a command, which reads the experiment's file: tens of milliseconds.
tried = hypothesis.settings(max_examples=15, deadline=None)


@hypothesis.given(field=words, value=words)
@tried
def test_options_that_nobody_made_up_are_refused(field, value):
    code = main(argv=["train", MICRO, f"--x{field}", value])
    assert code == 2


@hypothesis.given(text=words)
@tried
def test_values_that_are_no_numbers_are_refused(text):
    hypothesis.assume(not text.strip().lstrip("+-").replace("_", "").isdecimal())
    assert main(argv=["train", MICRO, f"--epochs={text}"]) == 2
    assert main(argv=["train", MICRO, "--mesh", f"data={text}"]) == 2
