"""How far a run is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from snnjax.cli.output import Screen
from snnjax.cli.units import spell_size

__all__ = ["Speed", "progress"]

_QUIET_SECONDS = 10  # at most between two plain lines, if anything happened

Report = Callable[[dict[str, Any]], None]


@contextlib.contextmanager
def progress(screen: Screen, *, steps: int, epochs: int) -> Iterator[Report]:
    """A function to report records to, see `training.fit`.

    Args:
        screen: Where to show them.
        steps: Of the whole run.
        epochs: Of the whole run.
    """
    if screen.stream.isatty():
        with _bar(screen, steps) as report:
            yield report
    else:
        yield _lines(screen, steps, epochs)


class Speed:
    """Steps per second since the first step that was reported, and the time to go."""

    def __init__(self, steps: int):
        self.steps = steps
        self.first: tuple[int, float] | None = None

    def __call__(self, step: int) -> tuple[float, float]:
        """The rate, and the seconds to go; both 0 until there are two steps."""
        now = time.perf_counter()
        self.first = self.first or (step, now)
        done, seconds = step - self.first[0], now - self.first[1]
        if not done or seconds <= 0:
            return 0.0, 0.0
        return done / seconds, (self.steps - step) * seconds / done


def _lines(screen: Screen, steps: int, epochs: int) -> Report:
    speed, latest, spoken = Speed(steps), {}, [time.perf_counter()]

    def report(record: dict[str, Any]) -> None:
        if record["kind"] == "start":
            screen.say(f"going on after step {record['step']}")
            return
        if record["kind"] == "train":
            latest.update(record)
        rate, remaining = speed(record["step"])
        judged = record["kind"] == "eval"
        quiet = time.perf_counter() - spoken[0] < _QUIET_SECONDS
        if not judged and (quiet or record["kind"] == "step"):
            return
        spoken[0] = time.perf_counter()
        test = f"  test {record['accuracy']:7.2%}" if judged else ""
        screen.say(
            f"epoch {record['epoch']:g}/{epochs}  step {record['step']}/{steps}  "
            f"loss {latest.get('loss', 0):.4f}  train {latest.get('accuracy', 0):7.2%}{test}  "
            f"{rate:.1f} steps/s{_memory(latest)}  {clock(remaining)} to go"
        )

    return report


@contextlib.contextmanager
def _bar(screen: Screen, steps: int) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    speed = Speed(steps)
    columns = [
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        BarColumn(bar_width=None),
        TextColumn("{task.description}"),
    ]
    with Progress(*columns, console=Console(file=screen.stream), expand=True) as bars:
        task = bars.add_task("compiled", total=steps)
        shown: dict[str, Any] = {}

        def report(record: dict[str, Any]) -> None:
            if record["kind"] == "start":
                bars.update(task, completed=record["step"])
                return
            if record["kind"] == "train":
                shown["memory"] = _memory(record)
            elif record["kind"] == "eval":
                shown["test"] = record["accuracy"]
            elif record["kind"] == "step":
                # A step by itself is noisy: show a moving average.
                for name in ("loss", "accuracy"):
                    shown[name] = 0.9 * shown.get(name, record[name]) + 0.1 * record[name]
            rate, remaining = speed(record["step"])
            text = f"loss {shown.get('loss', 0):.3f}  train {shown.get('accuracy', 0):.1%}"
            text += f"  test {shown['test']:.1%}" if "test" in shown else ""
            text += f"  {rate:.1f} steps/s{shown.get('memory', '')}  {clock(remaining)}"
            bars.update(task, completed=record["step"], description=text)

        yield report


def _memory(record: dict[str, Any]) -> str:
    """The memory of a train record, with two spaces in front; nothing where it is not known."""
    return f"  {spell_size(record['memory_bytes'])}" if "memory_bytes" in record else ""


def clock(seconds: float) -> str:
    """Seconds as `h:mm:ss` or `m:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
