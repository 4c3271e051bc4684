"""`snnjax memory [EXPERIMENT.py] [--depths 4,8,16,32] [--timesteps 4,8] [--strategies "...; ..."]`.

Measures bytes of training against depth and timesteps. The training step of an experiment is
compiled as training would compile it; `--depths` sets its field `depth`. Without an experiment the
gradient of a stack of `depth` reversible blocks is compiled, with half the channels per stream:

    y1 = x1 + q(F(x2)),   y2 = x2 + q(G(y1)),      F, G: LIF - conv 3x3 - batch norm

It is the gradient of the mean square of the outputs with respect to parameters and inputs. Nothing
runs.

Fields of its JSON object, which is also saved in the folder as memory.json:

    name, folder    name of the case, and folder of picture and numbers
    picture         path of the PNG file: temp_bytes against depth and against the timesteps
    rows            per depth, timesteps and strategy, in the order of measurement:
        strategy, depth, timesteps, batch       depth is null for an experiment without that field
        argument_bytes, output_bytes            parameters, optimizer, batch; results
        temp_bytes                              peak of temporaries, which strategies reduce
        total_bytes                             all three, with overwritten buffers counted once
        bytes_per_sample                        total_bytes / batch
        compile_seconds                         tracing and compiling; short on a cache hit
        refused                                 reason if the network does not admit the strategy,
                                                else null; the bytes are null then
    device          kind of device
    jax             version of jax
    seconds         duration of the command
    interrupted     "SIGINT" or "SIGTERM" if stopped, else null; rows and picture then hold the
                    earlier measurements
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import memory, nn, training, viz
from snnjax.cli import _cache as cache
from snnjax.cli._experiment_args import (
    check_order,
    experiment_path,
    load_gradient_experiment,
    parse_fields,
)
from snnjax.cli._failures import Failure, Interrupted
from snnjax.cli._options import Option, parse
from snnjax.cli._output import Screen, check_creatable, spell_size
from snnjax.cli.plan import parse_strategies

__all__ = [
    "Case",
    "Couplings",
    "command",
    "parse_case",
]

_DESCRIPTION = (
    "Bytes of training against depth and timesteps, per memory strategy: compiled, not run."
)


class Case(NamedTuple):
    """Program to measure.

    Attributes:
        name: Name of the experiment, or "couplings".
        description: Description for people.
        batch: Batch size.
        depths: Depths; `[None]` without a field `depth`.
        timesteps: Values of T.
        build: `(depth, timesteps, strategy)` to a jitted function and the shapes of its arguments;
            raises a StrategyError if the network does not admit the strategy.
    """

    name: str
    description: str
    batch: int
    depths: Sequence[int | None]
    timesteps: Sequence[int]
    build: Callable[[Any, int, memory.Strategy], tuple[Any, tuple[Any, ...]]]


def parse_case(arguments: list[str], own: Sequence[Option]) -> tuple[Any, Case]:
    """Parses the options of the command and makes the program to measure.

    Raises:
        Failure: An argument is wrong.
    """
    path, rest = experiment_path(arguments)
    return _couplings(rest, own) if path is None else _experiment(path, rest, own)


def _experiment(path: Path, arguments: list[str], own: Sequence[Option]) -> tuple[Any, Case]:
    base = load_gradient_experiment(path)
    # Not every experiment has a depth: a subclass adds the field.
    deep = training.config.plain_fields(base).get("depth") is int
    # The command sets these fields itself, by options that take several values.
    hidden = ("timesteps", "depth") if deep else ("timesteps",)
    options, changed = parse_fields("memory", _DESCRIPTION, base, own, arguments, leave_out=hidden)
    if options.depths is not None and not deep:
        raise Failure(
            f"{base.name} has no depth to change: give its dataclass an int field `depth` and use "
            "it in network(), or leave out --depths"
        )
    experiment = training.config.override(base, changed)
    depths: Sequence[int | None] = _numbers("--depths", options.depths, getattr(base, "depth", 1))
    depths = depths if deep else [None]
    timesteps = _numbers("--timesteps", options.timesteps, base.timesteps)
    # All sizes are checked before the first is compiled.
    for pair in itertools.product(depths, timesteps):
        training.config.check(_with_size(experiment, *pair))

    # Of `dataset(experiment)` only the timesteps matter here, and data may take minutes to load.
    @functools.cache
    def dataset(timesteps: int) -> Any:
        return training.config.load_dataset(_with_size(experiment, depths[0], timesteps))

    def build(depth: int | None, timesteps: int, strategy: memory.Strategy):
        changed = _with_size(experiment, depth, timesteps)
        return training.planning.training_step(changed, strategy, dataset=dataset(timesteps))

    text = f"batch {experiment.batch}: the training step, compiled as training would compile it"
    return options, Case(experiment.name, text, experiment.batch, depths, timesteps, build)


def _couplings(arguments: list[str], own: Sequence[Option]) -> tuple[Any, Case]:
    check_order("memory", arguments)
    options = parse("snnjax memory [EXPERIMENT.py]", _DESCRIPTION, [*own, *_SIZES], arguments)
    stack = Couplings(options.batch, options.channels, options.size)
    depths = _numbers("--depths", options.depths, 4, 8, 16, 32)
    timesteps = _numbers("--timesteps", options.timesteps, 4)
    text = (
        f"LIF - conv 3x3 - batch norm, batch {stack.batch}, {stack.size} x {stack.size} x "
        f"{stack.channels}: the gradient, compiled alike under every strategy"
    )
    return options, Case("couplings", text, stack.batch, depths, timesteps, stack.gradient)


def _with_size(
    experiment: training.Experiment, depth: int | None, timesteps: int
) -> training.Experiment:
    values = {"timesteps": timesteps} | ({} if depth is None else {"depth": depth})
    return training.config.override(experiment, values)


def _numbers(option: str, text: str | None, *default: int) -> list[int]:
    """Parses positive integers separated by commas, without repetitions."""
    if text is None:
        return list(default)
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) >= 1 for part in parts):
        raise Failure(f"{option} takes whole numbers from 1, such as 4,8,16, got {text!r}")
    return list(dict.fromkeys(map(int, parts)))


@dataclasses.dataclass(frozen=True)
class Couplings:
    """Gradient of a stack of reversible blocks.

    Attributes:
        batch: Batch size.
        channels: Channels of both streams together.
        size: Height and width.

    Raises:
        Failure: A number is not positive, or the channels are odd.
    """

    batch: int = 8
    channels: int = 64
    size: int = 16

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise Failure(f"--{field.name} must be at least 1, got {getattr(self, field.name)}")
        if self.channels % 2:
            raise Failure(
                f"--channels are split into two streams: choose an even number, not {self.channels}"
            )

    def gradient(
        self, depth: int, timesteps: int, strategy: memory.Strategy
    ) -> tuple[Any, tuple[Any, ...]]:
        """Jitted gradient and the shapes of its arguments; nothing is compiled.

        Raises:
            ValueError: The stack does not admit the strategy.
        """
        # XLA's default scheduler: in one scanned stack the memory-optimised one has nothing to
        # reorder (it cost reverse 1.5 MB of 9.3, and saved store 1 %).
        shape = (self.size, self.size, self.channels)
        body = nn.Reversible(self._branch, self._branch, depth, rngs=nnx.Rngs(0))
        network = nn.with_memory(nn.Network(body, shape), strategy)
        graphdef, params, constants = nn.split(network)
        # Shapes suffice to compile: no array is allocated.
        frames = jax.ShapeDtypeStruct((timesteps, self.batch, *shape), jnp.float32)

        def loss(params, frames, constants, statistics):
            network = nn.merge(graphdef, params, constants)
            start = network.initial_state(self.batch)._replace(statistics=statistics)
            outputs, aux = network(frames, start, training=True)
            # Statistics are outputs, as in training: XLA would remove the computation of unused
            # ones.
            return jnp.mean(jnp.square(outputs)), aux.statistics

        # Inputs too: within a network a stack has to pass their cotangent on.
        gradient = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
        return gradient, (params, frames, constants, network.initial_state(1).statistics)

    def _branch(self, rngs: nnx.Rngs) -> nn.contract.Layer:
        half = self.channels // 2
        return nn.Sequential(nn.LIF(), nn.Conv(half, half, rngs=rngs), nn.BatchNorm(half))


_SIZES = [
    Option("batch", int, Couplings.batch, "Batch size."),
    Option("channels", int, Couplings.channels, "Channels of both streams together."),
    Option("size", int, Couplings.size, "Height and width."),
]


_STRATEGIES = "depth=store; depth=recompute(1); depth=reverse"
_BASELINE = memory.Strategy(depth=memory.store)
_BYTES = ("argument_bytes", "output_bytes", "temp_bytes", "total_bytes", "bytes_per_sample")
_HEADER = "{:<{width}}  depth     T     temp MB    total MB  per sample  of store   compiled"
_OPTIONS = [
    Option(
        "depths",
        str | None,
        None,
        "Depths, such as 4,8; None is the experiment's own, else 4,8,16,32.",
    ),
    Option(
        "timesteps",
        str | None,
        None,
        "Values of T, such as 4,8; None is the experiment's own, else 4.",
    ),
    Option("strategies", str, _STRATEGIES, "Strategies to compare, separated by semicolons."),
    Option("out", str | None, None, "Folder; None is runs/memory-NAME, numbered if it exists."),
    cache.OPTION,
]


def command(arguments: list[str], screen: Screen) -> tuple[dict[str, Any], int]:
    """Measures bytes and draws them."""
    began = time.perf_counter()
    options, case = parse_case(arguments, _OPTIONS)
    strategies = _strategies(options.strategies)
    # Before the measurements, which take minutes.
    _check_folder(Path("runs") if options.out is None else Path(options.out), options.out)
    cache.enable(on=not options.no_cache, warn=screen.warn)
    device = next(iter(training.sharding.make_mesh().devices.flat)).device_kind
    screen.say(f"{case.name}, {case.description}, on {device}")
    rows = _measure_all(case, strategies, screen)
    stopped = screen.listener.number
    if all(row["refused"] for row in rows):
        # Without any bytes there is nothing to draw.
        raise Interrupted(stopped) if stopped else _all_refused(case, rows)
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
        "interrupted": stopped and signal.Signals(stopped).name,
    }
    code = 128 + stopped if stopped else 0
    file = folder / "memory.json"
    kept = {"command": "memory", **fields, "exit_code": code}
    # Saved with the picture in any case: --json only concerns stdout.
    file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    if stopped:
        screen.say(f"{Interrupted(stopped)}: earlier measurements are kept")
    screen.say(f"picture: {fields['picture']}    numbers: {file}")
    return fields, code


def _strategies(text: str) -> list[memory.Strategy]:
    """Strategies without repetitions, the baseline first."""
    found = parse_strategies(text)
    if not found:
        raise Failure(f'--strategies names none, got {text!r}: write "{_STRATEGIES}"')
    # The share of store's bytes is printed with each row, so store is measured first.
    return sorted(dict.fromkeys(found), key=lambda strategy: strategy != _BASELINE)


def _measure_all(
    case: Case, strategies: list[memory.Strategy], screen: Screen
) -> list[dict[str, Any]]:
    """Measures and prints the rows, up to a signal."""
    width = max(len("strategy"), *(len(str(strategy)) for strategy in strategies))
    screen.say(_HEADER.format("strategy", width=width))
    rows: list[dict[str, Any]] = []
    printed: set[tuple[str, str]] = set()
    for timesteps, depth in itertools.product(case.timesteps, case.depths):
        stored = None
        for strategy in strategies:
            row = _measure(case, strategy, depth, timesteps)
            # From the first row on a signal ends the measurements and not the report.
            if screen.listener.number is not None:
                return rows
            screen.listener.patient = True
            rows.append(row)
            stored = row["temp_bytes"] if strategy == _BASELINE else stored
            reason = (row["strategy"], row["refused"])
            # A refusal does not depend on depth or timesteps: one line says it all.
            if reason not in printed:
                screen.say(_line(row, stored, width))
            printed |= {reason} if row["refused"] else set()
    return rows


def _measure(
    case: Case, strategy: memory.Strategy, depth: int | None, timesteps: int
) -> dict[str, Any]:
    """Measures one row."""
    row = {"strategy": str(strategy), "depth": depth, "timesteps": timesteps, "batch": case.batch}
    found: dict[str, Any] = dict.fromkeys((*_BYTES, "compile_seconds", "refused"))
    try:
        step, shapes = case.build(depth, timesteps, strategy)
        began = time.perf_counter()
        measured = memory.measure(step, *shapes, samples=case.batch)
        found["compile_seconds"] = round(time.perf_counter() - began, 3)
        found |= {name: getattr(measured, name) for name in _BYTES}
    except training.errors.TrainingError:
        raise  # the experiment is wrong, whatever the strategy
    except NotImplementedError as error:
        raise Failure(str(error)) from error
    except memory.StrategyError as error:
        found["refused"] = " ".join(str(error).split()) or type(error).__name__
    return row | found


def _line(row: dict[str, Any], stored: int | None, width: int) -> str:
    """Row of the table; `stored` are the bytes of the baseline."""
    depth = "-" if row["depth"] is None else row["depth"]
    place = f"{row['strategy']:<{width}}  {depth:>5}  {row['timesteps']:>4}"
    if row["refused"]:
        return f"{place}  refused: {row['refused']}"
    # The baseline may not be among the strategies, or be refused.
    share = f"{row['temp_bytes'] / stored:.0%}" if stored else ""
    numbers = "".join(f"  {row[name] / 1e6:>10,.2f}" for name in ("temp_bytes", "total_bytes"))
    each = spell_size(row["bytes_per_sample"])
    return f"{place}{numbers}  {each:>10}  {share:>8}  {row['compile_seconds']:>7.1f} s"


def _summarise(rows: list[dict[str, Any]], screen: Screen) -> None:
    """Prints the cost of one more block and one more timestep, if they were varied."""
    for axis, other, noun in (("depth", "timesteps", "block"), ("timesteps", "depth", "timestep")):
        costs = []
        for strategy in dict.fromkeys(row["strategy"] for row in rows):
            own = [r for r in rows if r["strategy"] == strategy and not r["refused"]]
            # The slope at the largest other size: there it matters most.
            largest = max((row[other] or 0 for row in own), default=0)
            points = sorted(
                (r[axis] or 0, r["temp_bytes"]) for r in own if (r[other] or 0) == largest
            )
            if len(points) > 1:
                (x, y), (x2, y2) = points[0], points[-1]
                costs.append(f"{strategy} {(y2 - y) / (x2 - x) / 1e6:,.2f} MB")
        if costs:
            screen.say(f"temporary memory of one more {noun}: {';  '.join(costs)}")


def _all_refused(case: Case, rows: list[dict[str, Any]]) -> Failure:
    owners: dict[str, list[str]] = {}
    for row in rows:
        owners.setdefault(row["refused"], []).append(row["strategy"])
    texts = (f"{reason} [{', '.join(dict.fromkeys(names))}]" for reason, names in owners.items())
    return Failure(f"{case.name} admits none of the strategies: {'; '.join(texts)}")


def _check_folder(folder: Path, out: str | None) -> None:
    """Checks before any measurement that the results can be saved."""
    if out is not None:
        training.Run.check_free(folder)
    check_creatable(folder)


def _free(base: Path) -> Path:
    """The folder, or its first unused numbered variant."""
    # Results are never overwritten.
    numbered = (base.with_name(f"{base.name}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([base], numbered) if not path.exists())
