"""Metrics on their way from the device to the run directory.

A step's metrics are fetched when later steps have been dispatched already, so that looking at
every step never lets the device wait.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable
from typing import Any

import jax

from snnjax.training.errors import NotFiniteError, StreamBoundError
from snnjax.training.events import Events
from snnjax.training.run import Run
from snnjax.training.step import TrainMetrics
from snnjax.training.unsupervised import PlasticityMetrics

__all__ = ["Journal"]

Metrics = TrainMetrics | PlasticityMetrics

_IN_FLIGHT = 2
_NO_MEANS = {"learning_rate", "finite", "stream"}


class Journal:
    """Fetches metrics, averages them, writes records and reports both.

    Args:
        run: Where records go.
        report: Called with each record, and with `{"kind": "step", ...}` for every step.
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
        steps_per_epoch: int,
        batch: int,
        start: int,
        seconds: float,
    ):
        self.run, self.report = run, report
        self.steps_per_epoch, self.batch = steps_per_epoch, batch
        self.zero = time.perf_counter() - seconds
        self.window_start = time.perf_counter()
        self.waiting: collections.deque[tuple[int, Metrics]] = collections.deque()
        self.window: list[Metrics] = []
        self.events = Events(run.path / "tensorboard", start=start)

    @property
    def seconds(self) -> float:
        """Spent in training loops of this run so far."""
        return time.perf_counter() - self.zero

    def add(self, step: int, metrics: Metrics) -> None:
        """Takes the metrics of a step that was dispatched just now.

        Raises:
            NotFiniteError: A step before it was not finite.
        """
        self.waiting.append((step, metrics))
        while len(self.waiting) > _IN_FLIGHT:
            self._fetch()

    def flush(self, step: int) -> None:
        """Waits for every step so far and writes the record of the window that ends here.

        Raises:
            NotFiniteError: One of them was not finite.
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
        speed = count * self.batch / max(now - self.window_start, 1e-9)
        self.window = []
        self.record("train", step, **values, examples_per_second=round(speed, 1))

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
        if not metrics.finite:
            numbers = ", ".join(f"{k} {v}" for k, v in metrics._asdict().items() if k != "finite")
            raise NotFiniteError(
                f"the loss or its gradient was not finite at step {step} ({numbers})", step=step - 1
            )
        if metrics.stream >= 1:
            raise StreamBoundError(
                f"a reversible stream reached {metrics.stream:.2g} times the bound of its grid at "
                f"step {step}: its reversed gradient is no longer exact. Give the stack a coarser "
                "grid (nn.Reversible(bits=...)) or normalise its branches, or keep activations "
                "(scan=memory.store)",
                step=step - 1,
            )
        self.window.append(metrics)
        self.report({"kind": "step", "step": step, "loss": float(metrics.loss),
                     "accuracy": float(metrics.accuracy)})  # fmt: skip
