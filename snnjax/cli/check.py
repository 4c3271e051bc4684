"""`snnjax check [EXPERIMENT.py] [--strategies "..."] [--field value ...]`.

Fields of its JSON object:

    name, device, batch     the experiment, the kind of device, the examples compared on
    rows                    per strategy: strategy, ok, faults (sentences), outputs_equal,
                            statistics_equal, gradient_relative (largest), gradient_cosine
                            (smallest), worst (the array where), gradients (per array: relative,
                            cosine), reconstruction, bits_left, temp_bytes, total_bytes, seconds,
                            chosen (always false: a check does not choose)
    device_peak_bytes       measured over all of them, where the device reports it, else null
    ok                      whether every row is
    seconds                 from the start of the command to its end
"""

from __future__ import annotations

import time
from typing import Any

from snnjax import memory, training
from snnjax.cli import cache
from snnjax.cli.experiment_args import with_fields
from snnjax.cli.options import Option
from snnjax.cli.output import Screen
from snnjax.cli.plan import strategies_given
from snnjax.cli.units import spell_size

__all__ = ["command"]

_TOLD = "Whether every memory strategy gives the values and the gradient of store."
_OPTIONS = [
    Option("strategies", str | None, None, 'Such as "depth=recompute(1); time=reverse".'),
    Option("bound", float, 1e-5, "Relative difference of a gradient to put up with."),
    Option("repeats", int, 3, "Runs to time."),
    Option("no_cache", bool, False, "Compile anew instead of taking it from the user's cache."),
]  # fmt: skip


def command(arguments: list[str], screen: Screen) -> tuple[dict[str, Any], int]:
    """Checks."""
    began = time.perf_counter()
    options, experiment = with_fields("check", _TOLD, _OPTIONS, arguments)
    strategies = strategies_given(options.strategies)
    mesh = training.make_mesh()
    device = next(iter(mesh.devices.flat)).device_kind
    cache.enable(on=not options.no_cache)
    dataset = training.load_dataset(experiment)
    screen.say(
        f"{experiment.name}, batch {experiment.batch}, T = {experiment.timesteps}, {device}: "
        "gradients against store"
    )
    screen.say(
        f"  {'strategy':<52} {'outputs':>7} {'statist.':>8} {'gradient':>9} {'1 - cosine':>10} "
        f"{'rebuilt':>8} {'bytes':>9} {'ms':>7}"
    )
    found = training.check_strategies(
        experiment, dataset=dataset, strategies=strategies, mesh=mesh, bound=options.bound,
        repeats=options.repeats, report=lambda finding: _say(finding, screen),
    )  # fmt: skip
    ok = all(finding.ok for finding in found)
    wrong = sum(not finding.ok for finding in found)
    screen.say(
        f"all {len(found)} give the same gradient" if ok else f"{wrong} of {len(found)} are wrong"
    )
    return {
        "name": experiment.name,
        "device": device,
        "batch": experiment.batch,
        "rows": [_row(finding) for finding in found],
        "device_peak_bytes": memory.accounting.device_peak(device=next(iter(mesh.devices.flat))),
        "ok": ok,
        "seconds": round(time.perf_counter() - began, 3),
    }, 0 if ok else 1


def _say(finding: memory.checking.CheckResult, screen: Screen) -> None:
    mark = {True: "equal", False: "DIFFER", None: "-"}
    rebuilt = "-" if finding.reconstruction is None else f"{finding.reconstruction:.1e}"
    screen.say(
        f"  {finding.name:<52} {mark[finding.outputs_equal]:>7} "
        f"{mark[finding.statistics_equal]:>8} {finding.relative:>9.1e} "
        f"{max(0.0, 1 - finding.cosine):>10.1e} {rebuilt:>8} "
        f"{spell_size(finding.measured.total_bytes):>9} {1000 * finding.seconds:>7.1f}"
    )
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
        "gradients": {
            name: {"relative": d.relative, "cosine": d.cosine} for name, d in gradients.items()
        },
        "reconstruction": finding.reconstruction,
        "bits_left": finding.bits_left,
        "temp_bytes": finding.measured.temp_bytes,
        "total_bytes": finding.measured.total_bytes,
        "seconds": finding.seconds,
        "chosen": False,
    }
