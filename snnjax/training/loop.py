"""The training loop: steps, records, evaluations, checkpoints; it can be stopped and resumed.

A run that was stopped or killed and then resumed ends with the same bits as an uninterrupted one:
the state is restored as a whole, the keys of a step depend on its number and the batch on the
loader's position alone, and the compiled functions are the same. (The target of a rollback depends
on the existing checkpoints, and stopping makes one more.)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from snnjax.training import checkpoints
from snnjax.training.checkpoints.background import Saver
from snnjax.training.errors import NotFiniteError, StreamBoundError
from snnjax.training.evaluation import Evaluation
from snnjax.training.metrics_log import Journal
from snnjax.training.multihost import AnyProcess, is_leader
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
    """Outcome of a run.

    Attributes:
        state: The last state.
        step: Steps done.
        interrupted: True if it was asked to stop; there is a checkpoint then.
        evaluation: Evaluation of the last state on the test examples; None if it was interrupted
            before one was due.
        best: Best value of the task's deciding metric over all evaluations. It was selected on the
            test examples, so it is optimistic: report `evaluation.metrics`.
        best_step: First step with that value.
        train_seconds: Time in training loops, with evaluations and checkpoints, without
            compilation; over all sessions of the run.
    """

    state: TrainState
    step: int
    interrupted: bool
    evaluation: Evaluation | None
    best: float | None
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
        run: Directory of records and checkpoints.
        stop: Called after every step; a true result saves the state and ends training. One of
            several processes suffices; all of them then stop at the same step.
        report: Called with every record of metrics.jsonl, with `{"kind": "start", "step"}` in a
            resumed run, and with `{"kind": "step", "step", "loss", ...}` and the task's metrics for
            every step; for progress on a screen.
        warn: Called with a sentence about every tolerated fault: a damaged checkpoint that was
            skipped, a rollback.
        profile: True to trace some steps into `run.profile`, see `profiling.window`.

    A resumed run may have other plain fields than before (more epochs, another learning rate);
    config.json is rewritten once its checkpoint is known to fit.

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
            state = state._replace(finite=_scalar(True, session))
            jax.tree.map(lambda x: x.delete(), session.state)  # frees its memory for the steps
        run.write_config(session.experiment)
        loop = _Loop(session, run, state, report, warn, profile)
        with loop.saver:
            return loop.run_to_the_end(stop)


def _scalar(value: int, session: Session) -> Array:
    """A counter or flag of a `TrainState`, on the session's devices."""
    number = jnp.asarray(value, bool if isinstance(value, bool) else jnp.int32)
    return place(number, session.mesh)


class _Scored(NamedTuple):
    """An evaluation as checkpoints are compared: its score, the metric's value, and the step."""

    score: float
    value: float | None
    step: int


