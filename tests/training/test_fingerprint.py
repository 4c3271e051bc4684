"""A run goes on with the data that it was trained on, or says that it does not."""

import dataclasses
import functools
import json
import operator
import pickle

import numpy as np
import pytest

from snnjax import data, training
from snnjax.training import _fingerprint as fingerprint
from tests.training import micro
from tests.training.conftest import make
from tests.training.test_loop import fresh, stop_after


def with_data(session, change):
    """The session with changed arrays `{name: array}` of a split."""
    dataset = session.dataset
    arrays = {
        f"{split}_{name}": np.array(getattr(getattr(dataset, split), name))
        for split in ("train", "test")
        for name in ("inputs", "labels")
    }
    change(arrays)
    splits = {
        split: data.dataset.Split(arrays[f"{split}_inputs"], arrays[f"{split}_labels"])
        for split in ("train", "test")
    }
    return dataclasses.replace(fresh(session), dataset=dataclasses.replace(dataset, **splits))


def one_label(arrays):
    arrays["test_labels"][7] = (arrays["test_labels"][7] + 1) % 10


def order(arrays):
    for name in arrays:
        if name.startswith("train"):
            arrays[name] = arrays[name][::-1]


def inputs(arrays):
    arrays["test_inputs"][-1] += 1


def dtype(arrays):
    for name in ("train_inputs", "test_inputs"):
        arrays[name] = arrays[name].astype(np.float32)


def fewer(arrays):
    for name in ("test_inputs", "test_labels"):
        arrays[name] = arrays[name][:-1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (one_label, "test examples have other labels"),
        (order, "training examples have other labels"),
        (inputs, "test examples have other inputs"),
        (dtype, "training examples have other inputs"),
        (fewer, "359 test examples instead of 360"),
    ],
)
def test_a_run_is_not_resumed_on_other_data(compiled, run, change, words):
    training.fit(fresh(compiled), run, stop=stop_after(3))
    before = {p.name: p.read_bytes() for p in run.path.iterdir() if p.is_file()}
    with pytest.raises(training.errors.RunError, match=f"{words}.*--other-data"):
        training.fit(with_data(compiled, change), run)
    assert {p.name: p.read_bytes() for p in run.path.iterdir() if p.is_file()} == before


def test_other_data_that_are_allowed_are_recorded(compiled, run):
    first = training.fit(fresh(compiled), run, stop=stop_after(5))
    assert first.best_step == 5
    said = []
    result = training.fit(
        with_data(compiled, one_label), run, allow_other_data=True, warn=said.append
    )
    assert "goes on with other data" in said[0]
    # Evaluations on the data of before do not count.
    assert result.best_step == 10
    (record,) = [r for r in run.records() if r["kind"] == "data"]
    assert record["step"] == 5 and "other labels" in record["changed"][0]
    entries = json.loads((run.path / "data.json").read_text())
    assert [(e["step"], e["allowed"]) for e in entries] == [(0, False), (5, True)]
    assert result.other_data == [5]
    said.clear()
    session = with_data(compiled, one_label)
    session.warn_of_other_data(run, warn=said.append)
    assert len(said) == 1 and "up to step 5" in said[0]
    # The new data are those of the run now.
    assert training.fit(session, run).best_step == 10
    with pytest.raises(training.errors.RunError, match="other labels"):
        training.fit(fresh(compiled), run)


def test_a_damaged_fingerprint_is_no_permission(compiled, run):
    training.fit(fresh(compiled), run, stop=stop_after(3))
    for text in ("{", "[1]", '[{"step": 0}]', "{}", "null", "\udcff"):
        (run.path / "data.json").write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(training.errors.RunError, match="data.json is damaged.*--other-data"):
            training.fit(fresh(compiled), run)
    assert training.fit(fresh(compiled), run, allow_other_data=True).other_data == [3]
    assert training.fit(fresh(compiled), run).other_data == [3]


def test_a_run_without_a_fingerprint_says_so_and_gets_one(compiled, run):
    training.fit(fresh(compiled), run, stop=stop_after(3))
    (run.path / "data.json").unlink()
    said = []
    training.fit(fresh(compiled), run, stop=stop_after(1), warn=said.append)
    assert "no fingerprint of its data" in said[0]
    with pytest.raises(training.errors.RunError, match="other data"):
        training.fit(with_data(compiled, one_label), run)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folds(micro.Micro):
    """Fields that a data set may depend on."""

    fold: int = 0
    noise: float = 0.0
    classes: tuple[int, ...] = (0, 1)

    def folder(self):
        """Reads fields in a method."""
        return f"{self.fold}{self.classes}"


def folded(experiment, *, read):
    """Reads some fields; the data are always the same."""
    assert isinstance(experiment, Folds)
    # As for a process that loads examples.
    assert type(pickle.loads(pickle.dumps(experiment))) is Folds
    read(experiment)
    return data.load("digits", data_dir=experiment.data_dir)


def shorter(experiment):
    return dataclasses.replace(experiment, epochs=1)


READS = [
    (id, {}),
    (operator.attrgetter("fold"), {"fold": 0}),
    (operator.methodcaller("folder"), {"fold": 0, "classes": [0, 1]}),
    (operator.attrgetter("noise", "network"), {"noise": 0.0}),
    # As a whole: fields of training say nothing about the data.
    (hash, {"fold": 0, "noise": 0.0, "classes": [0, 1], "width": 8}),
    (shorter, {"fold", "noise", "classes", "width"}),
]


@pytest.mark.fast
@pytest.mark.parametrize(("read", "expected"), READS)
def test_fields_that_a_data_set_reads_are_recorded(read, expected):
    base = {f.name: getattr(make(), f.name) for f in dataclasses.fields(make())}
    experiment = Folds(**base | {"dataset": functools.partial(folded, read=read)})
    reader = fingerprint.Reader(experiment)
    dataset = training.config.load_dataset(reader.experiment)
    here = fingerprint.fingerprint(dataset, reader.fields())
    assert set(here["fields"]) == set(expected)
    if isinstance(expected, dict):
        assert here["fields"] == expected
    assert fingerprint.compare(here, here) == []
    other = json.loads(json.dumps(here)) | {"fields": {"fold": 1, "epochs": 3}}
    differing = ["fold is 0 and was 1"] if "fold" in expected else []
    assert fingerprint.compare(here, other) == differing


@pytest.mark.fast
def test_recordings_and_computed_inputs_have_a_fingerprint():
    events = [np.full((n, 4), 1, np.int32) for n in range(1, 9)]
    labels = np.arange(8) % 2
    recordings = data.from_arrays(events, labels, events, labels, input_shape=(8, 8, 2))
    computed = data.map_inputs(recordings, lambda e, rng: np.full((3, 8, 8, 2), len(e)))
    prints = [fingerprint.fingerprint(d, {}) for d in (recordings, computed)]
    assert prints == [fingerprint.fingerprint(d, {}) for d in (recordings, computed)]
    assert prints[0]["train"]["inputs"] != prints[1]["train"]["inputs"]
    assert prints[0]["train"]["labels"] == prints[1]["train"]["labels"]
