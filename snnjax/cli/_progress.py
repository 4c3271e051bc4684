"""Progress of a run, as a bar on a terminal and as plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from snnjax.cli._output import Screen, spell_size

__all__ = ["Speed", "clock", "progress"]

_QUIET_SECONDS = 10  # between two plain lines

Report = Callable[[dict[str, Any]], None]


@contextlib.contextmanager
def progress(screen: Screen, session: Any) -> Iterator[Report]:
    """Shows the records reported by `training.fit`.

    Args:
        screen: Output.
        session: Session with the number of steps and epochs and the task.

    Yields:
        Function that takes a record.
    """
    if screen.stream.isatty():
        with _bar(screen, session.steps, session.task) as report:
            yield report
    else:
        # A bar would fill a log file with control characters.
        yield _lines(screen, session.steps, session.experiment.epochs, session.task)


class Speed:
    """Steps per second since the first reported step, and the remaining time."""

    def __init__(self, steps: int):
        self.steps = steps
        self.first: tuple[int, float] | None = None

    def __call__(self, step: int) -> tuple[float, float]:
        """Steps per second and remaining seconds; both 0 before the second step."""
        now = time.perf_counter()
        # From the first step of this session, so that compilation and earlier sessions do not
        # count.
        self.first = self.first or (step, now)
        done, seconds = step - self.first[0], now - self.first[1]
        if not done or seconds <= 0:
            return 0.0, 0.0
        return done / seconds, (self.steps - step) * seconds / done


def _lines(screen: Screen, steps: int, epochs: int, task: Any) -> Report:
    # A list, since the nested function assigns the time of its last line.
    speed, latest, printed = Speed(steps), {}, [time.perf_counter()]

    def report(record: dict[str, Any]) -> None:
        if record["kind"] == "start":
            screen.say(f"resuming after step {record['step']}")
            return
        if record["kind"] == "train":
            latest.update(record)
        rate, remaining = speed(record["step"])
        evaluated = record["kind"] == "eval"
        # Lines in a log file are seldom; an evaluation always gets one.
        quiet = time.perf_counter() - printed[0] < _QUIET_SECONDS
        if not evaluated and (quiet or record["kind"] == "step"):
            return
        printed[0] = time.perf_counter()
        test = f"  test {_metric(task, record):>7}" if evaluated else ""
        screen.say(
            f"epoch {record['epoch']:g}/{epochs}  step {record['step']}/{steps}  "
            f"loss {latest.get('loss', 0):.4f}  train {_metric(task, latest):>7}{test}  "
            f"{rate:.1f} steps/s{_memory(latest)}  {clock(remaining)} to go"
        )

    return report


@contextlib.contextmanager
def _bar(screen: Screen, steps: int, task: Any) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    speed = Speed(steps)
    columns = [
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        BarColumn(bar_width=None),
        TextColumn("{task.description}"),
    ]
    with Progress(*columns, console=Console(file=screen.stream), expand=True) as bars:
        bar = bars.add_task("compiled", total=steps)
        shown: dict[str, Any] = {}

        def report(record: dict[str, Any]) -> None:
            if record["kind"] == "start":
                bars.update(bar, completed=record["step"])
                return
            if record["kind"] == "train":
                shown["memory"] = _memory(record)
            elif record["kind"] == "eval":
                shown["test"] = _metric(task, record)
            elif record["kind"] == "step":
                # Single steps are noisy: show a moving average.
                for name in {"loss", task.best}:
                    shown[name] = 0.9 * shown.get(name, record[name]) + 0.1 * record[name]
            rate, remaining = speed(record["step"])
            text = f"loss {shown.get('loss', 0):.3f}  train {_metric(task, shown)}"
            text += f"  test {shown['test']}" if "test" in shown else ""
            text += f"  {rate:.1f} steps/s{shown.get('memory', '')}  {clock(remaining)}"
            bars.update(bar, completed=record["step"], description=text)

        yield report


def _metric(task: Any, values: dict[str, Any]) -> str:
    """Formats the task's deciding metric."""
    return task.format(task.best, values.get(task.best, 0.0))


def _memory(record: dict[str, Any]) -> str:
    """Formats the memory of a train record, after two spaces; empty if unknown."""
    return f"  {spell_size(record['memory_bytes'])}" if "memory_bytes" in record else ""


def clock(seconds: float) -> str:
    """Formats seconds as `h:mm:ss` or `m:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
