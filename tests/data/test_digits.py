"""The embedded digits: offline, and divided once and for all."""

import hashlib

import numpy as np
import pytest

from snnjax import data

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
