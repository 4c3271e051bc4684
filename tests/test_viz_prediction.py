"""Scatter plots of predictions against targets."""

import numpy as np
import pytest

from snnjax import viz


def test_one_panel_per_target_with_its_error():
    targets = np.linspace(0, 1, 20).reshape(10, 2)
    figure = viz.predictions(targets + [0.1, 0.0], targets, names=["f", "s"])
    assert [axis.get_xlabel() for axis in figure.axes] == ["f", "s"]
    assert "f RMSE 0.1" in figure.get_label() and "s RMSE 0" in figure.get_label()
    points = figure.axes[0].lines[1]
    np.testing.assert_allclose(points.get_xdata(), targets[:, 0], rtol=1e-6)
    np.testing.assert_allclose(points.get_ydata(), targets[:, 0] + 0.1, rtol=1e-6)


def test_many_targets_are_spread_over_four_panels():
    targets = np.random.default_rng(0).normal(size=(5, 9))
    assert len(viz.predictions(targets, targets).axes) == 4


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="predictions must be"):
        viz.predictions(np.zeros((3, 2)), np.zeros((3, 1)))


def test_predictions_over_time_have_a_panel_per_target():
    targets = np.linspace(0, 1, 20).reshape(10, 2)
    figure = viz.predictions_over_time(targets + [0.1, 0.0], targets, names=["f", "s"])
    assert "f RMSE 0.1" in figure.get_label() and "s RMSE 0" in figure.get_label()
    target, prediction = figure.axes[0].lines[:2]
    np.testing.assert_allclose(prediction.get_ydata() - target.get_ydata(), 0.1, rtol=1e-5)
    assert len(viz.predictions_over_time(np.zeros((5, 9)), np.zeros((5, 9))).axes) == 4
    with pytest.raises(ValueError, match="predictions must be"):
        viz.predictions_over_time(np.zeros((3, 2)), np.zeros((4, 2)))


def test_classes_over_time_mark_wrong_answers():
    labels, answers = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0])
    figure = viz.classes_over_time(answers, labels, names=["a", "b", "c"])
    assert "50.00% right" in figure.get_label()
    wrong = figure.axes[0].lines[2]
    assert wrong.get_xdata().tolist() == [1, 3] and wrong.get_ydata().tolist() == [1, 0]
    with pytest.raises(ValueError, match="answers must be"):
        viz.classes_over_time(answers[:2], labels)
