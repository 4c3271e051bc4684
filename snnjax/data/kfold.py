"""Cross-validation over all examples of a data set, each once in a test fold."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from snnjax.data.dataset import Dataset, Split
from snnjax.data.recordings import Recordings


def folds(dataset: Dataset, *, k: int = 5, seed: int = 0) -> Iterator[Dataset]:
    """Divides all examples anew, `k` times, keeping the share of each class.

    For small sets whose published test split is too small to tell two methods apart. Training and
    test examples are pooled; fold `i` is the test split of the `i`-th data set.

    Args:
        dataset: Arrays or event recordings.
        k: The number of folds.
        seed: How to divide. Keep it when comparing methods; it is not the seed of the training.

    Returns:
        An iterator of `k` data sets.

    Raises:
        ValueError: Where examples come in groups (people), which folds would cut through, or have
            no classes.
    """
    if not dataset.classes:
        raise ValueError(
            f"{dataset.name} has real targets, and folds keep the share of each class: cut its "
            "arrays yourself, and make each fold by data.from_arrays"
        )
    if dataset.train.groups is not None:
        raise ValueError(
            f"{dataset.name} is divided by group: folds would put examples of one group on both "
            "sides and flatter the result; use its own split"
        )
    return _folds(dataset, k, seed)


def _folds(dataset: Dataset, k: int, seed: int) -> Iterator[Dataset]:
    from sklearn.model_selection import StratifiedKFold

    pool = _pool(dataset.train, dataset.test)
    division = StratifiedKFold(k, shuffle=True, random_state=seed)
    for train, test in division.split(np.zeros(len(pool)), pool.labels):
        yield dataclasses.replace(dataset, train=pool.take(train), test=pool.take(test))


def _pool(train: Split, test: Split) -> Split:
    labels = np.concatenate([train.labels, test.labels])
    if isinstance(train.inputs, np.ndarray):
        return Split(np.concatenate([train.inputs, np.asarray(test.inputs)]), labels)
    if isinstance(train.inputs, Recordings) and isinstance(test.inputs, Recordings):
        return Split(train.inputs + test.inputs, labels)
    return Split((*train.inputs, *test.inputs), labels)
