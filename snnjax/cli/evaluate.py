"""`snnjax eval RUN`.

Fields of its JSON object:

    run, step           the run directory, and the step of the checkpoint
    test_accuracy       share of test examples right, in [0, 1]
    test_loss           their mean loss
    examples            how many there are
    firing_rates        layer to spikes per neuron and timestep; layers that do not spike left out
    neurons             layer to how many neurons it has, for the same layers
    nasfr               spikes per neuron and timestep of the network: the rates' mean over all
                        neurons; null where nothing spikes
    seconds             from the start of the command to its end
"""

from __future__ import annotations

import time
from typing import Any

from snnjax import training
from snnjax.cli.options import parse
from snnjax.cli.output import Screen
from snnjax.cli.restore import OPTIONS, restore

__all__ = ["command"]


def command(arguments: list[str], screen: Screen) -> tuple[dict[str, Any], int]:
    """Judges a run on the test examples."""
    began = time.perf_counter()
    told = "Accuracy, loss and firing rates of a run on its test examples."
    options = parse("snnjax eval", told, OPTIONS, arguments)
    run, session, state = restore(options, warn=screen.warn, rates=True, plastic=True)
    found: training.Evaluation = session.evaluate(state)
    screen.say(
        f"{run.path}, step {int(state.step)}: test accuracy {found.accuracy:.2%}, "
        f"loss {found.loss:.4f}, {len(session.dataset.test):,} examples"
    )
    for name, rate in found.rates.items():
        screen.say(f"  {name:<24} {rate:.4f} spikes per neuron and timestep")
    if found.nasfr is not None:
        neurons = sum(found.neurons.values())
        screen.say(f"  {'NASFR':<24} {found.nasfr:.4f}, the mean over all {neurons:,} neurons")
    return {
        "run": str(run.path),
        "step": int(state.step),
        "test_accuracy": found.accuracy,
        "test_loss": found.loss,
        "examples": len(session.dataset.test),
        "firing_rates": found.rates,
        "neurons": found.neurons,
        "nasfr": found.nasfr,
        "seconds": round(time.perf_counter() - began, 3),
    }, 0
