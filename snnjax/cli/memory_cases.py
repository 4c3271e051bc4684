"""What `snnjax memory` measures: an experiment's training step, or a stack of reversible blocks."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from snnjax import memory, training
from snnjax.cli.chosen import experiment_path, parse_fields, refuse_stray, with_gradients
from snnjax.cli.couplings import Couplings
from snnjax.cli.failures import Failure
from snnjax.cli.options import Option, parse

__all__ = ["Case", "case_given"]

_TOLD = "Bytes of training against depth and timesteps, per memory strategy: compiled, not run."
_SIZES = [
    Option("batch", int, Couplings.batch, "Examples."),
    Option("channels", int, Couplings.channels, "Of both streams together."),
    Option("size", int, Couplings.size, "Height and width."),
]


class Case(NamedTuple):
    """What to measure.

    Attributes:
        name: of the experiment, or "couplings".
        told: what it is, for people.
        batch: examples.
        depths: `[None]` where there is none to choose.
        timesteps: values of T.
        build: `(depth, timesteps, strategy)` to a jitted function and the shapes of its arguments;
            raises a StrategyError where the network does not admit the strategy.
    """

    name: str
    told: str
    batch: int
    depths: Sequence[int | None]
    timesteps: Sequence[int]
    build: Callable[[Any, int, memory.Strategy], tuple[Any, tuple[Any, ...]]]


def case_given(arguments: list[str], own: Sequence[Option]) -> tuple[Any, Case]:
    """The command's own options, `depths` and `timesteps` among them, and what to measure.

    Raises:
        Failure: An argument is wrong.
    """
    path, rest = experiment_path(arguments)
    return _couplings(rest, own) if path is None else _experiment(path, rest, own)


def _experiment(path: Path, arguments: list[str], own: Sequence[Option]) -> tuple[Any, Case]:
    given = with_gradients(path)
    deep = training.plain_fields(given).get("depth") is int
    hidden = ("timesteps", "depth") if deep else ("timesteps",)
    options, changed = parse_fields("memory", _TOLD, given, own, arguments, leave_out=hidden)
    if options.depths is not None and not deep:
        raise Failure(
            f"{given.name} has no depth to change: give its dataclass an int field `depth` and use "
            "it in network(), or leave out --depths"
        )
    experiment = training.override(given, changed)
    depths: Sequence[int | None] = _numbers("--depths", options.depths, getattr(given, "depth", 1))
    depths = depths if deep else [None]
    timesteps = _numbers("--timesteps", options.timesteps, given.timesteps)
    for pair in itertools.product(depths, timesteps):
        training.check(_at(experiment, *pair))

    @functools.cache
    def dataset(timesteps: int) -> Any:
        return training.load_dataset(_at(experiment, depths[0], timesteps))

    def build(depth: int | None, timesteps: int, strategy: memory.Strategy):
        changed = _at(experiment, depth, timesteps)
        return training.step_under(changed, strategy, dataset=dataset(timesteps))

    told = f"batch {experiment.batch}: the training step, compiled as training would compile it"
    return options, Case(experiment.name, told, experiment.batch, depths, timesteps, build)


def _couplings(arguments: list[str], own: Sequence[Option]) -> tuple[Any, Case]:
    refuse_stray("memory", arguments)
    options = parse("snnjax memory [EXPERIMENT.py]", _TOLD, [*own, *_SIZES], arguments)
    stack = Couplings(options.batch, options.channels, options.size)
    depths = _numbers("--depths", options.depths, 4, 8, 16, 32)
    timesteps = _numbers("--timesteps", options.timesteps, 4)
    told = (
        f"LIF - conv 3x3 - batch norm, batch {stack.batch}, {stack.size} x {stack.size} x "
        f"{stack.channels}: the gradient, compiled alike under every strategy"
    )
    return options, Case("couplings", told, stack.batch, depths, timesteps, stack.gradient)


def _at(experiment: training.Experiment, depth: int | None, timesteps: int) -> training.Experiment:
    values = {"timesteps": timesteps} | ({} if depth is None else {"depth": depth})
    return training.override(experiment, values)


def _numbers(option: str, text: str | None, *default: int) -> list[int]:
    """Whole numbers from 1, separated by commas, each once."""
    if text is None:
        return list(default)
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) >= 1 for part in parts):
        raise Failure(f"{option} takes whole numbers from 1, such as 4,8,16, got {text!r}")
    return list(dict.fromkeys(map(int, parts)))
