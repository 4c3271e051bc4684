"""`snnjax redundancy`: the same numbers as `eval`, a page of one run and a page of two."""

import functools
import json
import pathlib
import shutil

import numpy as np
import pytest

from snnjax import redundancy, training
from snnjax.cli import main
from snnjax.cli import redundancy as redundancy_command
from tests.redundancy.test_report import sums
from tests.test_cli import MICRO, call


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The micro experiment after two epochs, and as it was after one."""
    folder = tmp_path_factory.mktemp("runs")
    asa, plain = folder / "asa", folder / "plain"
    assert main(argv=["train", MICRO, "--out", str(asa)]) == 0
    shutil.copytree(asa, plain)
    shutil.rmtree(plain / "checkpoints" / "00000010")
    return {"asa": asa, "plain": plain}


def test_the_numbers_are_those_of_eval_and_of_train(runs, capsys):
    trained = json.loads((runs["asa"] / "result.json").read_text())
    code, found, _ = call(capsys, "redundancy", str(runs["asa"]), "--batch", "100")
    assert code == 0 and (found["examples"], found["step"]) == (360, 10)
    assert found["accuracy"] == pytest.approx(trained["test_accuracy"], rel=1e-12)
    assert found["nasfr"] == pytest.approx(trained["nasfr"], rel=1e-6)
    assert list(found["layers"]) == ["lif3"] and found["analog_layers"] == []
    layer = found["layers"]["lif3"]
    assert layer["neurons"] == 8 and len(layer["rates_over_time"]) == 2
    assert np.mean(layer["rates_over_time"]) == pytest.approx(layer["rate"], rel=1e-6)
    assert sum(layer["features"].values()) == pytest.approx(1) == sum(layer["channels"].values())
    assert 0 < layer["currents_at_threshold"] < 1 and layer["threshold"] == 1.0
    assert set(found["pictures"]) == {
        "rates", "classes", "currents", "membranes", "features lif3",
    }  # fmt: skip
    page = pathlib.Path(found["page"]).read_text()
    assert page.count("data:image/png;base64,") == 5 and "http" not in page
    assert f"NASFR {found['nasfr']:.4f}" in page


def test_two_runs_are_compared_at_given_thresholds_on_a_page_of_their_own(runs, capsys):
    asa, plain = str(runs["asa"]), str(runs["plain"])
    options = ["--examples", "30", "--noise-rate", "0.011", "--noise-area", "0.1"]
    code, found, told = call(capsys, "redundancy", asa, "--against", plain, *options)
    rate = {"null_rate": 0.001, "noise_rate": 0.011, "noise_area": 0.1}
    assert found["thresholds"] == rate and found["layers"]["lif3"]["features"]["normal"] == 0.0
    assert code == 0 and found["examples"] == found["against"]["examples"] == 30
    assert (found["step"], found["against"]["step"]) == (10, 5)
    before = found["against"]["nasfr"]
    change = 100 * (found["nasfr"] / before - 1)
    assert found["nasfr_change_percent"] == pytest.approx(change) and before != found["nasfr"]
    assert f"NASFR {before:.4f} -> {found['nasfr']:.4f} ({change:+.1f} %)" in told
    page = pathlib.Path(found["comparison"])
    assert page.name == "redundancy-against-plain.html" and page.parent == runs["asa"] / "pictures"
    assert page.read_text().count("data:image/png;base64,") == 6
    assert not (runs["plain"] / "pictures").exists()


@pytest.mark.parametrize(
    ("arguments", "needle"),
    [
        ([], "run"),
        (["none"], "not there: give a folder that snnjax train made"),
        (["RUN", "--against", "none"], "none is not there"),
        (["RUN", "--examples", "0"], "--examples must be at least 1"),
        (["RUN", "--batch", "-2"], "--batch must be at least 1"),
        (["RUN", "--null-rate", "0.4"], "choose other --null-rate"),
        (["RUN", "--noise-area", "1.5"], "noise_area lies in"),
        (["RUN", "--checkpoint", "3"], "choose last, best"),
        (["EMPTY"], "has no checkpoint yet: snnjax train --resume"),
    ],
)
def test_bad_input_gets_one_message_and_leaves_nothing(runs, capsys, tmp_path, arguments, needle):
    empty = tmp_path / "empty"
    empty.mkdir()
    for file in ("config.json", "experiment.py"):
        shutil.copy(runs["plain"] / file, empty)
    places = {"RUN": str(runs["plain"]), "EMPTY": str(empty)}
    code, said, err = call(capsys, "redundancy", *[places.get(a, a) for a in arguments])
    assert code == 2 and needle in said["error"]
    assert err == f"snnjax: {said['error']}\n"
    assert not (runs["plain"] / "pictures").exists()


@pytest.mark.fast
def test_recordings_are_looked_at_as_a_whole():
    places = functools.partial(redundancy_command._example_numbers, 12)
    np.testing.assert_array_equal(places(None, 1), np.arange(12))
    np.testing.assert_array_equal(places(3, 1), [0, 6, 11])
    np.testing.assert_array_equal(places(5, 3), [0, 1, 2, 9, 10, 11])
    np.testing.assert_array_equal(places(99, 3), np.arange(12))


@pytest.fixture
def maps():
    """A report with maps in the plane, neurons without a place, and a layer that does not spike."""
    spikes = np.random.default_rng(0).integers(0, 5, (2, 3, 3, 4))
    return redundancy.report({"a/lif1": sums(spikes), "lif12": sums(spikes[:, 0, 0, :3]),
                              "li13": sums([[1], [1]], analog=True)})  # fmt: skip


@pytest.mark.fast
def test_the_table_has_a_line_per_layer_and_names_what_is_left_out(maps):
    head, first, second, last = redundancy_command.table(maps)
    assert "a/lif1" in first and "36" in first and "lif12" in second and "50.00%" in first
    assert f"{maps.rates['a/lif1']:.4f}" in first and "null" in head
    assert last == "  left out, since they do not spike: li13"


# The commands above draw both pages, and tests/test_viz_redundancy.py draws maps.
@pytest.mark.slow
def test_maps_and_vectors_are_drawn_and_other_networks_compared(maps, tmp_path):
    after, before = training.Run(tmp_path / "after"), training.Run(tmp_path / "before")
    page, pictures = redundancy_command.write_page(after, maps, title="title")
    assert {"features a/lif1", "features lif12"} < set(pictures)
    assert all(pathlib.Path(p).read_bytes().startswith(b"\x89PNG") for p in pictures.values())
    assert "li13" in page.read_text()
    other = redundancy.report({"lif0": sums([[0, 1]])})
    told = [("old", other), ("new", maps)]
    compared = redundancy.compare(other, maps)
    page = redundancy_command.write_comparison(after, before, told, compared)
    text = page.read_text()
    assert "no layers correspond" in text and f"{compared.nasfr_change:+.1f} %" in text
