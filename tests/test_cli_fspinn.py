"""`snnjax fspinn search`: budgets before training, one choice, and going on after a stop."""

import json

import pytest

from snnjax import cli, training, viz
from tests.training.test_unsupervised import FILE

SEARCHED = FILE.replace(
    "def config():",
    """import dataclasses
from snnjax import quantization

@dataclasses.dataclass(frozen=True, kw_only=True)
class Mine(training.unsupervised.Unsupervised):
    neurons: int = 10
    bits: int = 32

def config():""",
).replace("training.unsupervised.Unsupervised(\n", "Mine(\n")
SEARCHED = SEARCHED.replace(
    "return plasticity.presets.current_based(10, ",
    "form = None if experiment.bits == 32 else quantization.QFormat(0, experiment.bits)\n"
    "    return plasticity.presets.current_based(experiment.neurons, lateral=True, form=form, ",
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("experiment") / "searched.py"
    path.write_text(SEARCHED)
    return str(path)


def search(capsys, *arguments):
    code = cli.main(argv=["fspinn", "search", *arguments, "--examples", "4", "--json"])
    printed = capsys.readouterr()
    return code, json.loads(printed.out.splitlines()[-1]), printed.err


@pytest.mark.slow
def test_budgets_come_before_training_and_one_is_chosen(path, tmp_path, capsys):
    out = str(tmp_path / "search")
    grid = ["--grid", "neurons=4,10 bits=8,32", "--max-bytes", "1000", "--out", out]
    code, found, said = search(capsys, path, *grid)
    assert code == 0
    rows = {row["name"]: row for row in found["candidates"]}
    assert rows["neurons=10 bits=32"]["bytes"] == 4 * 64 * 10
    assert rows["neurons=10 bits=8"]["bytes"] == 64 * 10
    over = {name for name, row in rows.items() if row["discarded"]}
    assert over == {"neurons=10 bits=32", "neurons=4 bits=32"}
    assert all((rows[name]["accuracy"] is None) == (name in over) for name in rows)
    # Bytes are known without simulating anything, so what they exclude has no energy.
    assert all((rows[name]["inference"] is None) == (name in over) for name in rows)
    assert "neurons=4 bits=32: 1.0 kB: discarded, 1,024 bytes, above 1,000" in said, said
    assert {p.name for p in (tmp_path / "search").iterdir() if p.is_dir()} == {
        "neurons=4-bits=8", "neurons=10-bits=8"
    }  # fmt: skip
    assert rows[found["chosen"]]["front"] and rows[found["chosen"]]["chosen"]
    assert found["picture"].endswith("search.png")
    run = training.Run.open(tmp_path / "search" / "neurons=4-bits=8")
    steps = [record for record in run.records() if record["kind"] == "train"]
    grid[1] = "neurons=4 bits=8"
    again, same, _ = search(capsys, path, *grid)
    (row,) = same["candidates"]
    assert again == 0 and row["accuracy"] == rows["neurons=4 bits=8"]["accuracy"]
    # Nothing is trained twice.
    assert [record for record in run.records() if record["kind"] == "train"] == steps != []


def test_nothing_fits(path, tmp_path, capsys):
    out = tmp_path / "none"
    code, found, said = search(
        capsys, path, "--grid", "neurons=4 bits=8", "--max-inference", "0.001", "--out", str(out)
    )
    assert code == 1 and found["chosen"] is None and not out.exists()
    assert "nothing was trained" in said
    (row,) = found["candidates"]
    assert row["inference"] > 0.001 and row["training"] > 0 and "(inference)" in row["discarded"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--grid", "wings=3"], "write field=value,value"),
        (["--grid", "neurons=many"], "neurons must be int"),
        (["--grid", ""], "is empty"),
        (["--grid", "neurons=3", "--max-bytes", "few"], "is no size"),
        (["--grid", "neurons=3", "--examples", "0"], "at least 1"),
        ([], "grid"),
    ],
)
def test_bad_arguments_name_the_cure(path, capsys, arguments, words):
    given = ["fspinn", "search", path, *arguments]
    assert cli.main(argv=given) == 2
    told = capsys.readouterr().err
    assert words in told and "Traceback" not in told


@pytest.mark.parametrize("arguments", [[], ["find"], ["search"]])
def test_the_choices_are_listed(capsys, arguments):
    assert cli.main(argv=["fspinn", *arguments]) == 2
    assert "snnjax fspinn search EXPERIMENT.py" in capsys.readouterr().err


def test_an_experiment_with_gradients_is_refused(tmp_path, capsys):
    import snnjax.default_experiment as digits

    given = ["fspinn", "search", digits.__file__, "--grid", "batch=4"]
    assert cli.main(argv=given) == 2
    assert "learns by gradients" in capsys.readouterr().err


def test_the_picture_needs_an_accuracy():
    row = {"name": "a", "bytes": 1, "accuracy": None, "front": False, "chosen": False}
    with pytest.raises(ValueError, match="nothing to draw"):
        viz.plasticity.trade_off([row])
    figure = viz.plasticity.trade_off(
        [row, {**row, "accuracy": 0.9, "front": True, "chosen": True}]
    )
    assert "1 networks; chosen: a" in figure.get_label()
