"""The training loop: steps, records, evaluations, checkpoints; stops when asked and goes on later.

A run that was stopped, or killed, and resumed ends with the same bits as one that never was: the
state is restored as a whole, the keys of a step depend on its number and the batch on the loader's
position alone, and the compiled functions are the same. (Where a rollback leads depends on which
checkpoints there are, and stopping makes one more.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from snnjax.training import checkpoints
from snnjax.training.checkpoints.background import Saver
from snnjax.training.errors import NotFiniteError, StreamBoundError
from snnjax.training.evaluation import Evaluation
from snnjax.training.metrics_log import Journal
from snnjax.training.multihost import Wishes, leads
from snnjax.training.nonfinite import Guard
from snnjax.training.profiling import Trace, window
from snnjax.training.run import Run
from snnjax.training.session import Session
from snnjax.training.sharding import feed, place
from snnjax.training.state import TrainState
from snnjax.typing import Array

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
    warn: Callable[[str], None] = lambda text: None,
    profile: bool = False,
) -> Result:
    """Trains from the newest checkpoint of a run, or from the start, to the end.

    Args:
        session: From `prepare`; its state is consumed.
        run: Where records and checkpoints go.
        stop: Asked after every step; once it answers with something true, the state is saved. Of
            several processes any may wish so; all of them then stop at the same step.
        report: Called with every record of metrics.jsonl, with `{"kind": "start", "step"}` where a
            run goes on, and with `{"kind": "step", "step", "loss", "accuracy"}` for every step; for
            progress on a screen.
        warn: Called with a sentence about whatever was put up with: a damaged checkpoint that was
            passed over, a rollback.
        profile: Whether to trace some steps into `run.profile`, see `profiling.window`.

    A resumed run may have other plain fields than before (more epochs, another learning rate);
    config.json is written again once its checkpoint was found to fit.

    Raises:
        NotFiniteError: Loss or gradient is not finite, and `not_finite` of the experiment does not
            go on (see `training.nonfinite`); the last good state was saved.
        RunError: Another process is training in this run directory.
        CheckpointError: The newest checkpoint is of another model, or none can be read.
        OSError: The disk is full; what was saved before can be resumed.
    """
    with run.locked():
        state = checkpoints.load_newest(run.checkpoints, session.state, warn=warn)
        if state is None:
            state = session.state
        else:
            report({"kind": "start", "step": int(state.step)})
            # A run that diverged may be resumed, say with a lower learning rate.
            state = state._replace(finite=_anew(True, session))
            jax.tree.map(lambda x: x.delete(), session.state)  # its memory is the next steps'
        run.write_config(session.experiment)
        loop = _Loop(session, run, state, report, warn, profile)
        with loop.saver:
            return loop.run_to_the_end(stop)


def _anew(value: int, session: Session) -> Array:
    """A number of a state, of the type of `position`; of `finite` where it is a bool."""
    number = jnp.asarray(value, bool if isinstance(value, bool) else jnp.int32)
    return place(number, session.mesh)


class _Loop:
    def __init__(self, session: Session, run: Run, state: TrainState, report, warn, profile: bool):
        self.session, self.run, self.report, self.warn = session, run, report, warn
        self.experiment = session.experiment
        self.guard = Guard(self.experiment)
        start = int(state.step)
        self.saver = Saver(run.checkpoints, keep=self.experiment.keep, step=start)
        self.wishes = Wishes(session.mesh)
        steps = window(start, session.steps) if profile and leads() else range(0)
        self.trace = Trace(run.profile, steps=steps)
        self._begin(state, seconds=None)

    def _begin(self, state: TrainState, *, seconds: float | None) -> None:
        """Starts from a state: what was recorded of later steps is dropped."""
        self.state = state
        self.step, self.position = int(state.step), int(state.position)
        records = self.run.rewind(self.step)
        self.evaluations = [(r["accuracy"], r["step"]) for r in records if r["kind"] == "eval"]
        self.evaluation: Evaluation | None = None
        recorded = records[-1]["seconds"] if records else 0.0
        self.journal = Journal(
            self.run,
            self.report,
            guard=self.guard,
            devices=self.session.mesh.local_devices,
            steps_per_epoch=self.session.loader.steps_per_epoch,
            batch=self.experiment.batch,
            start=self.step,
            seconds=recorded if seconds is None else seconds,
        )

    def run_to_the_end(self, stop: Callable[[], Any]) -> Result:
        try:
            if self.guard.rolling_back:
                self._save()  # the start is where the first rollback leads to
            while self.step < self.session.steps and not self._exhausted():
                try:
                    self._advance()
                    if self.wishes(bool(stop())):
                        self.journal.flush(self.step)
                        self._save()
                        return self._result(interrupted=True)
                except NotFiniteError as error:
                    self._go_back(error)
            if self.evaluation is None:
                self.evaluation = self.session.evaluate(self.state)
            return self._result(interrupted=False)
        finally:
            self.trace.close()
            self.journal.close()

    def _advance(self) -> None:
        """One step and what is due after it."""
        self.evaluation = None  # that there is one was of the state before
        with self.trace.step(self.step):
            batch = feed(self.session.loader, self.position, self.session.mesh)
            self.state, metrics = self.session.train(self.state, batch)
        self.trace.after(self.step, self.state)
        self.step, self.position = self.step + 1, self.position + 1
        self.journal.add(self.step, metrics)
        last = self.step == self.session.steps
        epochs, rest = divmod(self.step, self.session.loader.steps_per_epoch)
        judging = last or (rest == 0 and epochs % self.experiment.eval_every == 0)
        every = self.experiment.checkpoint_every
        saving = last or (self.step % every == 0 if every else rest == 0)
        if judging or saving or self.step % self.experiment.log_every == 0:
            self.journal.flush(self.step)
            self.saver.check()
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
        if self.saver.save(self.state, accuracy=accuracy, spare=self._best()[1]):
            self.guard.saved()
        self.journal.restart_window()

    def _go_back(self, error: NotFiniteError) -> None:
        """Back to the newest checkpoint, behind the batch that failed; or the end of the run."""
        if not self.guard.allows_rollback(error):
            raise self._ended(error) from None
        # Since the step that failed, as many batches were drawn as steps were dispatched.
        position = self.position - (self.step - error.step) + 1
        self.saver.wait()
        self.journal.close()
        state = checkpoints.load_newest(self.run.checkpoints, self.state, warn=self.warn)
        assert state is not None  # the start was saved
        state = state._replace(
            position=_anew(position, self.session), finite=_anew(True, self.session)
        )
        self._begin(state, seconds=self.journal.seconds)
        self.saver.rewind(self.step)
        self.journal.record("rollback", self.step, failed=error.step, position=position)
        self.warn(
            f"{error}: back to step {self.step}, to go on with batch {position} of the loader"
        )

    def _ended(self, error: NotFiniteError) -> NotFiniteError:
        """Saves the last good state; gives what to raise."""
        self.step = int(self.state.step)
        self._save()
        self.saver.wait()
        if isinstance(error, StreamBoundError):
            return error
        return NotFiniteError(
            f"{error}; the state before it was saved in {self.run.path}. {self.guard.cure()}",
            step=self.step,
        )

    def _result(self, *, interrupted: bool) -> Result:
        self.saver.wait()
        seconds = self.journal.seconds
        return Result(self.state, self.step, interrupted, self.evaluation, *self._best(), seconds)

    def _best(self) -> tuple[float | None, int | None]:
        """The highest accuracy so far and the first step that had it."""
        return max(self.evaluations, key=lambda e: (e[0], -e[1]), default=(None, None))