class _Loop:
    def __init__(self, session: Session, run: Run, state: TrainState, report, warn, profile: bool):
        self.session, self.run, self.report, self.warn = session, run, report, warn
        self.experiment = session.experiment
        self.guard = Guard(self.experiment)
        start = int(state.step)
        self.saver = Saver(run.checkpoints, keep=self.experiment.keep, step=start)
        self.any_process = AnyProcess(session.mesh)
        steps = window(start, session.steps) if profile and is_leader() else range(0)
        self.trace = Trace(run.profile, steps=steps)
        self._begin(state, seconds=None)

    def _begin(self, state: TrainState, *, seconds: float | None) -> None:
        """Starts from a state; records of later steps are dropped."""
        self.state = state
        self.step, self.position = int(state.step), int(state.position)
        records = self.run.rewind(self.step)
        self.evaluations = [self._scored(r, r["step"]) for r in records if r["kind"] == "eval"]
        self.evaluation: Evaluation | None = None
        recorded = records[-1]["seconds"] if records else 0.0
        self.journal = Journal(
            self.run,
            self.report,
            guard=self.guard,
            task=self.session.task,
            devices=self.session.mesh.local_devices,
            steps_per_epoch=self.session.loader.steps_per_epoch,
            batch=self.experiment.batch,
            start=self.step,
            seconds=recorded if seconds is None else seconds,
        )

    def run_to_the_end(self, stop: Callable[[], Any]) -> Result:
        try:
            if self.guard.rolling_back:
                self._save()  # the target of a first rollback
            while self.step < self.session.steps and not self._exhausted():
                try:
                    self._advance()
                    if self.any_process(bool(stop())):
                        self.journal.flush(self.step)
                        self._save()
                        return self._result(interrupted=True)
                except NotFiniteError as error:
                    self._roll_back(error)
            if self.evaluation is None:
                self.evaluation = self.session.evaluate(self.state)
            return self._result(interrupted=False)
        finally:
            self.trace.close()
            self.journal.close()

    def _advance(self) -> None:
        """One step, and the record, evaluation and checkpoint due after it."""
        self.evaluation = None  # it belongs to the state before
        with self.trace.step(self.step):
            batch = feed(self.session.loader, self.position, self.session.mesh)
            self.state, metrics = self.session.train(self.state, batch)
        self.trace.after(self.step, self.state)
        self.step, self.position = self.step + 1, self.position + 1
        self.journal.add(self.step, metrics)
        last = self.step == self.session.steps
        epochs, rest = divmod(self.step, self.session.loader.steps_per_epoch)
        evaluating = last or (rest == 0 and epochs % self.experiment.eval_every == 0)
        every = self.experiment.checkpoint_every
        saving = last or (self.step % every == 0 if every else rest == 0)
        if evaluating or saving or self.step % self.experiment.log_every == 0:
            self.journal.flush(self.step)
            self.saver.check()
        improved = self._evaluate() if evaluating else False
        if saving or improved or self._exhausted():
            self._save(self.evaluations[-1].score if evaluating else -math.inf)

    def _evaluate(self) -> bool:
        """Evaluates; True if the deciding metric was never as good before."""
        before = max((evaluation.score for evaluation in self.evaluations), default=-math.inf)
        self.evaluation = self.session.evaluate(self.state)
        values = {"loss": self.evaluation.loss, **self.evaluation.metrics}
        self.journal.record("eval", self.step, **values)
        self.evaluations.append(self._scored(values, self.step))
        return self.evaluations[-1].score > before

    def _exhausted(self) -> bool:
        """True if the last `patience` evaluations brought no improvement."""
        patience = self.experiment.patience
        if patience is None or not self.evaluations:
            return False
        scores = [evaluation.score for evaluation in self.evaluations]
        return len(scores) - 1 - scores.index(max(scores)) >= patience

    def _save(self, score: float = -math.inf) -> None:
        known = score if math.isfinite(score) else None
        if self.saver.save(self.state, score=known, spare=self._best()[1]):
            self.guard.notice_checkpoint()
        self.journal.restart_window()

    def _roll_back(self, error: NotFiniteError) -> None:
        """Returns to the newest checkpoint, behind the batch that failed; or ends the run."""
        if not self.guard.allows_rollback(error):
            raise self._final_error(error) from None
        # Since the step that failed, as many batches were drawn as steps were dispatched.
        position = self.position - (self.step - error.step) + 1
        self.saver.wait()
        self.journal.close()
        state = checkpoints.load_newest(self.run.checkpoints, self.state, warn=self.warn)
        assert state is not None  # the start was saved
        state = state._replace(
            position=_scalar(position, self.session), finite=_scalar(True, self.session)
        )
        self._begin(state, seconds=self.journal.seconds)
        self.saver.rewind(self.step)
        self.journal.record("rollback", self.step, failed=error.step, position=position)
        self.warn(
            f"{error}: back to step {self.step}, to go on with batch {position} of the loader"
        )

    def _final_error(self, error: NotFiniteError) -> NotFiniteError:
        """Saves the last good state and returns the error that ends the run."""
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
        """Best value of the deciding metric so far, and the first step that had it."""
        if not self.evaluations:
            return None, None
        best = max(self.evaluations, key=lambda e: (e.score, -e.step))
        return best.value, best.step

    def _scored(self, values: Mapping[str, Any], step: int) -> _Scored:
        """The deciding metric among recorded values."""
        task = self.session.task
        return _Scored(task.score(values), values.get(task.best), step)
