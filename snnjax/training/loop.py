"""The training loop: steps, records, evaluations, checkpoints; stops when asked and goes on later.

A run that was stopped, or killed, and resumed ends with the same bits as one that never was: the
state is restored as a whole, the batch and the keys of a step depend on its number alone, and the
compiled functions are the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from snnjax.training import checkpoints
from snnjax.training.errors import NotFiniteError, StreamBoundError
from snnjax.training.evaluation import Evaluation
from snnjax.training.journal import Journal
from snnjax.training.run import Run
from snnjax.training.session import Session
from snnjax.training.sharding import sharded
from snnjax.training.state import TrainState

__all__ = ["Result", "fit"]


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        state: The last state.
        step: Steps done.
        interrupted: Whether it was asked to stop; there is a checkpoint then.
        evaluation: Of the last state on the test examples; None where it was interrupted before
            one was due.
        best_accuracy: The highest of all evaluations. It was chosen on the test examples, so it
            flatters: report `evaluation.accuracy`.
        best_step: When that was.
        train_seconds: Time in training loops, evaluations and checkpoints included, compilation
            not; over all sessions of the run.
    """

    state: TrainState
    step: int
    interrupted: bool
    evaluation: Evaluation | None
    best_accuracy: float | None
    best_step: int | None
    train_seconds: float


def fit(
    session: Session,
    run: Run,
    *,
    stop: Callable[[], Any] = lambda: False,
    report: Callable[[dict[str, Any]], None] = lambda record: None,
) -> Result:
    """Trains from the newest checkpoint of a run, or from the start, to the end.

    Args:
        session: From `prepare`; its state is consumed.
        run: Where records and checkpoints go.
        stop: Asked after every step; once it answers with something true, the state is saved.
        report: Called with every record of metrics.jsonl, and with `{"kind": "step", "step",
            "loss", "accuracy"}` for every step; for progress on a screen.

    A resumed run may have other plain fields than before (more epochs, another learning rate);
    config.json is written again once its checkpoint was found to fit.

    Raises:
        NotFiniteError: Loss or gradient is not finite; the last good state was saved.
        RunError: Another process is training in this run directory.
        CheckpointError: The checkpoint is of another model, or cannot be read.
    """
    with run.locked():
        state = session.state
        if newest := checkpoints.newest(run.checkpoints):
            # A run that diverged may be resumed, say with a lower learning rate.
            state = checkpoints.load(newest, state)._replace(finite=state.finite)
        run.write_config(session.experiment)
        return _Loop(session, run, state, report).run_to_the_end(stop)


class _Loop:
    def __init__(self, session: Session, run: Run, state: TrainState, report):
        self.session, self.run, self.state = session, run, state
        self.experiment = session.experiment
        self.step = int(state.step)
        records = run.rewind(self.step)
        self.evaluations = [(r["accuracy"], r["step"]) for r in records if r["kind"] == "eval"]
        self.evaluation: Evaluation | None = None
        self.journal = Journal(
            run,
            report,
            steps_per_epoch=session.loader.steps_per_epoch,
            batch=self.experiment.batch,
            start=self.step,
            seconds=records[-1]["seconds"] if records else 0.0,
        )

    def run_to_the_end(self, stop: Callable[[], Any]) -> Result:
        try:
            while self.step < self.session.steps and not self._exhausted():
                self._advance()
                if stop():
                    self.journal.flush(self.step)
                    self._save()
                    return self._result(interrupted=True)
            if self.evaluation is None:
                self.evaluation = self.session.evaluate(self.state)
            return self._result(interrupted=False)
        except NotFiniteError as error:
            self.step = int(self.state.step)
            self._save()
            if isinstance(error, StreamBoundError):
                raise
            raise NotFiniteError(
                f"{error}; the state before it was saved in {self.run.path}. Lower the learning "
                f"rate (--learning-rate {self.experiment.learning_rate / 4:.2g}) or bound the "
                "gradient (--clip-norm 1)",
                step=self.step,
            ) from None
        finally:
            self.journal.close()

    def _advance(self) -> None:
        """One step and what is due after it."""
        self.evaluation = None  # that there is one was of the state before
        batch = self.session.loader.batch(self.step)
        self.state, metrics = self.session.train(self.state, sharded(batch, self.session.mesh))
        self.step += 1
        self.journal.add(self.step, metrics)
        last = self.step == self.session.steps
        epochs, rest = divmod(self.step, self.session.loader.steps_per_epoch)
        judging = last or (rest == 0 and epochs % self.experiment.eval_every == 0)
        every = self.experiment.checkpoint_every
        saving = last or (self.step % every == 0 if every else rest == 0)
        if judging or saving or self.step % self.experiment.log_every == 0:
            self.journal.flush(self.step)
        leading = self._judge() if judging else False
        if saving or leading or self._exhausted():
            self._save(self.evaluation.accuracy if judging and self.evaluation else None)

    def _judge(self) -> bool:
        """Evaluates; says whether it was never better before."""
        before = max((accuracy for accuracy, _ in self.evaluations), default=-1.0)
        self.evaluation = self.session.evaluate(self.state)
        loss, accuracy = self.evaluation.loss, self.evaluation.accuracy
        self.journal.record("eval", self.step, loss=loss, accuracy=accuracy)
        self.evaluations.append((accuracy, self.step))
        return accuracy > before

    def _exhausted(self) -> bool:
        """Whether the best accuracy is `patience` evaluations ago."""
        patience = self.experiment.patience
        if patience is None or not self.evaluations:
            return False
        accuracies = [accuracy for accuracy, _ in self.evaluations]
        return len(accuracies) - 1 - accuracies.index(max(accuracies)) >= patience

    def _save(self, accuracy: float | None = None) -> None:
        checkpoints.save(self.run.checkpoints, self.state, accuracy=accuracy)
        checkpoints.prune(self.run.checkpoints, keep=self.experiment.keep, spare=self._best()[1])
        self.journal.restart_window()

    def _result(self, *, interrupted: bool) -> Result:
        seconds = self.journal.seconds
        return Result(self.state, self.step, interrupted, self.evaluation, *self._best(), seconds)

    def _best(self) -> tuple[float | None, int | None]:
        """The highest accuracy so far and the first step that had it."""
        return max(self.evaluations, key=lambda e: (e[0], -e[1]), default=(None, None))
