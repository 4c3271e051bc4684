"""`snnjax plan` and `snnjax check`: their fields, exit codes, and what they refuse at once."""

import json
import pathlib
import re

import pytest

from snnjax import memory, training
from snnjax.cli import check, main, plan
from tests.training import micro

MICRO = micro.__file__
TINY = ["--batch", "16", "--width", "4"]
LEAN, REFUSED = "depth=recompute(1), pack=True", "depth=reverse"
ASKED = ["--strategies", f"as written; {LEAN}; {REFUSED}"]
SIZES = ("argument_bytes", "output_bytes", "temp_bytes")


def call(capsys, *arguments):
    """Exit code, the last line of stdout as strict JSON, and stderr."""
    capsys.readouterr()
    code = main(argv=[*arguments, "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1], parse_constant=pytest.fail), err


def documented(module):
    """Names in the list of fields that opens a command's module, and those of its rows."""
    fields = module.__doc__.split("JSON object:")[1]
    rows = re.search(r"per strategy: (.*?)\n {4}\w", fields, re.DOTALL)[1]
    plain = lambda text: re.sub(r"\(.*?\)", "", text, flags=re.DOTALL)  # noqa: E731
    names = re.findall(r"^ {4}(\w+(?:, \w+)*)  ", fields, re.MULTILINE)
    return (
        {name for group in names for name in group.split(", ")},
        {name.strip() for name in plain(rows).split(",")},
    )


# snnjax plan


def test_a_plan_says_what_its_help_promises(capsys):
    code, said, err = call(capsys, "plan", MICRO, *TINY, *ASKED, "--budget", "1 GB")
    assert code == 0 == said["exit_code"] and said["command"] == "plan"
    fields, columns = documented(plan)
    assert set(said) == fields | {"command", "exit_code"}
    written, lean, refused = said["rows"]
    assert [set(row) for row in said["rows"]] == [columns] * 3
    assert (said["name"], said["budget"], said["largest"]) == ("micro", 10**9, None)
    assert said["chosen"] == written["strategy"] == "as written" and said["missing_bytes"] == 0
    assert written["chosen"] and written["ok"] and lean["ok"] and not lean["chosen"]
    assert written["extra_passes"] == 0 < lean["extra_passes"]
    assert written["operations"] < lean["operations"]
    for row in (written, lean):
        assert row["refused"] is None and max(row[size] for size in SIZES) < row["total_bytes"]
        assert row["bytes_per_sample"] == row["total_bytes"] / 16
    assert "nn.Reversible" in refused["refused"] and not refused["ok"] and not refused["chosen"]
    assert {refused[name] for name in (*SIZES, "total_bytes", "extra_passes")} == {None}
    assert "budget 1.0 GB" in err and "refused: " in err and "chosen: as written" in err


def test_nothing_fits_in_a_kilobyte(capsys):
    code, said, err = call(capsys, "plan", MICRO, *TINY, *ASKED, "--budget", "1kB")
    assert code == 1 == said["exit_code"] and said["chosen"] is None
    totals = [row["total_bytes"] for row in said["rows"] if not row["refused"]]
    assert said["missing_bytes"] == min(totals) - 1000 > 0
    assert not any(row["ok"] or row["chosen"] for row in said["rows"])
    assert "nothing fits" in err and "--batch" in err


@pytest.mark.slow
def test_the_largest_batch_is_found_and_what_is_chosen_can_be_trained_with(capsys):
    """It may be larger than the data set: only shapes are looked at."""
    asked = ["--strategies", LEAN, "--budget", "2 MB", "--largest", "batch"]
    code, said, err = call(capsys, "plan", MICRO, *TINY, *asked)
    found = said["largest"]
    assert code == 0 and (found["field"], found["strategy"]) == ("batch", LEAN)
    assert found["value"] > 1437 and f"batch that fits: {found['value']:,}, with {LEAN}" in err
    (strategy,) = re.findall(r'--memory "(.*)"', err)
    assert strategy == LEAN == said["chosen"]


@pytest.mark.slow  # measures three more strategies
def test_another_gradient_is_chosen_only_with_approximate(capsys):
    asked = ["plan", MICRO, *TINY, "--strategies", "time=sltt", "--budget", "1 GB"]
    code, said, err = call(capsys, *asked)
    assert code == 1 and said["chosen"] is None and not said["rows"][0]["exact"]
    assert "--approximate admits them" in err
    code, said, _ = call(capsys, *asked, "--approximate")
    assert code == 0 and said["chosen"] == "time=sltt"
    code, said, err = call(capsys, "check", *asked[1:-2], "--repeats", "0")
    row = said["rows"][1]
    assert code == 0 and row["ok"] and row["outputs_equal"] and not row["exact"]
    assert 0 < row["gradient_cosine"] < 1 and err.count(", norm x ") == len(row["layers"])


# snnjax check

PLANTED = """
from tests.training import planted

def config():
    return planted.experiment(planted.{fault})
"""
FAULTS = {
    "wrong_inverse": "wrong inverse: a state rebuilt in lif2 is off by",
    "statistics_twice": "statistics were updated twice",
    "dropped_key": "a dropped key",
}


@pytest.fixture
def planted_in(tmp_path, monkeypatch):
    """Writes an experiment with a planted fault to a file."""
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).resolve().parents[1]))

    def write(fault):
        (tmp_path / f"{fault}.py").write_text(PLANTED.format(fault=fault))
        return str(tmp_path / f"{fault}.py")

    return write


