"""Training loop with records, evaluations and checkpoints, which can be stopped and resumed.

A stopped or killed run, once resumed, ends with the bits of an uninterrupted one: the whole state
is restored, the keys of a step depend only on its number and a batch only on the loader's position,
and the compiled functions are the same. Rollbacks are the exception: their target depends on the
existing checkpoints, and stopping adds one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from snnjax.training import _fingerprint as fingerprints
from snnjax.training import _start as starts
from snnjax.training import checkpoints
from snnjax.training._evaluation import Evaluation
from snnjax.training._metrics_log import Journal
from snnjax.training._nonfinite import Guard
from snnjax.training._profiling import Trace, window
from snnjax.training._strategy_check import diagnose_packing
from snnjax.training.checkpoints.background import Saver
from snnjax.training.errors import EvaluationError, NotFiniteError, RunError, StreamBoundError
from snnjax.training.multihost import AnyProcess, is_leader
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
        state: Last state.
        step: Number of steps.
        interrupted: True if the run was stopped; it then has a checkpoint of this step.
        evaluation: Evaluation of the last state on the test examples; None if the run was stopped
            at a step without one.
        best: Best value of the task's deciding metric over all evaluations. It is selected on the
            test examples and therefore optimistic: report `evaluation.metrics`.
        best_step: First step with that value.
        train_seconds: Time in training loops over all sessions of the run, s, with evaluations and
            checkpoints, without compilation.
        other_data: Steps after which the run went on with other data (`allow_other_data`).
    """

    state: TrainState
    step: int
    interrupted: bool
    evaluation: Evaluation | None
    best: float | None
    best_step: int | None
    train_seconds: float
    other_data: list[int]


def fit(
    session: Session,
    run: Run,
    *,
    stop: Callable[[], Any] = lambda: False,
    report: Callable[[dict[str, Any]], None] = lambda record: None,
    warn: Callable[[str], None] = lambda text: None,
    profile: bool = False,
    allow_other_data: bool = False,
) -> Result:
    """Trains to the end, from the newest checkpoint of a run or from the start.

    A resumed run may change plain fields, such as the number of epochs or the learning rate;
    config.json is then rewritten. It goes on with the data that it was trained on.

    Args:
        session: Session from `prepare`; its state is consumed.
        run: Directory of records and checkpoints.
        stop: Called after every step; a true result saves the state and ends training. If it is
            true in one of several processes, all of them stop at the same step.
        report: Called with every record of metrics.jsonl; for progress on a screen also with
            `{"kind": "start", "step"}` in a resumed run, and for every step with `{"kind": "step",
            "step", "loss", ...}` and the task's metrics.
        warn: Called with a sentence about every tolerated fault, such as a skipped damaged
            checkpoint or a rollback.
        profile: Traces some steps into `run.profile`, see `profiling.window`.
        allow_other_data: Resumes on other data than before, which data.json and metrics.jsonl then
            record. Evaluations before are no longer compared with those to come.

    Raises:
        NotFiniteError: Loss, gradient, an input or a membrane is not finite, and the experiment's
            `not_finite` does not tolerate it; the last good state was saved.
        EvaluationError: A test example or its membranes are not finite.
        RunError: Another process is training in this run directory, it was trained on other data,
            or it lacks the checkpoint of its `init_from`.
        CheckpointError: The newest checkpoint is of another model, none can be read, or the folder
            cannot keep checkpoints.
        OSError: The disk is full; earlier checkpoints can be resumed.
    """
    with run.lock(warn=warn):
        state = checkpoints.load_newest(run.checkpoints, session.state, warn=warn)
        step = 0 if state is None else int(state.step)
        changed = fingerprints.check_data(
            run, session.data_fingerprint, step=step, allow=allow_other_data, warn=warn
        )
        if changed:
            _record_data(session, run, step, changed, report)
        if state is None:
            state = _start(session, run)
        else:
            report({"kind": "start", "step": step})
            # A run that diverged may be resumed, say with a lower learning rate.
            state = state._replace(finite=_scalar(True, session))
            jax.tree.map(lambda x: x.delete(), session.state)  # frees its memory for the steps
        # After the load: the config of a run must stay that of its checkpoints if they do not fit.
        run.write_config(session.experiment)
        loop = _Loop(session, run, state, report, warn, profile)
        with loop.saver:
            return loop.run_to_the_end(stop)


