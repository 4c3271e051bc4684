"""The embedded data set: 1,797 handwritten digits of 8x8 pixels, at hand without a network.

Reference:
    E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
    Repository, 1998; the copy that scikit-learn installs.
"""

from __future__ import annotations

import numpy as np

from snnjax.data.dataset import Dataset, Split

_SPLIT_SEED = 0  # a constant: the test set must not move with the seed of a training run


def load_digits() -> Dataset:
    """Loads scikit-learn's digits: 1,437 to train on and 360 to test, stratified by class.

    Returns:
        Inputs `[N, 8, 8, 1]` uint8 in 0..16; `scale` is 1/16.
    """
    from sklearn import datasets, model_selection

    images, labels = datasets.load_digits(return_X_y=True)
    images = images.astype(np.uint8).reshape(-1, 8, 8, 1)
    labels = labels.astype(np.int32)
    train, test = model_selection.train_test_split(
        np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=_SPLIT_SEED
    )
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
