"""Tasks: loss, metrics, the best checkpoint and padded sequences."""

import dataclasses
import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import cli, data, losses, metrics, readout, training
from snnjax.training import task as tasks
from tests.training.conftest import make

T, B, K = 7, 4, 3
LENGTHS = np.array([7, 3, 5, 1], np.int32)


@pytest.fixture(scope="module")
def outputs():
    return jax.random.normal(jax.random.key(0), (T, B, K))


def targets_of(task):
    shape = (B, T) if task.per_timestep else (B,)
    key = jax.random.key(1)
    if isinstance(task, tasks.Classification):
        return jax.random.randint(key, shape, 0, K)
    if isinstance(task, tasks.MultiLabel):
        return jax.random.bernoulli(key, 0.4, (*shape, K)).astype(jnp.float32)
    return jax.random.normal(key, (*shape, K))


TASKS = {
    "classification": tasks.Classification(),
    "smoothed classification": tasks.Classification(label_smoothing=0.1),
    "classification per timestep": tasks.Classification(per_timestep=True),
    "labels": tasks.MultiLabel(),
    "labels per timestep": tasks.MultiLabel(per_timestep=True),
    "regression": tasks.Regression(),
    "regression per timestep": tasks.Regression(per_timestep=True),
    "regression of totals": tasks.Regression(readout=readout.total),
    "regression of the last step": tasks.Regression(readout=readout.last),
    "regression of the largest step": tasks.Regression(readout=readout.max_membrane),
    "regression of weighted steps": tasks.Regression(
        readout=lambda outputs, lengths=None: readout.weighted_rate(
            outputs, jnp.arange(1.0, len(outputs) + 1), lengths=lengths
        )
    ),
}


@functools.partial(jax.jit, static_argnums=0)
def values_of(task, outputs, targets, lengths):
    predictions = task.predict(outputs, lengths=lengths)
    return {
        "loss": task.loss(outputs, targets, lengths=lengths),
        **task.metrics(predictions, targets, lengths=lengths),
    }


@pytest.mark.parametrize("name", TASKS)
def test_padded_timesteps_change_no_bit(name, outputs):
    """Each example alone, cut to its length, against the padded batch full of garbage."""
    task, targets = TASKS[name], targets_of(TASKS[name])
    valid = readout.mask(jnp.asarray(LENGTHS), T)
    padded = jnp.where(valid[..., None], outputs, jnp.nan)
    batch = jax.jit(functools.partial(values_of, task))(padded, targets, LENGTHS)
    for i, length in enumerate(LENGTHS):
        own = targets[i : i + 1, :length] if task.per_timestep else targets[i : i + 1]
        alone = jax.jit(functools.partial(values_of, task))(
            outputs[:length, i : i + 1], own, LENGTHS[i : i + 1]
        )
        for key, value in alone.items():
            assert np.asarray(value[0]).tobytes() == np.asarray(batch[key][i]).tobytes(), key


@pytest.mark.parametrize("name", TASKS)
def test_full_lengths_are_no_lengths(name, outputs):
    task, targets = TASKS[name], targets_of(TASKS[name])
    full = values_of(task, outputs, targets, jnp.full(B, T, jnp.int32))
    for key, value in values_of(task, outputs, targets, None).items():
        np.testing.assert_allclose(full[key], value, rtol=2e-6)


@pytest.mark.parametrize("name", ["regression", "classification per timestep"])
def test_padding_gets_no_gradient(name, outputs):
    task, targets = TASKS[name], targets_of(TASKS[name])
    gradient = jax.grad(lambda o: task.loss(o, targets, lengths=jnp.asarray(LENGTHS)).sum())(
        outputs
    )
    valid = np.asarray(readout.mask(jnp.asarray(LENGTHS), T))
    assert (np.asarray(gradient)[~valid] == 0).all()
    assert (np.abs(np.asarray(gradient)[valid]).sum(-1) > 0).all()


def test_a_mask_marks_the_valid_timesteps():
    expected = np.arange(T)[:, None] < LENGTHS
    np.testing.assert_array_equal(readout.mask(jnp.asarray(LENGTHS), T), expected)


def test_classification_is_cross_entropy_and_accuracy(outputs):
    labels = targets_of(TASKS["classification"])
    task = training.task.classification(make(label_smoothing=0.1))
    expected = losses.cross_entropy(readout.rate(outputs), labels, label_smoothing=0.1)
    assert (task.loss(outputs, labels) == expected).all()
    right = task.metrics(task.predict(outputs), labels)["accuracy"]
    assert float(right.mean()) == float(metrics.accuracy(readout.rate(outputs), labels))
    assert (task.best, task.lowest, task.format("accuracy", 0.5)) == ("accuracy", False, "50.00%")


def test_clips_are_right_by_majority_in_evaluation(outputs):
    task = tasks.Classification(clips=2)
    labels = jnp.asarray([0, 0, 1, 1])
    logits = jnp.eye(3)[jnp.asarray([0, 0, 1, 2])]
    assert task.metrics(logits, labels)["accuracy"].tolist() == [1, 1, 1, 0]
    assert task.evaluation_metrics(logits, labels)["accuracy"].tolist() == [1, 1, 0, 0]


