"""Judging a state on the test examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from snnjax import data, metrics
from snnjax.nn import in_order
from snnjax.training.sharding import feed
from snnjax.training.state import TrainState
from snnjax.training.step import EvalMetrics

__all__ = ["Evaluation", "evaluate"]


class Evaluation(NamedTuple):
    """Means over all examples.

    Attributes:
        loss: mean loss.
        accuracy: share of right answers.
        rates: layer name to firing rate, spikes per neuron and timestep; layers whose outputs are
            no spikes are left out, and all of them where nobody asked.
        neurons: how many neurons each of these layers has.
    """

    loss: float
    accuracy: float
    rates: dict[str, float]
    neurons: dict[str, int]

    @property
    def nasfr(self) -> float | None:
        """Spikes per neuron and timestep of the network; None where no layer has a rate.

        See `metrics.nasfr`.
        """
        return metrics.nasfr(self.rates, self.neurons) if self.rates else None


def evaluate(
    step: Callable[[TrainState, data.Batch], EvalMetrics],
    state: TrainState,
    loader: data.Loader,
    mesh: Mesh,
) -> Evaluation:
    """Evaluates every example of a split exactly once.

    Args:
        step: `eval_step` with its program, compiled.
        state: What to judge.
        loader: On what, from `data.evaluation_loader`.
        mesh: The devices of `step`.
    """
    numbers = range(loader.steps_per_epoch)
    parts = jax.device_get([step(state, feed(loader, number, mesh)) for number in numbers])
    weight = sum(float(part.weight) for part in parts)
    analog = {name for part in parts for name, yes in part.analog.items() if yes}
    spiking = [name for name in in_order(parts[0].rates) if name not in analog]
    return Evaluation(
        loss=sum(float(part.loss) for part in parts) / weight,
        accuracy=sum(float(part.correct) for part in parts) / weight,
        rates={name: sum(float(part.rates[name]) for part in parts) / weight for name in spiking},
        neurons={name: int(parts[0].neurons[name]) for name in spiking},
    )
