"""Null, normal, noise: the rule, its edges, and what it says of a bright object."""

import numpy as np
import pytest

from snnjax import redundancy
from snnjax.redundancy.classes import CLASSES, classify
from snnjax.redundancy.classes import shares as shares_by_name


def classes(*maps, **thresholds):
    """Names of the classes of some maps, each a list of rates."""
    actual = classify(np.asarray(maps).T, thresholds=redundancy.Thresholds(**thresholds))
    return [CLASSES[number] for number in actual]


def test_the_three_kinds():
    saturated, object_, silent = [0.9, 1.0, 0.95, 0.9], [0.0, 1.0, 0.05, 0.0], [0, 0, 0, 2e-3]
    assert classes(saturated, object_, silent) == ["noise", "normal", "null"]


def test_a_bright_object_is_no_noise_while_it_covers_less_than_the_area():
    """A mean would not tell: 0.45 of the places always alight against 0.55 of them at 0.6."""
    bright, busy = [1.0] * 9 + [0.0] * 11, [0.6] * 11 + [0.0] * 9
    assert np.mean(bright) > np.mean(busy)
    assert classes(bright, busy) == ["normal", "noise"]
    assert classes(bright, busy, noise_area=0.4, noise_rate=0.7) == ["noise", "normal"]


def test_the_edges_belong_to_normal_but_for_the_area():
    assert classes([1e-3] * 4, [0.5] * 4) == ["normal", "normal"]
    assert classes([0.6, 0.6, 0.1, 0.1]) == ["noise"]
    assert classes([0.6, 0.1, 0.1, 0.1]) == ["normal"]


def test_neurons_without_a_place_are_maps_of_one_place():
    assert classes([0.0], [0.3], [0.7]) == ["null", "normal", "noise"]


def test_any_axes_in_front_and_shares_that_sum_to_one():
    maps = np.random.default_rng(0).random((3, 6, 5)) ** 3
    maps[1, :, 2], maps[2, :, 4] = 0.0, 1.0
    actual = classify(maps)
    assert actual.shape == (3, 5) and actual[1, 2] == 0 and actual[2, 4] == 2
    shares = shares_by_name(actual)
    assert list(shares) == ["null", "normal", "noise"]
    assert sum(shares.values()) == pytest.approx(1) and shares["null"] == pytest.approx(1 / 15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"null_rate": 0.0}, "null_rate lies in"),
        ({"noise_area": 1.5}, "noise_area lies in"),
        ({"null_rate": 0.3}, "null and noise at once"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        redundancy.Thresholds(**options)
