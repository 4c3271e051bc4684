"""Metrics on their way from the device to the run directory.

A step's metrics are fetched when later steps have been dispatched already, so that looking at
every step never lets the device wait.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from snnjax.training.nonfinite import Guard, Metrics
from snnjax.training.profiling import memory_bytes
from snnjax.training.run import Run
from snnjax.training.step import TrainMetrics
from snnjax.training.tensorboard import Events

__all__ = ["Journal"]

_IN_FLIGHT = 2
_NO_MEANS = {"learning_rate", "finite", "stream", "loss_scale"}


class Journal:
    """Fetches metrics, averages them, writes records and reports both.

    Args:
        run: Where records go.
        report: Called with each record, and with `{"kind": "step", ...}` for every step.
        guard: Says which steps count, and raises where training must not go on.
        devices: Whose memory is told.
        steps_per_epoch: For the field `epoch`.
        batch: Examples per step.
        start: Steps done before.
        seconds: Spent in training loops of this run before this one.
    """

    def __init__(
        self,
        run: Run,
        report: Callable[[dict[str, Any]], None],
        *,
        guard: Guard,
        devices: Sequence[Any],
        steps_per_epoch: int,
        batch: int,
        start: int,
        seconds: float,
    ):
        self.run, self.report = run, report
        self.guard, self.devices = guard, devices
        self.steps_per_epoch, self.batch = steps_per_epoch, batch
        self.zero = time.perf_counter() - seconds
        self.window_start = time.perf_counter()
        self.waiting: collections.deque[tuple[int, Metrics]] = collections.deque()
        self.window: list[Metrics] = []
        self.skipped = 0
        self.events = Events(run.path / "tensorboard", start=start)

    @property
    def seconds(self) -> float:
        """Spent in training loops of this run so far."""
        return time.perf_counter() - self.zero

    def add(self, step: int, metrics: Metrics) -> None:
        """Takes the metrics of a step that was dispatched just now.

        Raises:
            NotFiniteError: A step before it was not finite, and may not be skipped.
        """
        self.waiting.append((step, metrics))
        while len(self.waiting) > _IN_FLIGHT:
            self._fetch()

    def flush(self, step: int) -> None:
        """Waits for every step so far and writes the record of the window that ends here.

        Steps that were skipped are in no mean. Where all of the window were, it is told with the
        next one.

        Raises:
            NotFiniteError: One of them was not finite, and may not be skipped.
        """
        while self.waiting:
            self._fetch()
        if not self.window:
            return
        count, now = len(self.window), time.perf_counter()
        last = self.window[-1]
        names = [name for name in last._fields if name not in _NO_MEANS]
        values = {k: sum(float(getattr(m, k)) for m in self.window) / count for k in names}
        if isinstance(last, TrainMetrics):
            values["learning_rate"] = float(last.learning_rate)
            if not isinstance(last.loss_scale, tuple):
                values["loss_scale"] = float(last.loss_scale)
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
        self.events.add(kind, step, values)
        self.report(record)
        self.restart_window()

    def restart_window(self) -> None:
        """Leaves what was done besides steps out of the rate of the next record."""
        if not self.window:
            self.window_start = time.perf_counter()

    def close(self) -> None:
        """Closes the event file."""
        self.events.close()

    def _fetch(self) -> None:
        step, metrics = self.waiting.popleft()
        metrics = jax.device_get(metrics)
        if not self.guard.admits(step, metrics):
            self.skipped += 1
            return
        self.window.append(metrics)
        self.report({"kind": "step", "step": step, "loss": float(metrics.loss),
                     "accuracy": float(metrics.accuracy)})  # fmt: skip
