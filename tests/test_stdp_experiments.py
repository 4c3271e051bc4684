"""The programs about STDP: rows of the ablation, and what takes the place of absent packages."""

import importlib
import sys

import pytest

from snnjax import plasticity, training
from snnjax.cli import _experiment_args as experiment_args
from snnjax.cli._options import Option
from tests.programs import EXPERIMENTS, loaded

ABLATION = loaded("stdp_ablation.py")
ROWS = ABLATION.rows([17.5])
EXPERIMENT = training.config.load_experiment(ABLATION.EXPERIMENT)


@pytest.mark.parametrize("name", ROWS)
def test_options_of_a_row_are_its_fields_and_make_a_network(name):
    given = [text for field in ROWS[name].items() for text in ABLATION.option(field)]
    none = [Option("out", str | None, None, "")]
    _, fields = experiment_args.parse_fields(
        "train", "", EXPERIMENT, none, ["--model=fspinn", *given]
    )
    experiment = training.config.override(EXPERIMENT, fields)
    assert {field: getattr(experiment, field) for field in ROWS[name]} == ROWS[name]
    network = experiment.learner(experiment)
    lateral = isinstance(network.inhibition, plasticity.inhibition.LateralInhibition)
    assert lateral == ROWS[name]["lateral"]
    assert (network.form is None) == (ROWS[name]["bits"] == 32)
    assert isinstance(network.rule, plasticity.windowed.WindowedSTDP) == (
        ROWS[name]["window"] is not None
    )


def test_a_technique_comes_and_goes_with_what_it_needs():
    on, off = ABLATION.ON, ABLATION.OFF
    differing = lambda row, other: {name for name in on if row[name] != other[name]}  # noqa: E731
    assert ROWS["none"] == off and ROWS["all"] == on
    assert differing(ROWS["lateral alone"], off) == differing(ROWS["all but lateral"], on)
    factor = {"spikes_per_factor", "window", "post_triggered"}
    assert differing(ROWS["spikes_per_factor alone"], off) == factor
    assert differing(ROWS["all but post_triggered"], on) == factor
    assert differing(ROWS["all but spikes_per_factor"], on) == {"spikes_per_factor"}
    assert ROWS["all, strength 17.5"] == on | {"strength": 17.5}


def test_fewer_images_are_the_first_ones(monkeypatch):
    """Of the experiment, by its field `images`."""
    whole = training.config.load_dataset(training.config.load_experiment(EXPERIMENTS / "digits.py"))
    made = training.config.load_experiment(ABLATION.EXPERIMENT)
    module = sys.modules[made.dataset.__module__]
    monkeypatch.setattr(module.data, "load", lambda name, **options: whole)
    few = made.dataset(training.config.override(made, {"images": 7}))
    assert len(few.train) == 7 and len(few.test) == len(whole.test)
    assert (few.train.labels == whole.train.labels[:7]).all()
    assert made.dataset(made) is whole


def test_only_what_is_absent_and_not_used_is_stood_in_for(monkeypatch):
    peers = loaded("benchmarks/stdp_peers.py")
    monkeypatch.setattr(peers, "NOT_USED", {"absent_package", "json"})
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, peers.Absent()])
    standing_in = importlib.import_module("absent_package.inside")
    base = standing_in.Base
    assert issubclass(type("Own", (base,), {}), base)
    assert isinstance(importlib.import_module("absent_package").datasets.MNIST, type)
    assert importlib.import_module("json").loads("3") == 3
    with pytest.raises(ImportError):
        importlib.import_module("another_absent_package")
    for name in ("absent_package", "absent_package.inside"):
        sys.modules.pop(name)