def _start(session: Session, run: Run) -> TrainState:
    """Initial state; of another run's weights it is saved, so that no resumed run needs that run.

    Raises:
        RunError: The session was prepared without these weights.
    """
    if session.initialization:
        run.write_json(starts.NAME, session.initialization)
        checkpoints.save(run.checkpoints, session.state)
    elif getattr(session.experiment, "init_from", None):
        raise RunError(
            f"{run.path} has no checkpoint, so its initial weights have to be read again from "
            f"{session.experiment.init_from}: prepare(experiment) without resume=True"  # type: ignore[attr-defined]
        )
    return session.state


def _record_data(
    session: Session, run: Run, step: int, changed: list[str], report: Callable[[dict], None]
) -> None:
    """Records that training goes on with other data."""
    records = run.rewind(step)
    record = {
        "kind": "data",
        "step": step,
        "epoch": round(step / session.loader.steps_per_epoch, 4),
        "changed": changed,
        "seconds": _seconds(records),
    }
    run.append(record)
    report(record)


def _seconds(records: list[dict[str, Any]]) -> float:
    """Time in training loops up to the last record, s."""
    seconds = (r.get("seconds") for r in reversed(records))
    return next((s for s in seconds if s is not None), 0.0)


def _scalar(value: int, session: Session) -> Array:
    """A counter or flag of a `TrainState`, on the session's devices."""
    number = jnp.asarray(value, bool if isinstance(value, bool) else jnp.int32)
    return place(number, session.mesh)


class _Score(NamedTuple):
    """Score of an evaluation, by which checkpoints are compared; value of its metric; step."""

    score: float
    value: float | None
    step: int


