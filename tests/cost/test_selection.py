"""Budgets, the Pareto front, and the choice on it."""

import re

import numpy as np
import pytest

from snnjax import cost

SMALL = cost.selection.Candidate("small", 100, 10.0, 20.0, 0.80)
LARGE = cost.selection.Candidate("large", 400, 40.0, 80.0, 0.90)
POOR = cost.selection.Candidate("poor", 200, 20.0, 40.0, 0.75)


@pytest.mark.parametrize(
    ("budgets", "why"),
    [
        (cost.selection.Budgets(), None),
        (cost.selection.Budgets(bytes=400, inference=40, training=80), None),
        (cost.selection.Budgets(bytes=399), "400 bytes, above 399"),
        (cost.selection.Budgets(inference=30), r"40 nJ per example \(inference\), above 30"),
        (cost.selection.Budgets(training=30), r"80 nJ per example \(training\), above 30"),
    ],
)
def test_over_budget_says_why(budgets, why):
    actual = cost.selection.check_budgets(LARGE, budgets)
    if why is None:
        assert actual is None
    else:
        assert re.fullmatch(why, actual or "")


def test_the_front_leaves_out_what_another_beats():
    assert cost.selection.pareto_front([SMALL, LARGE, POOR]) == [SMALL, LARGE]
    assert cost.selection.pareto_front([SMALL, SMALL._replace(name="twin")]) == [
        SMALL,
        SMALL._replace(name="twin"),
    ]


def test_the_choice_follows_the_weights():
    everything = [SMALL, LARGE, POOR]
    assert cost.selection.choose(everything) == LARGE
    assert cost.selection.choose(everything, bytes_weight=0.2) == SMALL
    assert cost.selection.choose(everything, energy_weight=0.2) == SMALL
    assert (
        cost.selection.choose(
            everything, budgets=cost.selection.Budgets(bytes=4e6), bytes_weight=0.2
        )
        == LARGE
    )


def test_equal_accuracies_go_to_the_leaner_one():
    assert cost.selection.choose([LARGE._replace(accuracy=0.8), SMALL]) == SMALL


def test_the_choice_is_on_the_front():
    draw = np.random.default_rng(0)
    for _ in range(200):
        some = [
            cost.selection.Candidate(str(n), int(draw.integers(1, 5)), *draw.integers(1, 5, 2), a)
            for n, a in enumerate(draw.integers(1, 5, 6) / 5)
        ]
        weights = draw.random(2)
        best = cost.selection.choose(some, bytes_weight=weights[0], energy_weight=weights[1])
        assert best in cost.selection.pareto_front(some)


def test_nothing_measured_and_negative_weights_are_refused():
    with pytest.raises(ValueError, match="nothing was measured"):
        cost.selection.choose([SMALL._replace(accuracy=None)])
    with pytest.raises(ValueError, match="at least 0"):
        cost.selection.choose([SMALL], bytes_weight=-1)
