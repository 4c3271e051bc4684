"""Log of metrics: fetching from the devices, averaging, records in the run directory.

TensorBoard events are written if tensorboardX is installed (the extra `tensorboard`), by the
training thread and not through tensorboardX's own queue and thread, so that an error such as a full
disk reaches the caller.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from snnjax.training._nonfinite import Guard, StepMetrics
from snnjax.training._profiling import memory_bytes
from snnjax.training.multihost import is_leader
from snnjax.training.run import Run
from snnjax.training.task import Task

__all__ = ["Events", "Journal"]

# Metrics of a step are fetched once this many later steps are dispatched, so that reading every
# step never makes the devices wait.
_IN_FLIGHT = 2


class Journal:
    """Fetches and averages metrics, writes records, and reports steps and records.

    Args:
        run: Directory of the records.
        report: Called with each record, and with `{"kind": "step", ...}` for every step.
        guard: Guard that excludes skipped steps, and raises where training must end.
        task: Task whose `summary` turns means into metrics.
        devices: Devices whose memory is recorded.
        steps_per_epoch: Steps in a pass over the training examples, for the field `epoch`.
        batch: Examples per step.
        start: Number of earlier steps.
        seconds: Time in earlier training loops of this run, s.
    """

    def __init__(
        self,
        run: Run,
        report: Callable[[dict[str, Any]], None],
        *,
        guard: Guard,
        task: Task,
        devices: Sequence[Any],
        steps_per_epoch: int,
        batch: int,
        start: int,
        seconds: float,
    ):
        self.run, self.report = run, report
        self.guard, self.task, self.devices = guard, task, devices
        self.steps_per_epoch, self.batch = steps_per_epoch, batch
        # The zero lies before this session, so that times go on over all sessions of a run.
        self.zero = time.perf_counter() - seconds
        self.window_start = time.perf_counter()
        self.waiting: collections.deque[tuple[int, StepMetrics]] = collections.deque()
        self.window: list[StepMetrics] = []
        self.skipped = 0
        self.events = Events(run.path / "tensorboard", start=start)

    @property
    def seconds(self) -> float:
        """Time in training loops of this run so far, s."""
        return time.perf_counter() - self.zero

    def add(self, step: int, metrics: StepMetrics) -> None:
        """Queues the metrics of a dispatched step.

        Raises:
            NotFiniteError: An earlier step was not finite and cannot be skipped.
        """
        self.waiting.append((step, metrics))
        while len(self.waiting) > _IN_FLIGHT:
            self._fetch()

    def flush(self, step: int) -> None:
        """Waits for all steps so far and writes the record of the window that ends here.

        Means exclude skipped steps. A window of skipped steps only is merged into the next one.

        Raises:
            NotFiniteError: One of the steps was not finite and cannot be skipped.
        """
        while self.waiting:
            self._fetch()
        if not self.window:
            return
        count, now = len(self.window), time.perf_counter()
        steps = [metrics.means() for metrics in self.window]
        values = {name: sum(float(step[name]) for step in steps) / count for name in steps[0]}
        # Of the means: roots, as in an RMSE, are not averaged over steps.
        parts = self.window[-1].metrics
        values = {k: v for k, v in values.items() if k not in parts} | self._summary(values)
        # A learning rate is that of the last step; its mean would belong to no step.
        values |= {name: float(value) for name, value in self.window[-1].latest().items()}
        # Skipped steps took as long as the others.
        speed = (count + self.skipped) * self.batch / max(now - self.window_start, 1e-9)
        values["examples_per_second"] = round(speed, 1)
        if (memory := memory_bytes(self.devices)) is not None:
            values["memory_bytes"] = memory
        if self.skipped:
            values["skipped"] = self.skipped
        self.window, self.skipped = [], 0
        self.record("train", step, **values)

    def record(self, kind: str, step: int, **values: float) -> None:
        """Writes a record and reports it."""
        epoch = round(step / self.steps_per_epoch, 4)
        record = {"kind": kind, "step": step, "epoch": epoch, **values}
        record["seconds"] = round(self.seconds, 3)
        self.run.append(record)
        # After the record: metrics.jsonl is what a resumed run reads.
        self.events.add(kind, step, values)
        self.report(record)
        self.restart_window()

    def restart_window(self) -> None:
        """Excludes work other than steps from the rate of the next record."""
        # Within a window the clock runs on: its steps are already counted.
        if not self.window:
            self.window_start = time.perf_counter()

    def close(self) -> None:
        """Closes the event file."""
        self.events.close()

    def _summary(self, means: dict[str, float]) -> dict[str, float]:
        """Reported metrics from means over steps."""
        return self.task.summary({name: means[name] for name in self.window[-1].metrics})

    def _fetch(self) -> None:
        step, metrics = self.waiting.popleft()
        metrics = jax.device_get(metrics)
        if not self.guard.admits(step, metrics):
            self.skipped += 1
            return
        self.window.append(metrics)
        means = {name: float(value) for name, value in metrics.metrics.items()}
        loss = float(metrics.loss)
        self.report({"kind": "step", "step": step, "loss": loss, **self.task.summary(means)})


class Events:
    """An event file; without tensorboardX, and on all processes but one, it discards everything.

    Args:
        folder: Folder of the file.
        start: Steps done before; TensorBoard drops later steps of an earlier file.
    """

    def __init__(self, folder: Path, *, start: int):
        self.file: Any = None
        if not is_leader():
            return
        try:
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto import event_pb2, summary_pb2
        except ImportError:
            return
        # Protocol buffers make their classes at run time: a type checker cannot see them.
        self.event: Any = event_pb2
        self.summary: Any = summary_pb2
        folder.mkdir(exist_ok=True)
        # A file per session: TensorBoard merges the files of a folder.
        self.file = EventsWriter(str(folder / "events"), filename_suffix=f".{start}")
        # This mark makes TensorBoard drop later steps of earlier files, which a resumed run
        # repeats.
        begin = self.event.SessionLog(status=self.event.SessionLog.START)
        self._write(step=start + 1, session_log=begin)

    def add(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Adds the numbers of a record as `kind/name`."""
        if self.file is None:
            return
        points = [
            self.summary.Summary.Value(tag=f"{kind}/{name}", simple_value=value)
            for name, value in values.items()
        ]
        self._write(step=step, summary=self.summary.Summary(value=points))

    def close(self) -> None:
        """Closes the file; later additions are discarded."""
        if self.file is not None:
            self.file.close()
            self.file = None

    def _write(self, **fields: Any) -> None:
        self.file.write_event(self.event.Event(wall_time=time.time(), **fields))
        # At once, so that TensorBoard shows a running training and a killed process loses nothing.
        self.file.flush()
