"""Sequences of different lengths and targets per timestep, from the data to `snnjax show`."""

import dataclasses
import functools
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from snnjax import cli, data, encoding, nn, readout, training

LONGEST = 12


def made(kind, count, rng):
    """Waves of one of three frequencies, of 3 to 12 steps, with their targets."""
    lengths = rng.integers(3, LONGEST + 1, count)
    labels = rng.integers(0, 3, count)
    waves = [
        np.sin(np.arange(n)[:, None] * (0.4 + 0.6 * label) + np.arange(4)).astype(np.float32)
        for n, label in zip(lengths, labels, strict=True)
    ]
    padded = lambda rows: data.pad(list(map(rows, waves)), timesteps=LONGEST)[0]  # noqa: E731
    targets = {
        "classes": lambda: labels,
        "classes per timestep": lambda: padded(lambda w: (5 + 4.9 * w[:, 0]).astype(int)),
        "numbers": lambda: np.stack([labels, lengths] * 4, 1) / 10.0,
        "numbers per timestep": lambda: padded(lambda w: 0.5 * np.tile(w, 2)),
        "labels": lambda: np.stack([labels > 0, labels < 2] * 4, 1).astype(np.float32),
        "labels per timestep": lambda: padded(lambda w: np.tile(w > 0, 2).astype(np.float32)),
    }
    inputs, lengths = data.pad(waves, timesteps=LONGEST)
    return inputs, targets[kind](), lengths


@dataclasses.dataclass(frozen=True, kw_only=True)
class Waves(training.Experiment):
    """Classes or targets of waves.

    Attributes:
        kind: Kind of the targets.
        outputs: Number of outputs.
    """

    kind: str = "classes"
    outputs: int = 10


def dataset(experiment):
    rng = np.random.default_rng(0)
    train, test = made(experiment.kind, 48, rng), made(experiment.kind, 21, rng)
    names = tuple("abcdefghij") if experiment.kind.startswith("classes") else None
    return data.from_arrays(
        *train[:2], *test[:2], lengths=(train[2], test[2]), name="waves", class_names=names
    )


def encode(experiment, inputs, key):
    return encoding.series(inputs)


def network(experiment, rngs):
    body = nn.Sequential(
        nn.Linear(4, 16, rngs=rngs), nn.BatchNorm(16), nn.LIF(),
        nn.Linear(16, experiment.outputs, rngs=rngs),
    )  # fmt: skip
    return nn.Network(body, (4,))


TASKS = {
    "classes": training.task.classification,
    "classes per timestep": functools.partial(training.task.classification, per_timestep=True),
    "numbers": training.task.regression,
    "numbers per timestep": functools.partial(training.task.regression, per_timestep=True),
    "labels": training.task.multi_label,
    "labels per timestep": functools.partial(training.task.multi_label, per_timestep=True),
}


def config(kind="classes", **fields):
    # With 2 or 3 outputs XLA:CPU chooses the order of sums by the number of rows.
    outputs = 10 if kind.startswith("classes") else 8
    return Waves(
        name="waves", network=network, dataset=dataset, encode=encode, task=TASKS[kind], kind=kind,
        outputs=outputs, batch=8, eval_batch=8, epochs=1, learning_rate=1e-2, **fields,
    )  # fmt: skip


