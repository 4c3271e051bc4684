"""Progressive tandem learning of a run: stages, resuming, and the run at the end."""

import dataclasses
import functools
import json
import pathlib

import jax
import numpy as np
import pytest

from snnjax import nn, training
from snnjax.training import checkpoints, progressive
from snnjax.training.errors import RunError

FILE = pathlib.Path(__file__).with_name("rectified.py")
OPTIONS = progressive.Options(timesteps=4, epochs=2, patience=2, calibration=64, learning_rate=1e-2)


def make_source(folder, **fields):
    experiment = dataclasses.replace(training.config.load_experiment(FILE), **fields)
    run = training.Run.create(folder, experiment, FILE.read_text())
    training.fit(training.prepare(experiment), run)
    return run


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run with two small hidden layers."""
    return make_source(tmp_path_factory.mktemp("runs") / "source", hidden=(12, 8), epochs=3)


@pytest.fixture(scope="module")
def done(source):
    """An uninterrupted conversion, and its reports."""
    reports = []
    out = source.path.with_name("whole")
    return progressive.train(source, out, OPTIONS, report=reports.append), reports


def values(run):
    """Arrays of the newest checkpoint."""
    session = training.prepare(run.experiment(), training=False)
    state = checkpoints.load_newest(run.checkpoints, session.state, warn=print)
    return session, state, jax.tree.leaves((state.params, state.constants, state.statistics))


def test_the_stages_follow_the_schedule(done):
    result, reports = done
    assert not result.interrupted and result.progress.done
    evaluations = [r["stage"] for r in reports if r["kind"] == "eval"]
    assert sorted(evaluations) == evaluations and set(evaluations) == {0, 1, 2}
    thresholds = [r["threshold"] for r in reports if r["kind"] == "threshold"]
    assert thresholds == list(result.progress.thresholds) and len(thresholds) == 2
    record = json.loads((result.run.path / "progressive.json").read_text())
    assert record["test"] == result.metrics and record["thresholds"] == thresholds
    assert [len(s["scores"]) for s in record["stages"]] == [evaluations.count(k) for k in range(3)]


def test_validation_examples_are_training_examples(done, source):
    result, _ = done
    stage = training.Run.open(result.run.path / "stages" / "0").experiment()
    held, own = (e.dataset(e) for e in (stage, source.experiment()))
    assert len(held.test) == 142 and len(held.train) + len(held.test) == len(own.train)
    rows = lambda split: {x.tobytes() for x in split.inputs}  # noqa: E731
    assert not rows(held.test) & rows(own.test) and rows(held.test) <= rows(own.train)


def test_frozen_layers_stay_and_the_others_learn(done):
    """From the weights that a stage starts with to its newest: by layer."""
    run = training.Run.open(done[0].run.path / "stages" / "1")
    before = training.Run.open(done[0].run.path / "stages" / "0")
    best, after = training.loading.load(before, checkpoint="best"), training.loading.load(run)
    layers = [nn.split(loaded.network)[1]["body"]["layers"] for loaded in (best, after)]
    # Flatten, two tandem layers, the sum of spikes, the output layer.
    same = {
        place: jax.tree.all(jax.tree.map(np.array_equal, layers[0][place], layers[1][place]))
        for place in layers[0]
    }
    assert list(same.values()) == [True, True, False]
    jax.tree.map(np.testing.assert_array_equal, best.statistics, after.statistics)


def test_the_run_is_an_ordinary_spiking_one(done, source):
    result, _ = done
    session, state, _ = values(training.Run.open(result.run.path))
    evaluation = session.evaluate(state)
    assert evaluation.metrics["accuracy"] == result.metrics["spiking"]["accuracy"]
    network = session.program.network(state)
    kinds = [type(layer) for layer in network.body.layers]
    assert kinds.count(nn.Neuron) == 2 and nn.BatchNorm not in kinds
    found = source.experiment()
    assert session.experiment.hidden == found.hidden == (12, 8)
    with pytest.raises(training.errors.ExperimentError, match="timesteps cannot be 8"):
        training.initialize(dataclasses.replace(session.experiment, timesteps=8), steps=1)


class Killed(Exception):
    """End of a process."""


def kill(after, record):
    """Raises at the given evaluation, before its checkpoint is written."""
    if record["kind"] == "eval":
        after.append(record)
        if len(after) == 3:
            raise Killed


# Four conversions; resuming a run, of which a stage is one, is tested by itself.
@pytest.mark.slow
def test_killed_and_stopped_it_goes_on_identically(done, source):
    whole, _ = done
    out = source.path.with_name("pieces")
    with pytest.raises(Killed):
        progressive.train(source, out, OPTIONS, report=functools.partial(kill, []))
    assert not checkpoints.steps(out / "checkpoints")
    # Stopped in the middle of an epoch of the next stage, then at once, then not.
    count = iter(range(1000))
    stopped = progressive.train(source, out, OPTIONS, stop=lambda: next(count) == 25)
    assert stopped.interrupted and stopped.metrics == {}
    assert progressive.train(source, out, OPTIONS, stop=lambda: True).interrupted
    resumed = progressive.train(source, out, OPTIONS)
    assert resumed.metrics == whole.metrics and resumed.progress == whole.progress
    for mine, other in zip(values(resumed.run)[2], values(whole.run)[2], strict=True):
        np.testing.assert_array_equal(mine, other)
    # A finished conversion has nothing to do.
    assert progressive.train(source, out, OPTIONS, stop=lambda: 1 / 0).metrics == whole.metrics


def test_other_options_and_sources_are_refused(done, source, tmp_path):
    whole, _ = done
    with pytest.raises(RunError, match="of other options"):
        progressive.train(source, whole.run.path, dataclasses.replace(OPTIONS, timesteps=5))
    empty = training.Run.create(tmp_path / "empty", source.experiment(), FILE.read_text())
    with pytest.raises(RunError, match="no checkpoint yet"):
        progressive.train(empty, tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "wrong", [{"timesteps": 0}, {"percentile": 0}, {"validation": 1.0}, {"image": "video"}]
)
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dataclasses.replace(OPTIONS, **wrong)


@pytest.mark.slow
def test_four_timesteps_of_digits_gain_what_conversion_lost(tmp_path):
    """Of the source's .986, conversion without training keeps .928 and this .967, measured once."""
    run = make_source(tmp_path / "source")
    options = progressive.Options(timesteps=4, epochs=8, patience=8)
    found = progressive.train(run, tmp_path / "out", options).metrics
    assert found["spiking"]["accuracy"] >= max(found["primitive"]["accuracy"], 0.94)