class _Loop:
    def __init__(self, session: Session, run: Run, state: TrainState, report, warn, profile: bool):
        self.session, self.run, self.report, self.warn = session, run, report, warn
        self.experiment = session.experiment
        self.guard = Guard(self.experiment, loader=session.loader)
        start = int(state.step)
        self.saver = Saver(
            run.checkpoints,
            keep=self.experiment.keep,
            step=start,
            warn=warn,
            flush_records=run.flush_records,
        )
        # Lines that cannot be read stay in the file: one warning per session is enough.
        run.records(warn=warn)
        self.any_process = AnyProcess(session.mesh)
        steps = window(start, session.steps) if profile and is_leader() else range(0)
        self.trace = Trace(run.profile, steps=steps)
        self._begin(state, seconds=None)

    def _begin(self, state: TrainState, *, seconds: float | None) -> None:
        """Starts from a state and drops the records of later steps."""
        self.state = state
        self.step, self.position = int(state.step), int(state.position)
        self.guard.ahead = self.position - self.step
        records = self.run.rewind(self.step)
        # Evaluations on other data are not comparable.
        first = max((n for n, r in enumerate(records) if r["kind"] == "data"), default=0)
        self.evaluations = [
            self._score(r, r["step"]) for r in records[first:] if r["kind"] == "eval"
        ]
        self.evaluation: Evaluation | None = None
        # A rollback keeps its time: the steps were done, if in vain.
        recorded = _seconds(records)
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
            while self.step < self.session.steps and not self._out_of_patience():
                try:
                    self._advance()
                    # A stop on any process is a stop on all, or the others would wait in a
                    # collective.
                    if self.any_process(bool(stop())):
                        self.journal.flush(self.step)
                        self._save()
                        return self._result(interrupted=True)
                except NotFiniteError as error:
                    self._roll_back(error)
            # A run resumed after its last step has not evaluated yet.
            if self.evaluation is None:
                self.evaluation = self.session.evaluate(self.state)
            return self._result(interrupted=False)
        finally:
            self.trace.close()
            self.journal.close()

    def _advance(self) -> None:
        """Runs one step, then the record, evaluation and checkpoint that are due."""
        self.evaluation = None  # that of the state before
        with self.trace.step(self.step):
            batch = feed(self.session.loader, self.position, self.session.mesh)
            self.state, metrics = self.session.train(self.state, batch)
        self.trace.end_step(self.step, self.state)
        self.step, self.position = self.step + 1, self.position + 1
        self.journal.add(self.step, metrics)
        last = self.step == self.session.steps
        epochs, rest = divmod(self.step, self.session.loader.steps_per_epoch)
        evaluating = last or (rest == 0 and epochs % self.experiment.eval_every == 0)
        every = self.experiment.checkpoint_every
        saving = last or (self.step % every == 0 if every else rest == 0)
        if evaluating or saving or self.step % self.experiment.log_every == 0:
            self.journal.flush(self.step)
            # An error of the writing thread, such as a full disk, ends training early, not at the
            # next save.
            self.saver.check()
        # Also a checkpoint of an improvement, or the best state could not be kept.
        improved = self._evaluate() if evaluating else False
        if saving or improved or self._out_of_patience():
            self._save(self.evaluations[-1].score if evaluating else -math.inf)

    def _evaluate(self) -> bool:
        """Evaluates; True if the deciding metric is better than in all earlier evaluations."""
        before = max((evaluation.score for evaluation in self.evaluations), default=-math.inf)
        try:
            self.evaluation = self.session.evaluate(self.state)
        except EvaluationError:
            # The steps since the last checkpoint are sound.
            self._save()
            self.saver.wait()
            raise
        values = {"loss": self.evaluation.loss, **self.evaluation.metrics}
        self.journal.record("eval", self.step, **values)
        self.evaluations.append(self._score(values, self.step))
        return self.evaluations[-1].score > before

    def _out_of_patience(self) -> bool:
        """True if the last `patience` evaluations were no improvement."""
        patience = self.experiment.patience
        if patience is None or not self.evaluations:
            return False
        scores = [evaluation.score for evaluation in self.evaluations]
        return len(scores) - 1 - scores.index(max(scores)) >= patience

    def _save(self, score: float = -math.inf) -> None:
        known = score if math.isfinite(score) else None  # JSON has no infinity
        # A new checkpoint is progress: the count of rollbacks starts anew.
        if self.saver.save(self.state, score=known, spare=self._best()[1]):
            self.guard.notice_checkpoint()
        self.journal.restart_window()

    def _roll_back(self, error: NotFiniteError) -> None:
        """Returns to the newest checkpoint and skips the failed batch, or ends the run."""
        if not self.guard.allows_rollback(error):
            raise self._final_error(error) from None
        # Each step dispatched since the failed one has drawn a batch; the next is the one after it.
        position = self.position - (self.step - error.step) + 1
        # The newest checkpoint may still be in the writing thread.
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
        # The state did not advance past the failed step, whatever was dispatched after it.
        self.step = int(self.state.step)
        self._save()
        self.saver.wait()
        if isinstance(error, StreamBoundError):
            return error
        cure = None
        if not error.in_data:
            # Packing what is no spike makes the gradient NaN. The state stayed before the failed
            # step, so it names the batch.
            batch = feed(self.session.loader, int(self.state.position), self.session.mesh)
            cure = diagnose_packing(self.session.program, self.state, batch)
        cure = cure or self.guard.cure(error=error)
        return NotFiniteError(
            f"{error}; the state before it was saved in {self.run.path}. {cure}",
            step=self.step,
            in_data=error.in_data,
        )

    def _result(self, *, interrupted: bool) -> Result:
        self.saver.wait()
        seconds = self.journal.seconds
        other = fingerprints.allowed_steps(self.run)
        best = self._best()
        return Result(self.state, self.step, interrupted, self.evaluation, *best, seconds, other)

    def _best(self) -> tuple[float | None, int | None]:
        """Best value of the deciding metric so far, and its first step."""
        if not self.evaluations:
            return None, None
        best = max(self.evaluations, key=lambda e: (e.score, -e.step))
        return best.value, best.step

    def _score(self, values: Mapping[str, Any], step: int) -> _Score:
        """Score of recorded values, by the deciding metric."""
        task = self.session.task
        return _Score(task.score(values), values.get(task.best), step)
