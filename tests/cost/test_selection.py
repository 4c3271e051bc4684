"""What is over budget, what lies on the front, and that the choice does."""

import re

import numpy as np
import pytest

from snnjax import cost

SMALL = cost.Candidate("small", 100, 10.0, 20.0, 0.80)
LARGE = cost.Candidate("large", 400, 40.0, 80.0, 0.90)
POOR = cost.Candidate("poor", 200, 20.0, 40.0, 0.75)


@pytest.mark.parametrize(
    ("budgets", "why"),
    [
        (cost.Budgets(), None),
        (cost.Budgets(bytes=400, inference=40, training=80), None),
        (cost.Budgets(bytes=399), "400 bytes, above 399"),
        (cost.Budgets(inference=30), r"40 nJ per example \(inference\), above 30"),
        (cost.Budgets(training=30), r"80 nJ per example \(training\), above 30"),
    ],
)
def test_over_budget_says_why(budgets, why):
    found = cost.over_budget(LARGE, budgets)
    if why is None:
        assert found is None
    else:
        assert re.fullmatch(why, found or "")


def test_the_front_leaves_out_what_another_beats():
    assert cost.front([SMALL, LARGE, POOR]) == [SMALL, LARGE]
    assert cost.front([SMALL, SMALL._replace(name="twin")]) == [SMALL, SMALL._replace(name="twin")]


def test_the_choice_follows_the_weights():
    everything = [SMALL, LARGE, POOR]
    assert cost.chosen(everything) == LARGE
    assert cost.chosen(everything, bytes_weight=0.2) == SMALL
    assert cost.chosen(everything, energy_weight=0.2) == SMALL
    assert cost.chosen(everything, budgets=cost.Budgets(bytes=4e6), bytes_weight=0.2) == LARGE


def test_equal_accuracies_go_to_the_leaner_one():
    assert cost.chosen([LARGE._replace(accuracy=0.8), SMALL]) == SMALL


def test_the_choice_is_on_the_front():
    draw = np.random.default_rng(0)
    for _ in range(200):
        some = [
            cost.Candidate(str(n), int(draw.integers(1, 5)), *draw.integers(1, 5, 2), a)
            for n, a in enumerate(draw.integers(1, 5, 6) / 5)
        ]
        weights = draw.random(2)
        best = cost.chosen(some, bytes_weight=weights[0], energy_weight=weights[1])
        assert best in cost.front(some)


def test_nothing_measured_and_negative_weights_are_refused():
    with pytest.raises(ValueError, match="nothing was measured"):
        cost.chosen([SMALL._replace(accuracy=None)])
    with pytest.raises(ValueError, match="at least 0"):
        cost.chosen([SMALL], bytes_weight=-1)
