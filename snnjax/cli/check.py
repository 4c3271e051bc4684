"""`snnjax check [EXPERIMENT.py] [--strategies "..."] [--field value ...]`.

Fields of its JSON object:

    name, device, batch     name of the experiment, kind of device, batch size
    rows                    per strategy: strategy, ok, faults (sentences), outputs_equal,
                            statistics_equal, gradient_relative (largest), gradient_cosine
                            (smallest), worst (array of the largest), gradients (per array:
                            relative, cosine, norm_ratio), layers (the same per layer), exact
                            (false if the strategy or a layer declares another derivative, whose
                            difference is no fault), residual (of its solver), reconstruction,
                            bits_left, temp_bytes, total_bytes, seconds, chosen (always false)
    device_peak_bytes       peak over all strategies if the device reports it, else null
    independence            faults of evaluation: examples that depend on their batch or padding
    ok                      true if every row is ok and no example depends on others
    seconds                 duration of the command
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from snnjax import memory, training
from snnjax.cli import _cache as cache
from snnjax.cli._experiment_args import parse_experiment
from snnjax.cli._options import Option
from snnjax.cli._output import Screen, spell_size
from snnjax.cli.plan import parse_strategies

__all__ = ["command"]

_DESCRIPTION = "Check that every memory strategy gives the values and the gradient of store."
_OPTIONS = [
    Option(
        "strategies", str | None, None, 'Strategies, such as "depth=recompute(1); time=reverse".'
    ),
    Option("bound", float, 1e-5, "Largest relative difference of a gradient."),
    Option("repeats", int, 3, "Number of timed runs."),
    cache.OPTION,
]  # fmt: skip


def command(arguments: list[str], screen: Screen) -> tuple[dict[str, Any], int]:
    """Checks the strategies."""
    began = time.perf_counter()
    options, experiment = parse_experiment("check", _DESCRIPTION, _OPTIONS, arguments)
    # Before the data are loaded: a misspelt strategy costs no time.
    strategies = parse_strategies(options.strategies)
    mesh = training.sharding.make_mesh()
    device = next(iter(mesh.devices.flat)).device_kind
    cache.enable(on=not options.no_cache, warn=screen.warn)
    dataset = training.config.load_dataset(experiment)
    screen.say(
        f"{experiment.name}, batch {experiment.batch}, T = {experiment.timesteps}, {device}: "
        "gradients against store"
    )
    screen.say(
        f"  {'strategy':<52} {'outputs':>7} {'statist.':>8} {'gradient':>9} {'1 - cosine':>10} "
        f"{'rebuilt':>8} {'bytes':>9} {'ms':>7}"
    )
    # Reported one by one: each strategy is compiled anew, which may take a minute.
    findings = training.planning.check_strategies(
        experiment, dataset=dataset, strategies=strategies, mesh=mesh, bound=options.bound,
        repeats=options.repeats, report=lambda finding: _print(finding, screen),
    )  # fmt: skip
    dependent = training.planning.check_independence(experiment, dataset=dataset)
    for fault in dependent:
        screen.say(f"FAULT in evaluation, {fault}")
    ok = all(finding.ok for finding in findings)
    wrong = sum(not finding.ok for finding in findings)
    screen.say(
        f"all {len(findings)} give the same gradient"
        if ok and all(finding.exact for finding in findings)
        else f"all {len(findings)} give the gradient they declare"
        if ok
        else f"{wrong} of {len(findings)} are wrong"
    )
    return {
        "name": experiment.name,
        "device": device,
        "batch": experiment.batch,
        "rows": [_row(finding) for finding in findings],
        # Devices count their peak since the start of the process, hence over all strategies.
        "device_peak_bytes": memory.accounting.device_peak(device=next(iter(mesh.devices.flat))),
        "independence": dependent,
        "ok": ok and not dependent,
        "seconds": round(time.perf_counter() - began, 3),
    }, 0 if ok and not dependent else 1


def _print(finding: memory.checking.CheckResult, screen: Screen) -> None:
    mark = {True: "equal", False: "DIFFER", None: "-"}
    # Only strategies that invert a step or a block rebuild a state.
    rebuilt = "-" if finding.reconstruction is None else f"{finding.reconstruction:.1e}"
    screen.say(
        f"  {finding.name:<52} {mark[finding.outputs_equal]:>7} "
        f"{mark[finding.statistics_equal]:>8} {finding.relative:>9.1e} "
        # Rounding may bring a cosine above 1.
        f"{max(0.0, 1 - finding.cosine):>10.1e} {rebuilt:>8} "
        f"{spell_size(finding.measured.total_bytes):>9} {1000 * finding.seconds:>7.1f}"
    )
    if not finding.exact:
        solved = "" if finding.residual is None else f", solver residual {finding.residual:.1e}"
        screen.say(f"    another derivative, beside backpropagation through time{solved}:")
        for name, gap in finding.layers.items():
            screen.say(f"      {name:<60} cosine {gap.cosine:6.3f}, norm x {gap.norm_ratio:.3f}")
    # Below the row: a fault is a sentence, too long for a column.
    for fault in finding.faults:
        screen.say(f"    FAULT {fault}")


def _row(finding: memory.checking.CheckResult) -> dict[str, Any]:
    gradients = finding.gradients
    return {
        "strategy": finding.name,
        "ok": finding.ok,
        "faults": list(finding.faults),
        "outputs_equal": finding.outputs_equal,
        "statistics_equal": finding.statistics_equal,
        "gradient_relative": finding.relative,
        "gradient_cosine": finding.cosine,
        "worst": max(gradients, key=lambda name: gradients[name].relative, default=None),
        **{
            field: {name: dataclasses.asdict(gap) for name, gap in gaps.items()}
            for field, gaps in (("gradients", gradients), ("layers", finding.layers))
        },
        "reconstruction": finding.reconstruction,
        "bits_left": finding.bits_left,
        "temp_bytes": finding.measured.temp_bytes,
        "total_bytes": finding.measured.total_bytes,
        "seconds": finding.seconds,
        "exact": finding.exact,
        "residual": finding.residual,
        # The rows have the form of `snnjax plan`, so that one reader serves both.
        "chosen": False,
    }
