"""Divisions of a data set: k folds, each example tested once, and held-out training examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from snnjax.data._recordings import Recordings
from snnjax.data.dataset import Dataset, Split, require, whole_number


def folds(dataset: Dataset, *, k: int = 5, seed: int = 0) -> Iterator[Dataset]:
    """Splits the data set `k` times into training and test folds, stratified by class.

    For small data sets whose published test split cannot tell two methods apart. Training and test
    examples are pooled; fold `i` is the test split of the `i`-th data set.

    Args:
        dataset: Data set of arrays or event recordings.
        k: Number of folds.
        seed: Seed of the division. Keep it when comparing methods; it is not the training seed.

    Returns:
        An iterator of `k` data sets.

    Raises:
        ValueError: If examples are grouped (by person), since folds would divide groups, have no
            classes, or a class has fewer than `k` examples.
    """
    require("dataset", dataset, Dataset)
    whole_number("k", k, least=2)
    whole_number("seed", seed, least=0)
    if not dataset.classes:
        raise ValueError(
            f"{dataset.name} has real targets, and folds keep the share of each class: cut its "
            "arrays yourself, and make each fold by data.from_arrays"
        )
    if dataset.train.groups is not None or dataset.test.groups is not None:
        raise ValueError(
            f"{dataset.name} is divided by group: folds would put examples of one group on both "
            "sides and flatter the result; use its own split"
        )
    labels = np.concatenate([dataset.train.labels, dataset.test.labels])
    counts = np.bincount(labels.ravel(), minlength=1)
    # scikit-learn only warns: some folds would be without the class.
    if counts[counts > 0].min(initial=len(labels)) < k:
        rare = int(np.argmax((counts > 0) & (counts < k)))
        raise ValueError(
            f"{dataset.name}: class {rare} has {counts[rare]} examples, too few for {k} folds: "
            "choose a smaller k, or leave the class out"
        )
    # The generator is a function of its own, so that the error above is raised on the call.
    return _folds(dataset, k, seed)


def hold_out(dataset: Dataset, *, share: float = 0.1, seed: int = 0) -> Dataset:
    """Holds training examples out as the test split, for decisions that must not see the test.

    The share of each class is that of the training split, to within one example; whole groups are
    held out where examples are grouped. Without classes the choice is random.

    Args:
        dataset: Data set; its test split does not enter the result.
        share: Share of the training examples, or of their groups, in (0, 1).
        seed: Seed of the choice.

    Returns:
        The data set with fewer training examples, and the held-out ones as its test split.

    Raises:
        ValueError: If the share is outside (0, 1), or leaves one of the splits empty.
    """
    require("dataset", dataset, Dataset)
    whole_number("seed", seed, least=0)
    if not 0 < share < 1:
        raise ValueError(f"share lies in (0, 1), got {share}: 0.1 is usual")
    train, draw = dataset.train, np.random.default_rng(seed)
    held = np.zeros(len(train), bool)
    if train.groups is not None:
        groups = np.unique(train.groups)
        held = np.isin(train.groups, draw.permutation(groups)[: round(share * len(groups))])
    else:
        single = dataset.classes and train.labels.ndim == 1
        kinds = train.labels if single else np.zeros(len(train), np.int32)
        for kind in np.unique(kinds):
            own = draw.permutation(np.flatnonzero(kinds == kind))
            held[own[: round(share * len(own))]] = True
    if held.all() or not held.any():
        raise ValueError(
            f"{dataset.name}: a share of {share} leaves nothing of {len(train)} training examples "
            "in one of the parts: choose another share"
        )
    return dataclasses.replace(dataset, train=train.take(~held), test=train.take(held))


def _folds(dataset: Dataset, k: int, seed: int) -> Iterator[Dataset]:
    from sklearn.model_selection import StratifiedKFold

    pool = _pool(dataset.train, dataset.test)
    division = StratifiedKFold(k, shuffle=True, random_state=seed)
    for train, test in division.split(np.zeros(len(pool)), pool.labels):
        yield dataclasses.replace(dataset, train=pool.take(train), test=pool.take(test))


def _pool(train: Split, test: Split) -> Split:
    labels = np.concatenate([train.labels, test.labels])
    # A data set has lengths in both splits or in none.
    pair = [split.lengths for split in (train, test) if split.lengths is not None]
    lengths = np.concatenate(pair) if pair else None
    if isinstance(train.inputs, np.ndarray):
        inputs: Any = np.concatenate([train.inputs, np.asarray(test.inputs)])
    elif isinstance(train.inputs, Recordings) and isinstance(test.inputs, Recordings):
        # Joined lazily: a tuple would read every recording into memory.
        inputs = train.inputs + test.inputs
    else:
        inputs = (*train.inputs, *test.inputs)
    return Split(inputs, labels, lengths=lengths)