def command(capsys, *arguments):
    assert cli.main(argv=[*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


FILE = """from tests.training import test_sequences

def config():
    return test_sequences.config({!r})
"""


def evaluated_twice(capsys, folder, path, *options):
    """Results of training in two buckets, and of evaluation in buckets and padded."""
    run, padded = folder / "run", folder / "padded"
    trained = command(capsys, "train", path, "--out", run, "--buckets", 2, *options)
    shutil.copytree(run, padded)
    text = (padded / "config.json").read_text()
    assert '"buckets": 2' in text
    (padded / "config.json").write_text(text.replace('"buckets": 2', '"buckets": 1'))
    found = [command(capsys, "eval", place) for place in (run, padded)]
    return trained, *({k: v for k, v in x.items() if k not in ("run", "seconds")} for x in found)


# Tests of tasks pad each kind; three more runs of the command take them to the slow lane.
@pytest.mark.parametrize(
    "kind",
    [
        "classes per timestep",
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ("classes", "numbers per timestep", "labels per timestep")
        ),
    ],
)
def test_padded_and_bucketed_evaluation_are_equal(kind, tmp_path, capsys):
    """From the command line to the last digit, loss, metrics and firing rates."""
    path, run = tmp_path / "waves.py", tmp_path / "run"
    path.write_text(FILE.format(kind))
    trained, one, two = evaluated_twice(capsys, tmp_path, path)
    assert one == two
    assert one["test_loss"] == trained["test_loss"] and one["firing_rates"]
    names = {"classes": {"accuracy"}, "numbers": {"rmse", "mae"}}
    assert {f"test_{name}" for name in names.get(kind.split()[0], {"f1", "exact_match"})} <= set(
        one
    )
    if "per timestep" in kind:
        shown = command(capsys, "show", run, "--example", 2)["pictures"]
        over_time = "classes_over_time" if "classes" in kind else "predictions_over_time"
        assert over_time in shown and ("predictions" in shown) == ("numbers" in kind)


@pytest.mark.slow  # reads the archive and compiles four programs of sixty steps
def test_spoken_digits_padded_and_bucketed_are_equal(tmp_path, capsys, shared, monkeypatch):
    """The same of real recordings, every 40th of FSDD, with log-mel frames and v1."""
    whole = data.load("fsdd", data_dir=shared("data", "fsdd").parent)
    few = dataclasses.replace(
        whole,
        **{
            name: split.take(np.arange(0, len(split), 40))
            for name, split in (("train", whole.train), ("test", whole.test))
        },
    )
    monkeypatch.setattr(data, "load", lambda name, **options: few)
    path = pathlib.Path(__file__).parents[2] / "experiments" / "fsdd.py"
    options = {"cell": "v1", "layers": 1, "hidden": 16, "batch": 10, "epochs": 1}
    flags = [text for name, value in options.items() for text in (f"--{name}", value)]
    trained, one, two = evaluated_twice(
        capsys, tmp_path, path, *flags, "--lengths", "--eval-batch", 5
    )
    assert one == two and one["test_loss"] == trained["test_loss"] and one["examples"] == 25


def test_a_batch_of_a_bucket_gives_the_step_of_the_padded_batch():
    """Loss, gradient norm, metrics and statistics of a training step."""
    experiment = config()
    program, state = training.initialize(experiment, steps=4)
    split = dataset(experiment).train
    loader = data.Loader(split, batch_size=8, buckets=data.bucket_lengths(split.lengths, 2))
    step = jax.jit(functools.partial(training.train_step, program))
    number = next(n for n in range(loader.steps_per_epoch) if loader.timesteps(n) < LONGEST)
    short, whole = loader.batch(number), split.take(loader.indices(number)[0])
    padded = data.Batch(whole.inputs, whole.labels, short.weights, whole.lengths)
    assert short.inputs.shape[1] < padded.inputs.shape[1] == LONGEST
    (one, a), (two, b) = (jax.device_get(step(state, x)) for x in (short, padded))
    assert (a.loss, a.metrics, a.gradient_norm) == (b.loss, b.metrics, b.gradient_norm)
    for x, y in zip(jax.tree.leaves(one.statistics), jax.tree.leaves(two.statistics), strict=True):
        assert x.tobytes() == y.tobytes()


def refused(experiment, words):
    with pytest.raises(training.errors.ExperimentError, match=words):
        training.prepare(experiment)


def test_wrong_sequences_are_refused_before_work():
    plain = lambda experiment: dataclasses.replace(  # noqa: E731
        dataset(experiment),
        **{name: dataclasses.replace(getattr(dataset(experiment), name), lengths=None)
           for name in ("train", "test")},
    )  # fmt: skip
    refused(dataclasses.replace(config(buckets=2), dataset=plain), "has no lengths")
    refused(config(buckets=0), "at least 1")
    refused(config(mixup=0.5), "equally long")
    longer = lambda e, inputs, key: encoding.series(inputs).repeat(2, 0)  # noqa: E731
    refused(dataclasses.replace(config(), encode=longer), "one frame per timestep")
    stepwise = lambda e, rngs: nn.Network(  # noqa: E731
        nn.Sequential(nn.Linear(4, 10, rngs=rngs), nn.BatchNorm(10, over="step")), (4,)
    )
    refused(dataclasses.replace(config(), network=stepwise), 'over="window"')
    refused(dataclasses.replace(config(), task=TASKS["numbers"]), "regression needs real targets")
    refused(dataclasses.replace(config("labels"), task=TASKS["classes"]), "real targets")
    refused(dataclasses.replace(config(), task=TASKS["labels"]), "multi_label needs floating")
    refused(dataclasses.replace(config("numbers"), task=TASKS["labels"]), "needs 0 and 1")
    refused(dataclasses.replace(config("labels"), outputs=3), "one per label")


X, Y, N = np.zeros((4, 6, 2), np.float32), np.array([0, 1, 0, 1]), np.array([1, 6, 2, 3])


@pytest.mark.parametrize(
    ("lengths", "labels", "error", "words"),
    [
        (N + 1, Y, ValueError, r"lengths\[1\] is 7, outside \[1, 6\]"),
        (N - 1, Y, ValueError, r"lengths\[0\] is 0"),
        (N * 1.0, Y, TypeError, "astype"),
        (N[:2], Y, ValueError, "one number per example"),
        (N, np.zeros((4, 5, 1), np.float32), ValueError, "6 timesteps and targets 5: pad both"),
        (N, np.full((4, 6, 1), np.nan, np.float32), ValueError, "targets.* is nan"),
    ],
)
def test_wrong_lengths_and_targets_are_refused_where_they_are_given(lengths, labels, error, words):
    with pytest.raises(error, match=words):
        data.from_arrays(X, labels, X, labels, lengths=(lengths, lengths))


def test_one_pair_of_lengths_is_wanted():
    with pytest.raises(TypeError, match="pair"):
        data.from_arrays(X, Y, X, Y, lengths=N)
    with pytest.raises(ValueError, match="only one of the splits"):
        data.from_arrays(X, Y, X, Y, lengths=(N, None))


def test_lengths_are_kept_by_files_parts_and_folds(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, train_inputs=X, train_labels=Y, test_inputs=X, test_labels=Y, train_lengths=N,
             test_lengths=N)  # fmt: skip
    found = data.load(str(path))
    assert found.train.lengths.tolist() == N.tolist()
    assert found.train.take(np.array([2, 1])).lengths.tolist() == [2, 6]
    fold = next(iter(data.folds(found, k=2, seed=0)))
    assert sorted([*fold.train.lengths, *fold.test.lengths]) == sorted([*N, *N])


def test_padding_by_hand_is_that_of_pad():
    rows = [np.arange(n)[:, None] + 1 for n in (2, 4, 1)]
    padded, lengths = data.pad(rows, timesteps=5)
    assert lengths.tolist() == [2, 4, 1] and padded.shape == (3, 5, 1)
    valid = np.asarray(readout.mask(lengths, 5)).T
    assert padded[valid].ravel().tolist() == [1, 2, 1, 2, 3, 4, 1] and not padded[~valid].any()
    for wrong, words in [([], "at least one"), ([np.zeros(0)], "at least one"),
                         ([rows[0], rows[0] * 1.0], "length only")]:  # fmt: skip
        with pytest.raises(ValueError, match=words):
            data.pad(wrong)
    with pytest.raises(ValueError, match="more than 3"):
        data.pad(rows, timesteps=3)