def test_regression_reports_the_root_of_the_mean_over_all_examples(outputs):
    targets = targets_of(TASKS["regression"])
    task = training.task.regression(make())
    errors = np.asarray(readout.rate(outputs) - targets)
    np.testing.assert_allclose(task.loss(outputs, targets), (errors**2).mean(-1), rtol=1e-6)
    values = task.metrics(task.predict(outputs), targets)
    summary = task.summary({name: float(value.mean()) for name, value in values.items()})
    assert summary["mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-6)
    assert summary["rmse"] == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-6)


def test_labels_report_micro_f1_over_all_examples(outputs):
    task = training.task.multi_label(make())
    targets = np.asarray(targets_of(task)).astype(bool)
    answers = np.asarray(readout.rate(outputs)) > 0
    values = task.metrics(task.predict(outputs), jnp.asarray(targets, jnp.float32))
    summary = task.summary({name: float(value.mean()) for name, value in values.items()})
    hits, errors = (answers & targets).sum(), (answers != targets).sum()
    assert summary["f1"] == pytest.approx(2 * hits / (2 * hits + errors), rel=1e-6)
    assert summary["accuracy"] == pytest.approx((answers == targets).mean(), rel=1e-6)
    assert summary["exact_match"] == pytest.approx((answers == targets).all(-1).mean(), rel=1e-6)
    assert summary.keys() == {"f1", "accuracy", "exact_match"}
    assert (task.best, task.lowest, task.format("f1", 0.5)) == ("f1", False, "50.00%")
    nothing = dict.fromkeys(("hits", "misses", "false_alarms"), 0.0)
    assert task.summary(nothing) == {"accuracy": 1.0, "f1": 1.0}


def test_scores_are_higher_for_better_values():
    regression, classification = tasks.Regression(), tasks.Classification()
    assert regression.score({"rmse": 0.1}) > regression.score({"rmse": 0.2})
    assert classification.score({"accuracy": 0.2}) > classification.score({"accuracy": 0.1})
    assert regression.score({"rmse": math.nan}) == regression.score({"loss": 1.0}) == -math.inf


def squared(experiment, outputs, labels):
    return jnp.square(outputs.mean(0) - jax.nn.one_hot(labels, K)).mean(-1)


def test_equal_options_give_equal_tasks():
    builders = ("classification", "regression", "multi_label")
    for build in (getattr(training.task, name) for name in builders):
        for options in ({}, {"loss": squared}, {"per_timestep": True}):
            one, two = (build(make(), **options) for _ in range(2))
            assert one == two and hash(one) == hash(two)
        assert build(make(), per_timestep=True) != build(make())
    assert training.task.classification(make(label_smoothing=0.1)) != training.task.classification(
        make()
    )


def arrays(targets, name="made"):
    inputs = np.zeros((len(targets), 4), np.float32)
    return data.from_arrays(inputs, targets, inputs, targets, name=name)


@pytest.mark.parametrize(
    ("task", "targets", "words"),
    [
        (tasks.Classification(), np.zeros((8, 2), np.float32), "task=training.task.regression"),
        (tasks.Regression(), np.arange(8) % 3, "task=training.task.classification"),
        (tasks.Regression(), np.zeros((8, 5, 2), np.float32), "per_timestep=True"),
        (tasks.Regression(per_timestep=True), np.zeros((8, 2), np.float32), r"\[N, T, D\]"),
        (tasks.Classification(clips=3), np.arange(8) % 3, "recordings of 3 clips"),
    ],
)
def test_targets_of_another_kind_are_refused_with_the_cure(task, targets, words):
    with pytest.raises(training.errors.ExperimentError, match=words):
        task.check_dataset(arrays(targets))


@pytest.mark.parametrize(
    ("task", "targets", "shape"),
    [
        (tasks.Classification(), np.arange(8) % 3, (5, 8, 4)),
        (tasks.Regression(), np.zeros((8, 2), np.float32), (5, 8, 3)),
        (tasks.Regression(per_timestep=True), np.zeros((8, 6, 2), np.float32), (5, 8, 2)),
    ],
)
def test_outputs_of_another_size_are_refused(task, targets, shape):
    with pytest.raises(training.errors.ExperimentError, match="the network"):
        task.check_outputs(jax.ShapeDtypeStruct(shape, jnp.float32), arrays(targets))


def test_fields_of_classification_are_refused_in_a_regression():
    with pytest.raises(training.errors.ExperimentError, match="label_smoothing belongs"):
        training.task.regression(make(label_smoothing=0.1))


def test_a_task_that_is_none_is_refused():
    experiment = dataclasses.replace(make(), task=lambda experiment: "mse")
    with pytest.raises(training.errors.ExperimentError, match="must return a training.task.Task"):
        training.initialize(experiment, steps=1)


