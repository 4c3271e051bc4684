"""What is done about a loss or a gradient that is not finite: `Experiment.not_finite`.

    "stop"       the run ends; the state before that step is saved
    "skip"       that update is left out and training goes on; 20 of them in a row end the run
    "rollback"   training goes on from the newest checkpoint (or the start) with the batch behind
                 the one that failed; the fourth without a new checkpoint in between ends the run,
                 and so does the eleventh of a session

In float16 an update that overflowed under the scale of its loss is left out under each of them: so
the scale is found. Not at its floor, though, where the loss itself overflows.

A stream past the bound of its grid always ends the run: its gradients were wrong without notice.
"""

from __future__ import annotations

from typing import Any

from snnjax.training.errors import NotFiniteError, StreamBoundError
from snnjax.training.experiment import Experiment
from snnjax.training.loss_scaling import FLOOR
from snnjax.training.step import TrainMetrics
from snnjax.training.unsupervised import PlasticityMetrics, Unsupervised

__all__ = ["Guard", "Metrics"]

Metrics = TrainMetrics | PlasticityMetrics

_SKIPS_IN_A_ROW = 20
_ROLLBACKS_IN_A_ROW = 3
_ROLLBACKS = 10


class Guard:
    """Judges every step of a session.

    Args:
        experiment: Its `not_finite` decides.

    Attributes:
        skipping: whether updates that are not finite are left out.
        rolling_back: whether training goes back after one.
    """

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self.skipping = experiment.not_finite == "skip"
        self.rolling_back = experiment.not_finite == "rollback"
        self.skips = self.rollbacks = self.rollbacks_here = 0

    def admits(self, step: int, metrics: Metrics) -> bool:
        """Whether a step counts; one whose update was left out does not.

        Args:
            step: Steps done with it.
            metrics: Its own, on the host.

        Raises:
            StreamBoundError: A reversible stream reached its bound.
            NotFiniteError: It was not finite, and is not to be skipped.
        """
        if metrics.stream >= 1 and (metrics.finite or self.experiment.not_finite != "stop"):
            raise StreamBoundError(_beyond(step, metrics), step=step - 1)
        if metrics.finite:
            self.skips = 0
            return True
        if _is_overflow(metrics):
            return False
        self.skips += 1
        if not self.skipping or self.skips == _SKIPS_IN_A_ROW:
            raise NotFiniteError(self._not_finite(step, metrics), step=step - 1)
        return False

    def allows_rollback(self, error: NotFiniteError) -> bool:
        """Whether training may go back once more; it is counted."""
        if not self.rolling_back or isinstance(error, StreamBoundError):
            return False
        if self.rollbacks == _ROLLBACKS or self.rollbacks_here == _ROLLBACKS_IN_A_ROW:
            return False
        self.rollbacks += 1
        self.rollbacks_here += 1
        return True

    def saved(self) -> None:
        """Is told of every new checkpoint."""
        self.rollbacks_here = 0

    def cure(self) -> str:
        """What was tried, and what a user may do about it."""
        tried = f"{self.rollbacks} rollbacks did not help. " if self.rollbacks else ""
        return tried + self._cure()

    def _cure(self) -> str:
        if isinstance(self.experiment, Unsupervised):
            return (
                "Look at the rates that encode gives, and at the rule of plasticity and the bounds "
                "of its weights (learner)"
            )
        lower = f"--learning-rate {self.experiment.learning_rate / 4:.2g}"
        return f"Lower the learning rate ({lower}) or bound the gradient (--clip-norm 1)"

    def _not_finite(self, step: int, metrics: Metrics) -> str:
        what = "the loss or its gradient"
        if isinstance(self.experiment, Unsupervised):
            what = "a threshold or a count of spikes"
        told = {k: v for k, v in metrics._asdict().items() if k != "finite" and not _empty(v)}
        numbers = ", ".join(f"{k} {v}" for k, v in told.items())
        many = f", nor at the {self.skips - 1} before it" if self.skipping else ""
        return f"{what} was not finite at step {step} ({numbers}){many}"


def _is_overflow(metrics: Metrics) -> bool:
    """Whether a smaller loss scale mends it: the step left its update out and halved the scale."""
    scale: Any = getattr(metrics, "loss_scale", ())
    return not _empty(scale) and bool(scale > FLOOR)


def _empty(value: object) -> bool:
    return isinstance(value, tuple)


def _beyond(step: int, metrics: Metrics) -> str:
    return (
        f"a reversible stream reached {metrics.stream:.2g} times the bound of its grid at step "
        f"{step}: its reversed gradient is no longer exact. Give the stack a coarser grid "
        "(nn.Reversible(bits=...)) or normalise its branches, or keep activations "
        "(scan=memory.store)"
    )
