"""The embedded data set: 1,797 handwritten digits of 8x8 pixels, installed with scikit-learn.

Reference:
    E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
    Repository, 1998; the copy of scikit-learn.
"""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from snnjax.data.dataset import Dataset, Split

__all__ = ["load_digits"]

_TRAIN = 1437


def load_digits() -> Dataset:
    """Loads scikit-learn's digits: 1,437 training and 360 test images, stratified by class.

    The split is that of `model_selection.train_test_split(test_size=0.2, stratify=labels,
    random_state=0)`, stored in `digits_split.npy` so that it does not depend on the version of
    scikit-learn.

    Returns:
        Inputs `[N, 8, 8, 1]` uint8 in 0..16; `scale` is 1/16.
    """
    images, labels = _read_file()
    # The file holds whole numbers as text, which NumPy parses to float64: 8 bits suffice.
    images = images.astype(np.uint8).reshape(-1, 8, 8, 1)
    labels = labels.astype(np.int32)
    train, test = np.split(np.load(Path(__file__).with_name("digits_split.npy")), [_TRAIN])
    return Dataset(
        name="digits",
        train=Split(images[train], labels[train]),
        test=Split(images[test], labels[test]),
        classes=10,
        class_names=tuple("0123456789"),
        input_shape=(8, 8, 1),
        scale=1 / 16,
        note="8x8 digits of E. Alpaydin and C. Kaynak, UCI, 1998, as installed with scikit-learn; "
        "stratified 80/20 split of our own, so compare accuracies only with this split.",
    )


def _read_file() -> tuple[Any, Any]:
    """Pixels `[1797, 64]` and labels `[1797]`."""
    # Importing scikit-learn takes longer than compiling the first network: read its file directly.
    spec = importlib.util.find_spec("sklearn")
    folders = (spec and spec.submodule_search_locations) or []
    for path in (Path(folder, "datasets", "data", "digits.csv.gz") for folder in folders):
        if path.exists():
            with gzip.open(path, "rt") as file:
                table = np.loadtxt(file, delimiter=",")
            return table[:, :-1], table[:, -1]
    return _load_from_sklearn()


def _load_from_sklearn() -> tuple[Any, Any]:
    """The same arrays through the API, for versions of scikit-learn that move the file."""
    # Without scikit-learn this import raises the error that names the missing package.
    from sklearn import datasets

    arrays: Any = datasets.load_digits(return_X_y=True)
    return arrays
