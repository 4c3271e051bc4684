"""Which memory strategy an experiment needs for a budget, and what fits in it at most.

Each strategy is judged by the training step itself, compiled as training compiles it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
from flax import nnx
from jax.sharding import Mesh

from snnjax import data, memory, nn
from snnjax.training import fields
from snnjax.training.errors import ExperimentError, calling
from snnjax.training.experiment import Experiment
from snnjax.training.under import step_under

__all__ = ["largest", "plan", "strategies_of", "whole_number"]


def strategies_of(experiment: Experiment) -> list[memory.Strategy]:
    """The strategies worth trying on an experiment's network."""
    with calling("network(experiment, rngs)"):
        return nn.menu(experiment.network(experiment, nnx.Rngs(0)))


def plan(
    experiment: Experiment,
    *,
    dataset: data.Dataset,
    strategies: Sequence[memory.Strategy] | None = None,
    mesh: Mesh | None = None,
    report: Callable[[memory.Candidate], None] | None = None,
) -> memory.Plan:
    """Measures an experiment's training step under each strategy.

    Args:
        experiment: what to train.
        dataset: from `load_dataset(experiment)`.
        strategies: which to try; None is `strategies_of(experiment)`.
        mesh: on which devices; None is the first one.
        report: is told each candidate as it is measured.

    Raises:
        memory.StrategyError: the network admits none of them.
    """
    return memory.plan(
        functools.partial(step_under, experiment, dataset=dataset, mesh=mesh),
        strategies_of(experiment) if strategies is None else strategies,
        forward=_forward_operations(experiment, dataset),
        samples=experiment.batch,
        report=report,
    )


def largest(
    experiment: Experiment,
    field: str,
    budget: float,
    planned: memory.Plan,
    *,
    dataset: data.Dataset,
    mesh: Mesh | None = None,
) -> tuple[memory.Strategy, int]:
    """The largest value of a field (`batch`, `timesteps`, a depth) that fits, and the strategy.

    Every candidate is measured at twice the field's value; the line through both measurements says
    which goes furthest, and that one is then measured until its largest value is known.

    Args:
        experiment: what to train.
        field: a whole-number field of the experiment.
        budget: in bytes.
        planned: of this experiment.
        dataset: from `load_dataset(experiment)`.
        mesh: on which devices; None is the first one.

    Returns:
        The strategy, and the value; 0 if not even 1 fits.

    Raises:
        ExperimentError: the experiment has no such field, or not of whole numbers.
    """
    now = whole_number(experiment, field)

    def bytes_of(strategy: memory.Strategy, value: int) -> int:
        changed = fields.override(experiment, {field: value})
        step, arguments = step_under(changed, strategy, dataset=dataset, mesh=mesh)
        return memory.measure(step, *arguments).total_bytes

    doubled = plan(
        fields.override(experiment, {field: 2 * now}),
        dataset=dataset, strategies=[c.strategy for c in planned.admitted], mesh=mesh,
    )  # fmt: skip
    furthest, strategy = 0.0, planned.leanest.strategy
    for one, two in zip(planned.admitted, doubled.admitted, strict=True):
        assert one.measured is not None and two.measured is not None
        slope = (two.measured.total_bytes - one.measured.total_bytes) / now
        reach = now + (budget - one.measured.total_bytes) / max(slope, 1e-9)
        if reach > furthest:
            furthest, strategy = reach, one.strategy
    start = int(min(max(furthest, 1), 2**24))
    return strategy, memory.largest(functools.partial(bytes_of, strategy), budget, start=start)


def whole_number(experiment: Experiment, field: str) -> int:
    """The value of a field that can be made larger.

    Raises:
        ExperimentError: the experiment has no such field, or not of whole numbers.
    """
    kinds = fields.plain_fields(experiment)
    if kinds.get(field) is not int:
        numbers = ", ".join(name for name, kind in kinds.items() if kind is int)
        raise ExperimentError(
            f"{experiment.name} has no whole-number field {field!r} to enlarge; it has {numbers}"
        )
    return getattr(experiment, field)


def _forward_operations(experiment: Experiment, dataset: data.Dataset) -> float:
    """Of the network alone, for one batch in training.

    Raises:
        ExperimentError: a function of the experiment failed; it says which.
    """
    with calling("network(experiment, rngs)"):
        network = experiment.network(experiment, nnx.Rngs(0))
    one = data.Loader(dataset.train, batch_size=1, seed=0).batch(0)
    inputs = jax.ShapeDtypeStruct((experiment.batch, *one.inputs.shape[1:]), one.inputs.dtype)
    key = jax.random.key(0)

    def forward(network, inputs):
        with calling("encode(experiment, inputs, key)"):
            frames = experiment.encode(experiment, inputs, key)
        with calling("the network"):
            start = network.initial_state(experiment.batch)
            return network(frames, start, training=True, key=key)[0]

    return memory.operations(forward, network, inputs)