def test_a_training_step_hands_lengths_to_the_task():
    program, state = training.initialize(make(batch=4, timesteps=3), steps=1)
    batch = data.Loader(data.load("digits").train, batch_size=4).batch(0)
    step = jax.jit(functools.partial(training.train_step, program))
    lengths = np.array([1, 3, 2, 3], np.int32)
    losses_of = [float(step(state, batch._replace(lengths=n))[1].loss) for n in (lengths, None)]
    assert losses_of[0] != losses_of[1]

    @jax.jit
    def outputs_of(state, batch):
        inputs = training._objective.encode_batch(program, state, batch)
        return training._objective.objective(state.params, program, state, inputs, batch)[1][1]

    outputs = outputs_of(state, batch._replace(lengths=lengths))
    by_hand = program.task.loss(outputs, batch.labels, lengths=jnp.asarray(lengths)).mean()
    assert losses_of[0] == pytest.approx(float(by_hand), rel=1e-5)
    with pytest.raises(training.errors.ExperimentError, match="equally long"):
        mixing, state = training.initialize(make(batch=4, mixup=0.5), steps=1)
        training._objective.encode_batch(mixing, state, batch._replace(lengths=lengths))


SERIES = """
import dataclasses
import jax.numpy as jnp
import numpy as np
from snnjax import data, nn, training

def dataset(experiment):
    rng = np.random.default_rng(0)
    slope, level = rng.uniform(-1, 1, (2, 96)).astype(np.float32)
    series = level[:, None] + slope[:, None] * np.linspace(0, 1, 6, dtype=np.float32)
    targets = np.stack([slope, level], 1)
    return data.from_arrays(series[:64], targets[:64], series[64:], targets[64:], name="lines")

def encode(experiment, inputs, key):
    return inputs.T[:, :, None]

def network(experiment, rngs):
    body = nn.Sequential(nn.Linear(1, 16, rngs=rngs), nn.LIF(), nn.Linear(16, 2, rngs=rngs))
    return nn.Network(body, (1,))

def config():
    return training.Experiment(
        name="lines", network=network, dataset=dataset, encode=encode, task=task, batch=16,
        eval_batch=32, epochs=4, learning_rate=1e-2, log_every=2,
    )
"""


def command(capsys, *arguments, code=0):
    assert cli.main(argv=[*map(str, arguments), "--json"]) == code
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    path = tmp_path_factory.mktemp("regression") / "lines.py"
    path.write_text(SERIES + "\ntask = training.task.regression\n")
    return path


def test_a_regression_trains_resumes_and_is_shown(lines, tmp_path, capsys):
    run = tmp_path / "run"
    first = command(capsys, "train", lines, "--out", run, "--epochs", 2)
    whole = command(capsys, "train", "--resume", run, "--epochs", 4)
    errors = [r["rmse"] for r in training.Run.open(run).records() if r["kind"] == "eval"]
    assert len(errors) == 4 and errors[-1] < errors[0] and errors[1] == first["test_rmse"]
    assert whole["test_rmse"] == errors[-1] and whole["best_test_rmse"] == min(errors)
    assert whole["test_loss"] == pytest.approx(whole["test_rmse"] ** 2, rel=1e-5)
    assert (first["steps"], whole["steps"]) == (8, 16)
    judged = command(capsys, "eval", run)
    assert (judged["test_rmse"], judged["test_mae"]) == (whole["test_rmse"], whole["test_mae"])
    shown = command(capsys, "show", run)
    assert {"learning_curve", "predictions", "firing_rates"} <= set(shown["pictures"])


def test_the_lowest_error_is_kept_and_ends_the_run(lines, tmp_path):
    """Errors fall, then rise: the best checkpoint is that of the lowest, and patience counts."""
    experiment = training.config.override(
        training.config.load_experiment(lines), {"epochs": 6, "patience": 2, "keep": 1}
    )
    session = training.prepare(experiment)
    squares = iter([4.0, 1.0, 2.0, 3.0])

    def judge(state, batch):
        del state, batch
        values = {"mae": 1.0, "rmse": 32 * next(squares)}
        return training.step.EvalMetrics(1.0, values, 32.0, {}, {}, {})

    run = training.Run.create(tmp_path / "run", experiment, "")
    result = training.fit(dataclasses.replace(session, eval=judge), run)
    assert (result.step, result.best_step, result.best) == (16, 8, 1.0)
    assert training.checkpoints.steps(run.checkpoints) == [8, 16]
    assert training.checkpoints.best(run.checkpoints).name == "00000008"


def test_a_loss_of_its_own_for_padded_sequences_takes_lengths():
    outputs, targets = jnp.zeros((3, 2, 1)), jnp.zeros((2, 3, 1))
    task = tasks.regression(make(), loss=lambda e, o, t: o, per_timestep=True)
    with pytest.raises(training.errors.ExperimentError, match="takes no lengths: give it an"):
        task.loss(outputs, targets, lengths=jnp.array([3, 2]))
