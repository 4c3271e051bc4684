"""Receptive fields: positions of neurons, and scale of grey."""

import numpy as np
import pytest

from snnjax import viz

WEIGHTS = np.random.default_rng(0).random((12, 7)) * 0.1


def pixels(figure):
    (image,) = figure.axes[0].get_images()
    return np.ma.filled(image.get_array(), np.nan)


def test_neurons_are_laid_out_row_by_row():
    image = pixels(viz.plasticity.receptive_fields(WEIGHTS, (3, 4), title="mine"))
    assert image.shape == (3 * 4 - 1, 3 * 5 - 1)  # three rows of three, gaps between them
    for j in range(7):
        top, left = 4 * (j // 3), 5 * (j % 3)
        tile = image[top : top + 3, left : left + 4]
        np.testing.assert_allclose(tile, WEIGHTS[:, j].reshape(3, 4), rtol=1e-6)
    assert np.isnan(image[3]).all() and np.isnan(image[-1, -1])


def test_many_neurons_are_spread():
    figure = viz.plasticity.receptive_fields(np.ones((4, 50)), (2, 2), limit=9)
    assert pixels(figure).shape == (8, 8)
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert any("9 of 50 neurons shown" in text for text in texts)


def test_all_zeros_can_be_drawn():
    assert np.nanmax(pixels(viz.plasticity.receptive_fields(np.zeros((4, 2)), (2, 2)))) == 0


def test_a_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"weights must be \[6, N\]"):
        viz.plasticity.receptive_fields(WEIGHTS, (2, 3))
