"""Which memory strategy an experiment needs for a budget, and what fits in it at most.

Each strategy is judged by the training step itself, compiled as training compiles it.

An experiment's training step under a memory strategy, ready to be compiled and measured.

step, arguments = step_under(experiment, strategy, dataset=dataset)
memory.measure(step, *arguments)          the bytes of the very step that training runs
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from snnjax import data, memory, nn
from snnjax.training import config
from snnjax.training.errors import ExperimentError, calling
from snnjax.training.experiment import Experiment
from snnjax.training.sharding import compile_step, make_mesh, shardings
from snnjax.training.state import initialize, wants_memory_scheduler
from snnjax.training.step import train_step

__all__ = [
    "largest",
    "plan",
    "step_under",
    "strategies_of",
    "under",
    "whole_number",
]


def under(experiment: Experiment, strategy: memory.Strategy) -> Experiment:
    """The experiment with another memory strategy; one "as written" leaves its own."""
    if strategy == memory.Strategy():
        return experiment
    return config.override(experiment, {"memory": str(strategy)})


def step_under(
    experiment: Experiment,
    strategy: memory.Strategy,
    *,
    dataset: data.Dataset,
    mesh: Mesh | None = None,
) -> tuple[Any, tuple[Any, Any]]:
    """The jitted training step and the shapes of its arguments; nothing is compiled.

    Args:
        experiment: its batch may be larger than the data set, since only shapes are looked at.
        strategy: what training keeps, in place of the experiment's own.
        dataset: from `load_dataset(experiment)`.
        mesh: on which devices; None is the first one.

    Raises:
        memory.StrategyError: the network does not admit the strategy; the message says why.
        ExperimentError: the experiment itself failed.
    """
    mesh = make_mesh() if mesh is None else mesh
    experiment = under(experiment, strategy)
    try:
        program, state = initialize(experiment, steps=1000, mesh=mesh)
    except ExperimentError as error:
        if isinstance(error.__cause__, memory.StrategyError):
            raise error.__cause__ from None
        raise
    scheduler = wants_memory_scheduler(program, state)
    step = functools.partial(train_step, program)
    one = data.Loader(dataset.train, batch_size=1, seed=0).batch(0)
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((experiment.batch, *x.shape[1:]), x.dtype), one
    )
    shapes = jax.eval_shape(lambda state: state, state)
    layout = shardings(shapes, mesh, experiment.layout)
    compiled = compile_step(
        step, mesh, layout=layout, memory_scheduler=scheduler,
        deterministic=experiment.deterministic,
    )  # fmt: skip
    return compiled, (shapes, batch)


def strategies_of(experiment: Experiment) -> list[memory.Strategy]:
    """The strategies worth trying on an experiment's network."""
    with calling("network(experiment, rngs)"):
        return nn.candidates(experiment.network(experiment, nnx.Rngs(0)))


def plan(
    experiment: Experiment,
    *,
    dataset: data.Dataset,
    strategies: Sequence[memory.Strategy] | None = None,
    mesh: Mesh | None = None,
    report: Callable[[memory.budget.Candidate], None] | None = None,
) -> memory.budget.Plan:
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
    planned: memory.budget.Plan,
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
        changed = config.override(experiment, {field: value})
        step, arguments = step_under(changed, strategy, dataset=dataset, mesh=mesh)
        return memory.measure(step, *arguments).total_bytes

    doubled = plan(
        config.override(experiment, {field: 2 * now}),
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
    return strategy, memory.budget.largest_fit(
        functools.partial(bytes_of, strategy), budget, start=start
    )


def whole_number(experiment: Experiment, field: str) -> int:
    """The value of a field that can be made larger.

    Raises:
        ExperimentError: the experiment has no such field, or not of whole numbers.
    """
    kinds = config.plain_fields(experiment)
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

    return memory.accounting.count_operations(forward, network, inputs)
