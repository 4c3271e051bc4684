"""Reaction to steps that are not finite, and its limits."""

import dataclasses

import numpy as np
import pytest

from snnjax import training
from snnjax.training._nonfinite import Guard
from tests.training.conftest import make

pytestmark = pytest.mark.fast


def metrics(*, finite=True, stream=0.0):
    loss = 1.0 if finite else np.nan
    return training.step.TrainMetrics(loss, {"accuracy": 0.5}, 1.0, 1e-3, finite, stream)


def test_a_finite_step_counts():
    for policy in ("stop", "skip", "rollback"):
        assert Guard(make(not_finite=policy)).admits(1, metrics())


@pytest.mark.parametrize("policy", ["stop", "rollback", "skip"])
def test_an_overflow_under_a_loss_scale_is_left_out_and_no_fault(policy):
    guard = Guard(make(not_finite=policy))
    over = metrics(finite=False)._replace(loss_scale=np.float32(2))
    assert not any(guard.admits(step, over) for step in range(1, 30))
    assert guard.skips == 0


@pytest.mark.parametrize("policy", ["stop", "rollback"])
def test_at_the_floor_of_the_scale_it_is_one(policy):
    floor = metrics(finite=False)._replace(loss_scale=np.float32(1))
    with pytest.raises(training.errors.NotFiniteError, match="not finite at step 3 .*loss_scale 1"):
        Guard(make(not_finite=policy)).admits(3, floor)


@pytest.mark.parametrize("policy", ["stop", "rollback"])
def test_one_that_is_not_finite_is_raised(policy):
    with pytest.raises(
        training.errors.NotFiniteError, match=r"not finite at step 7 \(loss nan"
    ) as error:
        Guard(make(not_finite=policy)).admits(7, metrics(finite=False))
    assert error.value.step == 6


def test_skipping_ends_after_twenty_in_a_row():
    guard = Guard(make(not_finite="skip"))
    for _ in range(3):
        assert not any(guard.admits(step, metrics(finite=False)) for step in range(1, 20))
        assert guard.admits(20, metrics())
    assert not any(guard.admits(step, metrics(finite=False)) for step in range(21, 40))
    with pytest.raises(training.errors.NotFiniteError, match="step 40 .* nor at the 19 before it"):
        guard.admits(40, metrics(finite=False))


@pytest.mark.parametrize("policy", ["stop", "skip", "rollback"])
def test_a_stream_past_its_bound_always_ends_the_run(policy):
    guard = Guard(make(not_finite=policy))
    with pytest.raises(training.errors.StreamBoundError, match="bits=") as error:
        guard.admits(3, metrics(stream=1.5))
    assert not guard.allows_rollback(error.value)


def test_a_diverged_stream_is_told_as_diverged_where_that_stops():
    both = metrics(finite=False, stream=np.inf)
    with pytest.raises(training.errors.NotFiniteError) as error:
        Guard(make()).admits(3, both)
    assert not isinstance(error.value, training.errors.StreamBoundError)
    with pytest.raises(training.errors.StreamBoundError):
        Guard(make(not_finite="skip")).admits(3, both)


def test_rollbacks_are_limited_between_checkpoints_and_in_all():
    guard, error = Guard(make(not_finite="rollback")), training.errors.NotFiniteError("", step=1)
    assert [guard.allows_rollback(error) for _ in range(4)] == [True] * 3 + [False]
    assert "3 rollbacks did not help" in guard.cure()
    guard = Guard(make(not_finite="rollback"))
    allowed = 0
    while guard.allows_rollback(error):
        guard.notice_checkpoint()
        allowed += 1
    assert allowed == 10
    assert not Guard(make()).allows_rollback(error)
    assert not Guard(make(not_finite="skip")).allows_rollback(error)


def test_plasticity_hears_nothing_of_learning_rates():
    values = {f.name: None for f in dataclasses.fields(training.unsupervised.Unsupervised)}
    guard = Guard(training.unsupervised.Unsupervised(**{**values, "not_finite": "stop"}))
    accuracy = {"accuracy": 0.9}
    seen = training.unsupervised.PlasticityMetrics(0.1, accuracy, 1.0, 1.0, 1.0, False, 0.0)
    with pytest.raises(training.errors.NotFiniteError) as error:
        guard.admits(2, seen)
    said = f"{error.value} {guard.cure()}"
    assert "learning rate" not in said and "--" not in said and "gradient" not in said
    assert "threshold" in said and "encode" in said
    assert "--learning-rate 0.0025" in Guard(make()).cure()


def test_an_unknown_policy_is_refused():
    with pytest.raises(
        training.errors.ExperimentError, match='"stop", "skip" or "rollback".*"?ignore'
    ):
        training.config.check(make(not_finite="ignore"))
