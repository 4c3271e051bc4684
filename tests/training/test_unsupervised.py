"""Learning by plasticity inside the training room: labels are not used, and resuming is exact."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from snnjax import cli, data, quantization, training
from tests.training.conftest import assert_same_bits

FILE = """
from snnjax import data, plasticity, training

def config():
    return training.unsupervised.Unsupervised(
        name="unsupervised", learner=learner, dataset=dataset, encode=encode, batch=40,
        eval_batch=40, assign=80, checkpoint_every=2,
    )

def dataset(experiment):
    whole = data.load("digits")
    few = [split.take(range(80)) for split in (whole.train, whole.test)]
    return data.from_arrays(
        few[0].inputs, few[0].labels, few[1].inputs, few[1].labels, name="few",
        class_names=whole.class_names, input_shape=(8, 8, 1),
    )

def encode(experiment, inputs, key):
    return data.rescale(inputs, 1 / 16).reshape(len(inputs), -1) * 0.2

def learner(experiment):
    return plasticity.presets.current_based(10, inputs=64, timesteps=30, slots=32, total=10.0)
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("experiment") / "mine.py"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
def session(path):
    return training.prepare(training.config.load_experiment(path))


def again(session, **changes):
    """The session with a state that was not consumed."""
    _, state = training.unsupervised.initialize(session.experiment, classes=10)
    return dataclasses.replace(
        session, state=training.sharding.place(state, session.mesh), **changes
    )


def fitted(session, folder, **options):
    run = training.Run.create(folder, session.experiment, "")
    return run, training.fit(again(session), run, **options)


def test_it_learns_and_says_what_it_did(session, tmp_path):
    before = jax.device_get(again(session).state.params)
    run, result = fitted(session, tmp_path / "run")
    assert result.step == 2 and not np.array_equal(
        result.state.params["weights"], before["weights"]
    )
    (first, *_) = [r for r in run.records() if r["kind"] == "train"]
    assert {"spikes", "weight_updates", "showings", "accuracy"} <= set(first)
    assert "learning_rate" not in first and first["spikes"] > 0 and first["weight_updates"] > 0
    assert result.evaluation.accuracy > 0.2  # by chance 0.1
    assert 0 < result.evaluation.rates["neurons"] < 1
    assert result.evaluation.loss == pytest.approx(1 - result.evaluation.accuracy)


def test_resuming_changes_no_bit(session, tmp_path):
    _, straight = fitted(session, tmp_path / "straight")
    run, first = fitted(session, tmp_path / "stopped", stop=lambda: True)
    assert first.interrupted and first.step == 1
    second = training.fit(again(session), run)
    assert_same_bits(second.state, straight.state)
    assert second.evaluation == straight.evaluation


def test_labels_teach_nothing(session):
    """Other labels leave every weight and threshold as it is; only responses differ."""
    batch = session.loader.batch(0)
    other = batch._replace(labels=(batch.labels + 3) % 10)
    one, two = (session.train(again(session).state, b)[0] for b in (batch, other))
    assert_same_bits(one.params, two.params)
    assert not np.array_equal(one.statistics.spikes, two.statistics.spikes)


def test_judging_learns_nothing_and_settling_uses_training_examples(session):
    state = again(session).state
    settled = session.settle(state)
    assert_same_bits(settled.params, state.params)
    labels = session.dataset.train.labels[:80]
    assert np.array_equal(settled.statistics.examples, np.bincount(labels, minlength=10))
    assert session.evaluate(state) == session.evaluate(state)


def test_codes_are_what_is_kept(session):
    experiment = dataclasses.replace(
        session.experiment,
        learner=lambda e: dataclasses.replace(
            session.program.network, form=quantization.QFormat(0, 8)
        ),
    )
    _, state = training.unsupervised.initialize(experiment, classes=10)
    assert state.params["weights"].dtype == np.uint8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learner": lambda e: 3}, "must return a plasticity.Network"),
        ({"encode": lambda e, x, k: data.rescale(x, 1.0)}, r"rates \[B, 64\]"),
        ({"encode": lambda e, x, k: data.rescale(x, 1.0).reshape(len(x), -1)}, "slots="),
        ({"encode": lambda e, x, k: -data.rescale(x, 1.0).reshape(len(x), -1)}, "at least 0"),
        ({"assign": 0}, "assign must be at least 1"),
    ],
)
def test_misfits_are_refused_before_anything_runs(session, changes, words):
    with pytest.raises(training.errors.ExperimentError, match=words):
        training.prepare(dataclasses.replace(session.experiment, **changes))


def test_gradients_are_refused_by_name(session):
    with pytest.raises(training.errors.ExperimentError, match="learns by plasticity"):
        training.initialize(session.experiment, steps=1)


def test_options_about_gradients_are_not_there(session, path, capsys):
    fields = training.config.plain_fields(session.experiment)
    assert {"batch", "epochs", "assign"} <= set(fields)
    assert not {"learning_rate", "memory", "timesteps"} & set(fields)
    assert cli.main(argv=["train", str(path), "--learning-rate", "0.1"]) == 2
    assert "learning-rate" in capsys.readouterr().err


def test_the_commands(path, tmp_path, capsys):
    run = tmp_path / "run"
    assert cli.main(argv=["train", str(path), "--out", str(run), "--json"]) == 0
    trained = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert trained["parameters"] == 64 * 10 + 10
    assert cli.main(argv=["eval", str(run), "--json"]) == 0
    judged = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert judged["test_accuracy"] == trained["test_accuracy"]
    assert cli.main(argv=["show", str(run), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(shown["pictures"]) == {"learning_curve", "receptive_fields"}
    for command in ("cost", "redundancy", "memory", "plan", "check"):
        given = [str(run) if command in ("redundancy",) else str(path)]
        given += ["--budget", "1GB"] if command == "plan" else []
        assert cli.main(argv=[command, *given]) == 2, command
        told = capsys.readouterr().err
        assert "plasticity" in told and "Traceback" not in told, (command, told)
