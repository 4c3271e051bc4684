"""Evaluation of a state on the test examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from snnjax import data, metrics
from snnjax.nn.taps import in_order
from snnjax.training._watch import Fault, Watch, example_name
from snnjax.training.errors import EvaluationError
from snnjax.training.sharding import feed
from snnjax.training.state import TrainState
from snnjax.training.step import EvalMetrics
from snnjax.training.task import Task

__all__ = ["Evaluation", "evaluate"]


class Evaluation(NamedTuple):
    """Loss and metrics over all examples.

    Attributes:
        loss: Mean loss.
        metrics: Metrics of the task by name.
        rates: Layer name to firing rate, spikes per neuron and timestep, of the layers that spike;
            empty unless rates were requested.
        neurons: Layer name to number of neurons, for the same layers.
    """

    loss: float
    metrics: dict[str, float]
    rates: dict[str, float]
    neurons: dict[str, int]

    @property
    def accuracy(self) -> float:
        """Share of right answers of a classification."""
        return self.metrics["accuracy"]

    @property
    def nasfr(self) -> float | None:
        """Spikes per neuron and timestep of the network; None if no layer has a rate.

        See `metrics.nasfr`.
        """
        return metrics.nasfr(self.rates, self.neurons) if self.rates else None


def evaluate(
    step: Callable[[TrainState, data.Batch], EvalMetrics],
    state: TrainState,
    loader: data.Loader,
    mesh: Mesh,
    *,
    task: Task,
) -> Evaluation:
    """Evaluates every example of a split exactly once.

    Args:
        step: `eval_step` bound to its program, compiled.
        state: State to evaluate.
        loader: Loader of every example once, `data.Loader(split, ..., shuffle=False,
            drop_last=False)`.
        mesh: Devices of `step`.
        task: Task whose `summary` turns means into metrics.

    Raises:
        EvaluationError: An input, a target or a membrane is not finite.
    """
    numbers = range(loader.steps_per_epoch)
    # Fetched after the last batch: the devices never wait for the host in between.
    parts = jax.device_get([step(state, feed(loader, number, mesh)) for number in numbers])
    for number, part in enumerate(parts):
        if isinstance(part.watch, Watch) and (fault := part.watch.fault()):
            raise EvaluationError(_message(fault, number, loader))
    # Padding of the last batch has weight 0.
    weight = sum(float(part.weight) for part in parts)
    names = parts[0].metrics
    means = {name: sum(float(part.metrics[name]) for part in parts) / weight for name in names}
    # A layer of real values may give only zeros and ones in one batch: one other batch decides.
    analog = {name for part in parts for name, yes in part.analog.items() if yes}
    spiking = [name for name in in_order(parts[0].rates) if name not in analog]
    return Evaluation(
        loss=sum(float(part.loss) for part in parts) / weight,
        metrics=task.summary(means),
        rates={name: sum(float(part.rates[name]) for part in parts) / weight for name in spiking},
        # Numbers of neurons are equal in every batch, not sums over them.
        neurons={name: int(parts[0].neurons[name]) for name in spiking},
    )


def _message(fault: Fault, batch: int, loader: data.Loader) -> str:
    cure = (
        "look at these data and at encode(experiment, inputs, key)"
        if fault.in_data
        else "train with a lower learning rate, or look at the parameters of this layer"
    )
    return (
        f"{fault.describe(example_name(fault, batch, loader, 'test'))}, so that the network has no "
        f"metrics on the {len(loader.split)} test examples: {cure}"
    )
