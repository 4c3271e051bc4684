"""Reaction to a step that is not finite: `BaseExperiment.not_finite`.

A step is not finite if its loss, its gradient, an input, a target or a membrane is not.

    "stop"       the run ends; the state before that step is saved
    "skip"       the update is skipped and training continues; 20 in a row end the run
    "rollback"   training continues from the newest checkpoint (or the start) with the batch after
                 the failed one; the fourth rollback without a new checkpoint, or the eleventh of a
                 session, ends the run

In float16 an update that overflowed under the loss scale is skipped under any of them, except at
the lowest scale, where the loss itself overflows. A reversible stream beyond the bound of its grid
always ends the run: its gradients are inexact without being NaN.
"""

from __future__ import annotations

from typing import Any

from snnjax import data
from snnjax.training._learners import learner
from snnjax.training._loss_scaling import FLOOR
from snnjax.training._watch import Fault, Watch, example_name
from snnjax.training.errors import NotFiniteError, StreamBoundError
from snnjax.training.experiment import BaseExperiment
from snnjax.training.step import TrainMetrics
from snnjax.training.unsupervised import PlasticityMetrics

__all__ = ["Guard", "StepMetrics"]

StepMetrics = TrainMetrics | PlasticityMetrics

# A bad batch costs one skip or one rollback; beyond these numbers the run diverges again and again.
_SKIPS_IN_A_ROW = 20
_ROLLBACKS_IN_A_ROW = 3
_ROLLBACKS = 10


class Guard:
    """Checks every step of a session.

    Args:
        experiment: Experiment with the reaction, `not_finite`.
        loader: Batches of the training examples; None leaves their numbers out of messages.

    Attributes:
        ahead: Number of batches drawn for steps that were undone by rollbacks.
        skipping: True if updates that are not finite are skipped.
        rolling_back: True if they are answered by a rollback.
    """

    def __init__(self, experiment: BaseExperiment, *, loader: data.Loader | None = None):
        self.experiment, self.loader, self.ahead = experiment, loader, 0
        self.skipping = experiment.not_finite == "skip"
        self.rolling_back = experiment.not_finite == "rollback"
        self.skips = self.rollbacks = self.rollbacks_here = 0

    def admits(self, step: int, metrics: StepMetrics) -> bool:
        """True if a step counts, False if its update was skipped.

        Args:
            step: Number of steps, this one included.
            metrics: Metrics of the step, on the host.

        Raises:
            StreamBoundError: A reversible stream reached its bound.
            NotFiniteError: The step was not finite and cannot be skipped.
        """
        # First: a NaN loss makes the stream NaN, which this comparison leaves to the cases below.
        if metrics.stream >= 1 and (metrics.finite or self.experiment.not_finite != "stop"):
            raise StreamBoundError(_stream_message(step, metrics), step=step - 1)
        if metrics.finite:
            self.skips = 0
            return True
        # Not counted as a skip: the search for the scale may overflow many times in a row.
        fault = _fault(metrics)
        if fault is None and _is_overflow(metrics):
            return False
        self.skips += 1
        if not self.skipping or self.skips == _SKIPS_IN_A_ROW:
            in_data = fault is not None and fault.in_data
            raise NotFiniteError(
                self._message(step, metrics, fault), step=step - 1, in_data=in_data
            )
        return False

    def allows_rollback(self, error: NotFiniteError) -> bool:
        """Counts a rollback; False if there were too many."""
        # A stream at its bound calls for another grid: going on would meet the same bound.
        if not self.rolling_back or isinstance(error, StreamBoundError):
            return False
        # Two counts: the first ends a run that saves between divergences, the second one that does
        # not.
        if self.rollbacks == _ROLLBACKS or self.rollbacks_here == _ROLLBACKS_IN_A_ROW:
            return False
        self.rollbacks += 1
        self.rollbacks_here += 1
        return True

    def notice_checkpoint(self) -> None:
        """Restarts the count of rollbacks at a new checkpoint."""
        self.rollbacks_here = 0

    def cure(self, *, error: NotFiniteError | None = None) -> str:
        """Sentence about the remedies, with the number of failed rollbacks.

        Args:
            error: Error that ends the run; None for one of the loss.
        """
        tried = f"{self.rollbacks} rollbacks did not help. " if self.rollbacks else ""
        # A smaller step cures no data.
        if error is not None and error.in_data:
            return (
                f"{tried}Look at these data and at encode(experiment, inputs, key): remove such "
                'examples or replace their NaN, or leave such batches out (not_finite="skip")'
            )
        return tried + learner(self.experiment).divergence_cure(self.experiment)

    def _message(self, step: int, metrics: StepMetrics, fault: Fault | None) -> str:
        quantity = learner(self.experiment).quantity
        if fault is not None:
            number = step - 1 + self.ahead
            quantity = fault.describe(example_name(fault, number, self.loader, "training"))
        values = {**metrics.means(), **metrics.latest(), "stream": metrics.stream}
        numbers = ", ".join(f"{name} {value}" for name, value in values.items())
        before = f", nor at the {self.skips - 1} before it" if self.skipping else ""
        state = f"{quantity} at step" if fault else f"{quantity} was not finite at step"
        return f"{state} {step} ({numbers}){before}"


def _fault(metrics: StepMetrics) -> Fault | None:
    return metrics.watch.fault() if isinstance(metrics.watch, Watch) else None


def _is_overflow(metrics: StepMetrics) -> bool:
    """True if the step overflowed above the lowest scale and was skipped with half the scale."""
    scale: Any = getattr(metrics, "loss_scale", ())
    return not isinstance(scale, tuple) and bool(scale > FLOOR)


def _stream_message(step: int, metrics: StepMetrics) -> str:
    return (
        f"a reversible stream reached {metrics.stream:.2g} times the bound of its grid at step "
        f"{step}: its reversed gradient is no longer exact. Give the stack a coarser grid "
        "(nn.Reversible(bits=...)) or normalise its branches, or keep activations "
        "(scan=memory.store)"
    )
