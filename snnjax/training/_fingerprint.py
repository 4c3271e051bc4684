"""Fingerprint of the data of a run, so that it is not resumed on other data unnoticed.

    data.json
        [{"step": 0, "allowed": false,
          "fields": {"fold": 0},                                   fields that dataset() read
          "train": {"examples", "labels", "sample", "inputs"}, "test": {...}}, ...]

A run that is resumed with another split may be evaluated on examples that it was trained on. The
fingerprint has the number of examples, the SHA-256 of all labels, groups and lengths, and that of
a sample of inputs; and the plain fields of the experiment that its `dataset()` read, except
`data_dir`: the same data may lie in another folder. Each entry of data.json holds from its step on;
all but the first were allowed explicitly, or belong to a run of an earlier version.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from snnjax import data
from snnjax.training.config import plain_values
from snnjax.training.errors import RunError, user_code
from snnjax.training.experiment import BaseExperiment, Experiment
from snnjax.training.multihost import broadcast
from snnjax.training.run import Run

__all__ = [
    "Reader",
    "allowed_steps",
    "check_data",
    "compare",
    "fingerprint",
    "recorded",
    "warn_of_other_data",
]

NAME = "data.json"
# Inputs of a sample: at most this many bytes, but at least this many examples.
_SAMPLE_BYTES = 32 * 2**20
_SAMPLE_EXAMPLES = 32
# Location of the data, not their content.
_LOCATION = {"data_dir"}


class Reader:
    """Experiment whose `dataset()` is called with a copy that records the fields it reads.

    Attributes:
        experiment: The experiment, with a `dataset` that records.
        names: Names of the fields read so far.
    """

    def __init__(self, experiment: BaseExperiment):
        self.names: set[str] = set()
        self._load = experiment.dataset
        self.experiment = dataclasses.replace(experiment, dataset=self._call)

    def fields(self) -> dict[str, Any]:
        """Values of the plain fields read, in the form of config.json."""
        values = plain_values(self.experiment)
        read = self.names & set(values)
        of_training = {field.name for field in dataclasses.fields(Experiment)} & set(values)
        if 2 * len(read & of_training) > len(of_training):
            # Read as a whole, by a hash or a copy: fields of training say nothing about data.
            read -= of_training
        return {name: values[name] for name in read - _LOCATION}

    def _call(self, experiment: BaseExperiment) -> data.Dataset:
        kind: Any = type(experiment)
        names = self.names
        known = {field.name for field in dataclasses.fields(experiment)}

        def read(self: Any, name: str) -> Any:
            if name in known:
                names.add(name)
            return kind.__getattribute__(self, name)

        plain = dataclasses.replace(experiment, dataset=self._load)
        space = {
            "__getattribute__": read,
            # Worker processes get the experiment itself.
            "__reduce_ex__": lambda self, protocol: (_identity, (plain,)),
            # A frozen value is its own copy, and goes on recording.
            "__copy__": lambda self: self,
            "__deepcopy__": lambda self, memo: self,
            "__slots__": (),
            "__module__": kind.__module__,
        }
        # A subclass, so that isinstance and the methods of a user's class work as before.
        recording = type(kind)(kind.__name__, (kind,), space)
        watched = copy.copy(plain)
        object.__setattr__(watched, "__class__", recording)
        return self._load(watched)


def _identity(value: Any) -> Any:
    return value


def fingerprint(dataset: data.Dataset, fields: dict[str, Any]) -> dict[str, Any]:
    """Fingerprint of a data set.

    Args:
        dataset: The data set.
        fields: Plain fields that `dataset()` read, by name, in the form of config.json.
    """
    return {
        # Through JSON, to compare with a fingerprint that was read from a file.
        "fields": json.loads(json.dumps(fields)),
        "train": _split_fingerprint(dataset.train),
        "test": _split_fingerprint(dataset.test),
    }


def compare(here: dict[str, Any], recorded: dict[str, Any]) -> list[str]:
    """Differences between two fingerprints, each in a few words; empty if there is none."""
    fields, before = here["fields"], recorded["fields"]
    differing = [
        f"{name} is {fields[name]!r} and was {before[name]!r}"
        for name in sorted(fields.keys() & before.keys())
        if fields[name] != before[name]
    ]
    for split, words in (("train", "training"), ("test", "test")):
        ours, theirs = here[split], recorded[split]
        if ours["examples"] != theirs["examples"]:
            differing.append(
                f"there are {ours['examples']} {words} examples instead of {theirs['examples']}"
            )
        elif ours["labels"] != theirs["labels"]:
            differing.append(f"the {words} examples have other labels")
        elif ours != theirs:
            differing.append(f"the {words} examples have other inputs")
    return differing


def check_data(
    run: Run,
    measure: Callable[[], dict[str, Any]],
    *,
    step: int,
    allow: bool,
    warn: Callable[[str], None],
) -> list[str]:
    """Compares the data of a run with those that it was trained on, and records them.

    Args:
        run: The run.
        measure: Function that returns the fingerprint of the present data.
        step: Step that training goes on from.
        allow: True to accept other data, which data.json then records.
        warn: Called with a sentence about accepted data, and about a run without a fingerprint.

    Returns:
        The accepted differences.

    Raises:
        RunError: The data differ and are not allowed to.
    """

    def decide() -> str:
        here = measure()
        entry = {"step": step, "allowed": False, **here}
        try:
            entries = recorded(run)
            differing = compare(here, entries[-1]) if entries else []
        except RunError:
            if not allow:
                raise
            entries, differing = [], [f"{NAME} was damaged"]
        if differing and not allow:
            raise RunError(
                f"{run.path} was trained on other data ({'; '.join(differing)}), and its test "
                "examples may be among those: resume it with the options and files of before, "
                "train anew into another --out, or accept the mixture by --other-data"
            )
        if differing:
            warn(f"training goes on with other data ({'; '.join(differing)})")
            entry |= {"allowed": True, "changed": differing}
        elif not entries and step:
            warn(
                f"{run.path} has no fingerprint of its data, since an earlier version made it: "
                "they are taken for the same"
            )
        if differing or not entries:
            run.write_json(NAME, [*entries, entry])
        return json.dumps(differing)

    # Process 0 compares: the file systems of the others may lag behind.
    return json.loads(broadcast(decide))


def warn_of_other_data(
    run: Run, measure: Callable[[], dict[str, Any]], *, warn: Callable[[str], None]
) -> None:
    """Warns if a run is inspected with other data than it was trained on.

    Args:
        run: The run.
        measure: Function that returns the fingerprint of the present data.
        warn: Called with a sentence about each difference.
    """
    try:
        entries = recorded(run)
    except RunError as error:
        warn(str(error))
        return
    if entries and (differing := compare(measure(), entries[-1])):
        warn(
            f"{run.path} was trained on other data ({'; '.join(differing)}), and these test "
            "examples may be among them"
        )
    for step in allowed_steps(run):
        warn(
            f"{run.path} was trained on other data up to step {step} (--other-data), and its test "
            "examples may be among those"
        )


def allowed_steps(run: Run) -> list[int]:
    """Steps after which a run went on with other data, by the option that allows it."""
    try:
        return [entry["step"] for entry in recorded(run) if entry["allowed"]]
    except RunError:
        return []


def recorded(run: Run) -> list[dict[str, Any]]:
    """Entries of data.json; empty without one.

    Raises:
        RunError: The file is damaged.
    """
    try:
        entries = run.read_json(NAME)
        if entries is None and not (run.path / NAME).exists():
            return []
        return _checked(entries)
    except (RunError, TypeError, KeyError, AttributeError) as error:
        raise RunError(
            f"{run.path / NAME} is damaged, so that nobody knows whether the data are those that "
            "the run was trained on: bring it back from a copy, or accept the present data by "
            "--other-data"
        ) from error


def _checked(entries: Any) -> list[dict[str, Any]]:
    """Entries of data.json.

    Raises:
        TypeError, KeyError, AttributeError: The value is anything else.
    """
    if not isinstance(entries, list) or not entries:
        raise TypeError("no list of entries")
    for entry in entries:
        # A comparison with itself meets every missing or wrong field.
        compare(entry, entry)
        _ = entry["step"], entry["allowed"]
    return entries


def _split_fingerprint(split: data.Split) -> dict[str, Any]:
    labels, inputs = hashlib.sha256(), hashlib.sha256()
    _add(labels, split.labels)
    if split.groups is not None:
        _add(labels, split.groups)
    if split.lengths is not None:
        _add(labels, split.lengths)
    with user_code("reading an input of the data set"):
        places = _sample(split)
        for place in places:
            _add(inputs, split.inputs[int(place)])
    return {
        "examples": len(split),
        "labels": labels.hexdigest(),
        "sample": len(places),
        "inputs": inputs.hexdigest(),
    }


def _sample(split: data.Split) -> np.ndarray:
    """Indices of evenly spaced examples, the first and the last among them."""
    size = max(np.asarray(split.inputs[0]).nbytes, 1)
    count = min(len(split), max(_SAMPLE_BYTES // size, _SAMPLE_EXAMPLES))
    # Inputs computed or read on access take much longer than those in memory.
    if not isinstance(split.inputs, np.ndarray):
        count = min(count, _SAMPLE_EXAMPLES)
    return np.unique(np.linspace(0, len(split) - 1, count).round().astype(np.int64))


def _add(words: Any, array: Any) -> None:
    """Adds dtype, shape and content of an array to a digest."""
    array = np.ascontiguousarray(array)
    words.update(f"{array.dtype.str}{array.shape}".encode())
    words.update(array.tobytes())
