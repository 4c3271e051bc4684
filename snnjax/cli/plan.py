"""`snnjax plan [EXPERIMENT.py] --budget 8GiB [--largest FIELD] [--field value ...]`.

Fields of its JSON object:

    name, device, budget    name of the experiment, kind of device, budget in bytes
    rows                    per strategy: strategy, argument_bytes, output_bytes, temp_bytes,
                            total_bytes, bytes_per_sample, operations, extra_passes (estimate, in
                            forward passes), ok (it fits), exact (false if its gradient is not
                            that of backpropagation through time: never chosen without
                            --approximate), chosen, refused (reason, or null; the numbers are null
                            if refused)
    chosen                  fitting strategy with the fewest operations, or null
    missing_bytes           excess of the leanest strategy over the budget, 0 if it fits
    largest                 {"field", "value", "strategy"} with --largest, else null
    seconds                 duration of the command
"""

from __future__ import annotations

import time
from typing import Any

from snnjax import memory, training
from snnjax.cli import _cache as cache
from snnjax.cli._devices import MESH, describe_mesh, parse_mesh
from snnjax.cli._experiment_args import parse_experiment
from snnjax.cli._failures import Failure
from snnjax.cli._options import Option
from snnjax.cli._output import Screen, read_size, spell_size

__all__ = ["command", "parse_strategies"]

_DESCRIPTION = "Find a memory strategy for a budget: each is compiled and measured, not trained."
_OPTIONS = [
    Option("budget", str | None, None, "Bytes, such as 8GiB or 500MB; None is the device's own."),
    Option(
        "strategies", str | None, None, 'Strategies, such as "depth=recompute(1); pack=True".'
    ),
    Option("largest", str | None, None, "Field whose largest fitting value to find."),
    Option("approximate", bool, False, "May choose strategies with another gradient, time=sltt."),
    MESH,
    cache.OPTION,
]  # fmt: skip


def command(arguments: list[str], screen: Screen) -> tuple[dict[str, Any], int]:
    """Measures the strategies and chooses one."""
    began = time.perf_counter()
    options, experiment = parse_experiment("plan", _DESCRIPTION, _OPTIONS, arguments)
    mesh = parse_mesh(options.mesh)
    # One device stands for all: bytes are per device, and all hold equal parts.
    device = next(iter(mesh.devices.flat))
    budget = read_size(options.budget) if options.budget else _device_budget(device)
    strategies = parse_strategies(options.strategies)
    # Before minutes of compilation.
    if options.largest:
        training.planning.integer_field(experiment, options.largest)
    cache.enable(on=not options.no_cache, warn=screen.warn)
    dataset = training.config.load_dataset(experiment)
    screen.say(
        f"{experiment.name}, batch {experiment.batch}, T = {experiment.timesteps}: a training step "
        f"on {describe_mesh(mesh)}, budget {spell_size(budget)} per device"
    )

    # A line per strategy as it is measured, since each compilation takes a while.
    def report(candidate: memory.budget.Candidate) -> None:
        screen.say(f"  {_line(candidate)}")

    try:
        planned = training.planning.plan(
            experiment, dataset=dataset, strategies=strategies, mesh=mesh, report=report,
            approximate=options.approximate,
        )  # fmt: skip
    # A network that admits none of the strategies is bad input and no defect.
    except memory.StrategyError as error:
        raise Failure(str(error)) from error
    chosen = planned.choose(budget)
    _conclude(planned, chosen, budget, screen)
    largest = None
    if options.largest:
        strategy, value = training.planning.largest(
            experiment, options.largest, budget, planned, dataset=dataset, mesh=mesh
        )
        largest = {"field": options.largest, "value": value, "strategy": str(strategy)}
        screen.say(f"largest {options.largest} that fits: {value:,}, with {strategy}")
    return {
        "name": experiment.name,
        "device": device.device_kind,
        "budget": budget,
        "rows": [_row(planned, c, c is chosen, budget) for c in planned.candidates],
        "chosen": str(chosen.strategy) if chosen else None,
        "missing_bytes": planned.missing(budget),
        "largest": largest,
        "seconds": round(time.perf_counter() - began, 3),
    }, 0 if chosen else 1


def parse_strategies(text: str | None) -> list[memory.Strategy] | None:
    """Parses strategies separated by semicolons; None for an empty list.

    Raises:
        Failure: A strategy cannot be parsed.
    """
    if text is None:
        return None
    try:
        # Semicolons separate strategies, since commas separate the parts of one.
        return [memory.parse_strategy(part) for part in text.split(";") if part.strip()] or None
    except ValueError as error:
        raise Failure(str(error)) from None


def _device_budget(device: Any) -> int:
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if not limit:
        # A CPU shares its memory with all other processes.
        raise Failure(f"{device.device_kind} does not say how much memory it has: --budget 8GiB")
    return limit


def _line(candidate: memory.budget.Candidate) -> str:
    if candidate.measured is None:
        return f"{candidate.strategy!s:<58} refused: {candidate.refused}"
    line = f"{candidate.strategy!s:<58} {spell_size(candidate.measured.total_bytes):>10}"
    return line if candidate.strategy.exact else f"{line}  another gradient"


def _conclude(
    planned: memory.budget.Plan, chosen: memory.budget.Candidate | None, budget: int, screen: Screen
) -> None:
    if chosen is None and not (planned.approximate or planned.leanest.strategy.exact):
        screen.say(
            "nothing is chosen: these strategies have another gradient than backpropagation "
            "through time, and --approximate admits them"
        )
        return
    if chosen is None:
        screen.say(
            f"nothing fits: the leanest, {planned.leanest.strategy}, is over by "
            f"{spell_size(planned.missing(budget))}; choose a smaller --batch or --timesteps "
            "(--largest batch finds it)"
        )
        return
    assert chosen.measured is not None
    passes = planned.extra_passes(chosen)
    screen.say(
        f"chosen: {chosen.strategy} with {spell_size(chosen.measured.total_bytes)} and about "
        f"{passes:.2f} extra forward passes"
    )
    # The network as written needs no option.
    if chosen.strategy != memory.Strategy():
        screen.say(f'train with it: --memory "{chosen.strategy}"')


def _row(
    planned: memory.budget.Plan, candidate: memory.budget.Candidate, chosen: bool, budget: int
) -> dict[str, Any]:
    measured, sizes = candidate.measured, ("argument", "output", "temp", "total")
    return {
        "strategy": str(candidate.strategy),
        **{f"{size}_bytes": getattr(measured, f"{size}_bytes", None) for size in sizes},
        "bytes_per_sample": getattr(measured, "bytes_per_sample", None),
        # Estimates of a program that cannot be built would mislead.
        "operations": candidate.operations if measured else None,
        "extra_passes": planned.extra_passes(candidate) if measured else None,
        # A refused strategy fits no budget.
        "ok": measured is not None and measured.total_bytes <= budget,
        "exact": candidate.strategy.exact,
        "chosen": chosen,
        "refused": candidate.refused,
    }