@pytest.mark.parametrize(
    "fault", [fault if fault == "wrong_inverse" else pytest.param(fault, marks=pytest.mark.slow)
              for fault in FAULTS]
)  # fmt: skip
def test_a_planted_fault_fails_the_check_by_name(capsys, planted_in, fault):
    options = ["--strategies", "as written; pack=True", "--repeats", "1"]
    code, said, err = call(capsys, "check", planted_in(fault), *options)
    assert code == 1 == said["exit_code"] and said["ok"] is False
    fields, columns = documented(check)
    assert set(said) == fields | {"command", "exit_code"}
    assert [set(row) for row in said["rows"]] == [columns] * len(said["rows"])
    store, *rows = said["rows"]
    assert store["ok"] and store["strategy"].startswith("store") and not store["faults"]
    assert store["gradient_relative"] == 0 and store["gradient_cosine"] == pytest.approx(1)
    for row in rows:
        assert not row["ok"] and row["faults"][0].startswith(FAULTS[fault])
        assert row["worst"] in row["gradients"] and row["total_bytes"] > row["temp_bytes"] > 0
        worst = row["gradients"][row["worst"]]
        assert worst["relative"] == row["gradient_relative"] and not row["chosen"]
        assert f"FAULT {row['faults'][0]}" in err
    assert {row["strategy"] for row in rows} == {"as written", "pack=True"}
    assert "2 of 3 are wrong" in err
    assert (rows[0]["reconstruction"] is not None) == (fault == "wrong_inverse")
    assert (rows[0]["statistics_equal"] is None) == (fault == "wrong_inverse")


def test_a_sound_experiment_passes_and_nothing_need_be_timed(capsys):
    options = ["--strategies", "time=reverse", "--repeats", "0"]
    code, said, err = call(capsys, "check", MICRO, *TINY, *options)
    assert code == 0 == said["exit_code"] and said["ok"] is True and said["batch"] == 16
    assert all(row["ok"] and row["outputs_equal"] for row in said["rows"])
    assert [row["seconds"] for row in said["rows"]] == [None] * 2
    assert said["rows"][-1]["reconstruction"] < 1e-2
    assert "all 2 give the same gradient" in err


# What is refused, before the data are so much as loaded.

REFUSALS = {
    "a window": (
        ["plan", MICRO, "--budget", "1GB", "--strategies", "time=skip(2)"],
        "cannot read the strategy",
    ),
    "a size": (["plan", MICRO, "--budget", "8 Gigs"], "'8 Gigs' is no size: write 8GiB"),
    "no size": (["plan", MICRO, "--budget", "0"], "'0' is no size"),
    "no budget": (["plan", MICRO], "--budget 8GiB"),
    "a strategy": (
        ["plan", MICRO, "--budget", "1GB", "--strategies", "pack=True; depth=half"],
        "cannot read the strategy ' depth=half'",
    ),
    "a strategy to check": (["check", MICRO, "--strategies", "speed=2"], "cannot read the strat"),
    "a field": (["plan", MICRO, "--budget", "1GB", "--largest", "depth"], "field 'depth'"),
    "a field of fractions": (
        ["plan", MICRO, "--budget", "1GB", "--largest", "learning_rate"], "it has batch, epochs",
    ),
    "an option": (["plan", MICRO, "--budgets", "1GB"], "--budget"),
    "a value": (["check", MICRO, "--timesteps", "0"], "timesteps must be at least 1"),
    "a number": (["check", MICRO, "--bound", "small"], "--bound"),
    "a file": (["check", "none.py"], "not there"),
    "a file behind": (["plan", "--budget", "1GB", MICRO], "the experiment comes first"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_bad_input_is_refused_before_any_work(capsys, monkeypatch, name):
    refuse = lambda experiment: pytest.fail("data loaded")  # noqa: E731
    monkeypatch.setattr(training.config, "load_dataset", refuse)
    arguments, needle = REFUSALS[name]
    code, said, err = call(capsys, *arguments)
    assert code == 2 == said["exit_code"] and needle in said["error"]
    assert err == f"snnjax: {said['error']}\n"


@pytest.mark.parametrize("command", [["plan", MICRO, "--budget", "1GB"], ["check", MICRO]])
def test_strategies_that_no_network_admits_are_refused_before_compiling(
    capsys, monkeypatch, command
):
    monkeypatch.setattr(memory.checking, "time_call", lambda *a, **options: pytest.fail("run"))
    for module in (memory.accounting, memory.budget):
        monkeypatch.setattr(
            module, "compiled_memory", lambda *a, **options: pytest.fail("compiled")
        )
    code, said, _ = call(capsys, *command, *TINY, "--strategies", REFUSED)
    assert code == 2 and "no nn.Reversible" in said["error"]
