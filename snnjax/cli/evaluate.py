"""`snnjax eval RUN`.

Fields of its JSON object:

    run, step           run directory, and step of the checkpoint
    test_accuracy       share of right answers on the test examples, in [0, 1]; other tasks have
                        test_NAME for each of their metrics
    test_loss           mean loss
    examples            number of test examples
    firing_rates        layer to spikes per neuron and timestep, for layers that spike
    neurons             layer to number of neurons, for the same layers
    nasfr               spikes per neuron and timestep of the network: mean of the rates over all
                        neurons; null if nothing spikes
    seconds             duration of the command
"""

from __future__ import annotations

import time
from typing import Any

from snnjax.cli._options import parse
from snnjax.cli._output import Screen
from snnjax.cli._restore import OPTIONS, restore

__all__ = ["command", "spell_metrics"]

_DESCRIPTION = "Metrics, loss and firing rates of a run on its test examples."


def spell_metrics(task: Any, evaluation: Any) -> str:
    """Formats the metrics of an evaluation, each followed by a comma."""
    texts = (f"{name} {task.format(name, value)}, " for name, value in evaluation.metrics.items())
    return "".join(texts)


def command(arguments: list[str], screen: Screen) -> tuple[dict[str, Any], int]:
    """Evaluates a run on the test examples."""
    began = time.perf_counter()
    options = parse("snnjax eval", _DESCRIPTION, OPTIONS, arguments)
    # Plasticity has metrics and rates as well.
    run, session, state = restore(options, warn=screen.warn, rates=True, gradients=False)
    # Settles the state as well: a run by plasticity first assigns classes to its neurons.
    evaluation = session.evaluate(state)
    screen.say(
        f"{run.path}, step {int(state.step)}: test {spell_metrics(session.task, evaluation)}"
        f"loss {evaluation.loss:.4f}, {len(session.dataset.test):,} examples"
    )
    for name, rate in evaluation.rates.items():
        screen.say(f"  {name:<24} {rate:.4f} spikes per neuron and timestep")
    # Without a spiking layer there is no rate to report.
    if evaluation.nasfr is not None:
        neurons = sum(evaluation.neurons.values())
        screen.say(f"  {'NASFR':<24} {evaluation.nasfr:.4f}, the mean over all {neurons:,} neurons")
    return {
        "run": str(run.path),
        "step": int(state.step),
        **{f"test_{name}": value for name, value in evaluation.metrics.items()},
        "test_loss": evaluation.loss,
        "examples": len(session.dataset.test),
        "firing_rates": evaluation.rates,
        "neurons": evaluation.neurons,
        "nasfr": evaluation.nasfr,
        "seconds": round(time.perf_counter() - began, 3),
    }, 0
