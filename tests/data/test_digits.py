"""The embedded digits: offline, with a fixed split."""

import hashlib
import importlib.util

import numpy as np
import pytest
from sklearn import datasets, model_selection

from snnjax import data
from snnjax.data import _digits as digits_file

pytestmark = pytest.mark.fast


def test_shapes_and_range():
    digits = data.load("digits")
    assert digits.train.inputs.shape == (1437, 8, 8, 1)
    assert digits.test.inputs.shape == (360, 8, 8, 1)
    assert digits.train.inputs.dtype == np.uint8
    assert digits.train.inputs.max() == 16
    assert digits.input_shape == (8, 8, 1) and digits.classes == 10
    np.testing.assert_allclose(float(data.rescale(digits.train.inputs, digits.scale).max()), 1.0)


def test_the_split_is_stratified_and_never_moves():
    digits = data.load("digits")
    share = np.bincount(digits.test.labels) / np.bincount(digits.train.labels)
    np.testing.assert_allclose(share, 0.25, atol=0.01)
    digest = hashlib.sha256(digits.test.inputs.tobytes() + digits.test.labels.tobytes())
    assert digest.hexdigest().startswith("b73ad886c973a728")


def refused():
    raise AssertionError("scikit-learn was imported, which takes seconds")


def test_it_is_what_scikit_learn_loads_and_splits_without_importing_it(monkeypatch):
    images, labels = datasets.load_digits(return_X_y=True)
    numbers = np.arange(len(labels))
    parts = model_selection.train_test_split(
        numbers, test_size=0.2, stratify=labels, random_state=0
    )
    with monkeypatch.context() as patch:
        patch.setattr(digits_file, "_load_from_sklearn", refused)
        digits = data.load("digits")
    for split, part in zip((digits.train, digits.test), parts, strict=True):
        np.testing.assert_array_equal(split.inputs.reshape(-1, 64), images[part])
        np.testing.assert_array_equal(split.labels, labels[part])
    # A version that keeps its file elsewhere is asked for it.
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    again = data.load("digits")
    np.testing.assert_array_equal(again.test.inputs, digits.test.inputs)
    assert again.test.inputs.dtype == np.uint8 and again.test.labels.dtype == np.int32
