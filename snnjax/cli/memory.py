"""`snnjax memory [EXPERIMENT.py] [--depths 4,8,16,32] [--timesteps 4,8] [--strategies "...; ..."]`.

With an experiment its training step is compiled, as training would compile it; `--depths` sets its
field `depth`. Without one it is the gradient of a stack of reversible blocks (`cli.couplings`), on
a CPU compiled alike under every strategy. Nothing runs.

Fields of its JSON object, which is also kept in the folder as memory.json:

    name, folder    what was measured, and where picture and numbers are
    picture         path of the PNG file: temp_bytes against depth and against the timesteps
    rows            per depth, timesteps and strategy, in the order in which they were measured:
        strategy, depth, timesteps, batch       depth is null for an experiment without that field
        argument_bytes, output_bytes            parameters, optimizer, batch; what comes out
        temp_bytes                              everything in between at its peak: what strategies
                                                are about
        total_bytes                             all three, what is overwritten in place counted once
        bytes_per_sample                        total_bytes / batch
        compile_seconds                         tracing and compiling; short if the cache had it
        refused                                 why the network does not admit the strategy, else
                                                null; the bytes are null then
    device          kind of device
    jax             its version
    seconds         from the start of the command to its end
    interrupted     "SIGINT" or "SIGTERM" where it was stopped, else null; rows and picture are then
                    those of what was measured before
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import jax

from snnjax import memory, training, viz
from snnjax.cli import cache
from snnjax.cli.failures import Failure, Interrupted
from snnjax.cli.memory_cases import Case, case_given
from snnjax.cli.options import Option
from snnjax.cli.plan import strategies_given
from snnjax.cli.screen import Screen
from snnjax.cli.signals import listening
from snnjax.cli.sizes import spell_size

__all__ = ["command"]

_STRATEGIES = "depth=store; depth=recompute(1); depth=reverse"
_BASELINE = memory.Strategy(depth=memory.store)
_BYTES = ("argument_bytes", "output_bytes", "temp_bytes", "total_bytes", "bytes_per_sample")
_HEADER = "{:<{width}}  depth     T     temp MB    total MB  per sample  of store   compiled"
_OPTIONS = [
    Option(
        "depths", str | None, None, "Such as 4,8; None is the experiment's own, else 4,8,16,32."
    ),
    Option("timesteps", str | None, None, "Such as 4,8; None is the experiment's own, else 4."),
    Option("strategies", str, _STRATEGIES, "What to compare, separated by semicolons."),
    Option("out", str | None, None, "Folder; None is runs/memory-NAME, numbered if it exists."),
    Option("no_cache", bool, False, "Compile anew instead of taking it from the user's cache."),
]


def command(arguments: list[str], screen: Screen) -> tuple[dict[str, Any], int]:
    """Measures, and draws what was measured."""
    began = time.perf_counter()
    options, case = case_given(arguments, _OPTIONS)
    strategies = _strategies(options.strategies)
    _check_folder(Path("runs") if options.out is None else Path(options.out), options.out)
    cache.enable(on=not options.no_cache)
    device = next(iter(training.make_mesh().devices.flat)).device_kind
    screen.say(f"{case.name}, {case.told}, on {device}")
    with listening() as listener:
        rows, stopped = _measure_all(case, strategies, screen)
        listener.patient = True
        if all(row["refused"] for row in rows):
            raise stopped or _nothing(case, rows)
        _summarise(rows, screen)
        folder = Path(options.out) if options.out else _free(Path("runs") / f"memory-{case.name}")
        figure = viz.memory_curve(rows, title=f"{case.name}: memory of training")
        fields = {
            "name": case.name,
            "folder": str(folder),
            "picture": str(viz.save(figure, folder / "memory.png")),
            "rows": rows,
            "device": device,
            "jax": jax.__version__,
            "seconds": round(time.perf_counter() - began, 3),
            "interrupted": stopped and signal.Signals(stopped.number).name,
        }
        code = 128 + stopped.number if stopped else 0
        file = folder / "memory.json"
        kept = {"command": "memory", **fields, "exit_code": code}
        file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    if stopped:
        screen.say(f"{stopped}: what was measured before is kept")
    screen.say(f"picture: {fields['picture']}    numbers: {file}")
    return fields, code


def _strategies(text: str) -> list[memory.Strategy]:
    """The strategies, each once, the one they are compared with first."""
    found = strategies_given(text)
    if not found:
        raise Failure(f'--strategies names none, got {text!r}: write "{_STRATEGIES}"')
    return sorted(dict.fromkeys(found), key=lambda strategy: strategy != _BASELINE)


def _measure_all(
    case: Case, strategies: list[memory.Strategy], screen: Screen
) -> tuple[list[dict[str, Any]], Interrupted | None]:
    """Every row, each said as it comes, up to a signal."""
    width = max(len("strategy"), *(len(str(strategy)) for strategy in strategies))
    screen.say(_HEADER.format("strategy", width=width))
    rows: list[dict[str, Any]] = []
    told: set[tuple[str, str]] = set()
    try:
        for timesteps, depth in itertools.product(case.timesteps, case.depths):
            stored = None
            for strategy in strategies:
                row = _measure(case, strategy, depth, timesteps)
                rows.append(row)
                stored = row["temp_bytes"] if strategy == _BASELINE else stored
                reason = (row["strategy"], row["refused"])
                if reason not in told:
                    screen.say(_line(row, stored, width))
                told |= {reason} if row["refused"] else set()
    except Interrupted as error:
        return rows, error
    return rows, None


def _measure(
    case: Case, strategy: memory.Strategy, depth: int | None, timesteps: int
) -> dict[str, Any]:
    """One row."""
    row = {"strategy": str(strategy), "depth": depth, "timesteps": timesteps, "batch": case.batch}
    found: dict[str, Any] = dict.fromkeys((*_BYTES, "compile_seconds", "refused"))
    try:
        step, shapes = case.build(depth, timesteps, strategy)
        began = time.perf_counter()
        measured = memory.measure(step, *shapes, samples=case.batch)
        found["compile_seconds"] = round(time.perf_counter() - began, 3)
        found |= {name: getattr(measured, name) for name in _BYTES}
    except training.TrainingError:
        raise  # the experiment is wrong, whatever the strategy
    except NotImplementedError as error:
        raise Failure(str(error)) from error
    except memory.StrategyError as error:
        found["refused"] = " ".join(str(error).split()) or type(error).__name__
    return row | found


def _line(row: dict[str, Any], stored: int | None, width: int) -> str:
    """A row of the table; `stored` are the bytes it is compared with."""
    depth = "-" if row["depth"] is None else row["depth"]
    place = f"{row['strategy']:<{width}}  {depth:>5}  {row['timesteps']:>4}"
    if row["refused"]:
        return f"{place}  refused: {row['refused']}"
    share = f"{row['temp_bytes'] / stored:.0%}" if stored else ""
    numbers = "".join(f"  {row[name] / 1e6:>10,.2f}" for name in ("temp_bytes", "total_bytes"))
    each = spell_size(row["bytes_per_sample"])
    return f"{place}{numbers}  {each:>10}  {share:>8}  {row['compile_seconds']:>7.1f} s"


def _summarise(rows: list[dict[str, Any]], screen: Screen) -> None:
    """What one more block and one more timestep cost, where they were varied."""
    for axis, other, noun in (("depth", "timesteps", "block"), ("timesteps", "depth", "timestep")):
        costs = []
        for strategy in dict.fromkeys(row["strategy"] for row in rows):
            own = [r for r in rows if r["strategy"] == strategy and not r["refused"]]
            largest = max((row[other] or 0 for row in own), default=0)
            points = sorted(
                (r[axis] or 0, r["temp_bytes"]) for r in own if (r[other] or 0) == largest
            )
            if len(points) > 1:
                (x, y), (x2, y2) = points[0], points[-1]
                costs.append(f"{strategy} {(y2 - y) / (x2 - x) / 1e6:,.2f} MB")
        if costs:
            screen.say(f"temporary memory of one more {noun}: {';  '.join(costs)}")


def _nothing(case: Case, rows: list[dict[str, Any]]) -> Failure:
    owners: dict[str, list[str]] = {}
    for row in rows:
        owners.setdefault(row["refused"], []).append(row["strategy"])
    told = (f"{reason} [{', '.join(dict.fromkeys(names))}]" for reason, names in owners.items())
    return Failure(f"{case.name} admits none of the strategies: {'; '.join(told)}")


def _check_folder(folder: Path, out: str | None) -> None:
    """Before anything is measured: that the results will have a place."""
    if out is not None:
        training.Run.check_free(folder)
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise Failure(f"{folder} cannot be made in {there}: choose another folder by --out")


def _free(base: Path) -> Path:
    """The folder, or the first of it numbered that is not there."""
    numbered = (base.with_name(f"{base.name}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([base], numbered) if not path.exists())
