"""Planning of memory: bytes of the training step by strategy, a strategy for a budget.

Strategies are measured on the training step itself, compiled as training compiles it:

    step, arguments = training_step(experiment, strategy, dataset=dataset)
    memory.measure(step, *arguments)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from snnjax import data, memory
from snnjax.training import config
from snnjax.training._strategy_check import (
    check_independence,
    check_strategies,
    network_strategies,
    with_strategy,
)
from snnjax.training.errors import ExperimentError, user_code
from snnjax.training.experiment import Experiment
from snnjax.training.sharding import compile_step, make_mesh, state_shardings
from snnjax.training.state import initialize, wants_memory_scheduler
from snnjax.training.step import train_step

__all__ = [
    "check_independence",
    "check_strategies",
    "integer_field",
    "largest",
    "network_strategies",
    "plan",
    "training_step",
    "with_strategy",
]


def training_step(
    experiment: Experiment,
    strategy: memory.Strategy,
    *,
    dataset: data.Dataset,
    mesh: Mesh | None = None,
) -> tuple[Any, tuple[Any, Any]]:
    """Jitted training step and the shapes of its arguments; nothing is compiled.

    Args:
        experiment: Experiment; its batch may be larger than the data set.
        strategy: Memory strategy that replaces the experiment's own.
        dataset: Data set from `config.load_dataset(experiment)`.
        mesh: Devices; None is the first one.

    Raises:
        memory.StrategyError: The network does not admit the strategy; the message says why.
        ExperimentError: The experiment itself failed.
    """
    mesh = make_mesh() if mesh is None else mesh
    experiment = with_strategy(experiment, strategy)
    try:
        # Only the schedule depends on the number of steps, and no shape depends on the schedule.
        program, state = initialize(experiment, steps=1000, mesh=mesh)
    except ExperimentError as error:
        # `memory.plan` records a refusal and goes on, where any other error ends it.
        if isinstance(error.__cause__, memory.StrategyError):
            raise error.__cause__ from None
        raise
    scheduler = wants_memory_scheduler(program, state)
    step = functools.partial(train_step, program)
    # The shapes of any batch follow from those of one example.
    one = data.Loader(dataset.train, batch_size=1, seed=0).batch(0)
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((experiment.batch, *x.shape[1:]), x.dtype), one
    )
    shapes = jax.eval_shape(lambda state: state, state)
    layout = state_shardings(shapes, mesh, experiment.layout)
    compiled = compile_step(
        step, mesh, layout=layout, memory_scheduler=scheduler,
        deterministic=experiment.deterministic,
    )  # fmt: skip
    return compiled, (shapes, batch)


def plan(
    experiment: Experiment,
    *,
    dataset: data.Dataset,
    strategies: Sequence[memory.Strategy] | None = None,
    mesh: Mesh | None = None,
    report: Callable[[memory.budget.Candidate], None] | None = None,
    approximate: bool = False,
) -> memory.budget.Plan:
    """Measures an experiment's training step under each strategy.

    Args:
        experiment: The experiment.
        dataset: Data set from `config.load_dataset(experiment)`.
        strategies: Strategies to measure; None is `network_strategies(experiment)`.
        mesh: Devices; None is the first one.
        report: Callback for each candidate, once measured.
        approximate: May choose strategies whose gradient is not that of backpropagation through
            time.

    Raises:
        memory.StrategyError: The network admits none of them.
    """
    if strategies is None:
        strategies = network_strategies(experiment, approximate=approximate)
    return memory.plan(
        functools.partial(training_step, experiment, dataset=dataset, mesh=mesh),
        strategies,
        forward=_forward_operations(experiment, dataset),
        samples=experiment.batch,
        report=report,
        approximate=approximate,
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
    """Finds the largest value of a field (`batch`, `timesteps`, a depth) that fits a budget.

    The strategy is the one that reaches furthest on the line through the bytes at the field's value
    and at twice this value; its largest value is then measured.

    Args:
        experiment: The experiment.
        field: Integer field of the experiment.
        budget: Budget per device, bytes.
        planned: Plan of this experiment.
        dataset: Data set from `config.load_dataset(experiment)`.
        mesh: Devices; None is the first one.

    Returns:
        The strategy and the value; 0 if not even 1 fits.

    Raises:
        ExperimentError: The experiment has no such field, or it is not an integer.
    """
    now = integer_field(experiment, field)

    def total_bytes(strategy: memory.Strategy, value: int) -> int:
        changed = config.override(experiment, {field: value})
        step, arguments = training_step(changed, strategy, dataset=dataset, mesh=mesh)
        return memory.measure(step, *arguments).total_bytes

    doubled = plan(
        config.override(experiment, {field: 2 * now}),
        dataset=dataset, strategies=[c.strategy for c in planned.eligible], mesh=mesh,
        approximate=planned.approximate,
    )  # fmt: skip
    furthest, strategy = 0.0, planned.leanest.strategy
    for one, two in zip(planned.eligible, doubled.admitted, strict=True):
        assert one.measured is not None and two.measured is not None
        # A line through two points predicts the reach; the search below measures it.
        slope = (two.measured.total_bytes - one.measured.total_bytes) / now
        # A field that costs no bytes reaches to infinity; the bound keeps it finite.
        reach = now + (budget - one.measured.total_bytes) / max(slope, 1e-9)
        if reach > furthest:
            furthest, strategy = reach, one.strategy
    # 2**24 is the limit of `largest_fit`.
    # A start near the answer saves compilations of the search.
    start = int(min(max(furthest, 1), 2**24))
    return strategy, memory.budget.largest_fit(
        functools.partial(total_bytes, strategy), budget, start=start
    )


def integer_field(experiment: Experiment, field: str) -> int:
    """Value of an integer field.

    Raises:
        ExperimentError: The experiment has no such field, or it is not an integer.
    """
    kinds = config.plain_fields(experiment)
    if kinds.get(field) is not int:
        numbers = ", ".join(name for name, kind in kinds.items() if kind is int)
        raise ExperimentError(
            f"{experiment.name} has no integer field {field!r} to enlarge; it has {numbers}"
        )
    return getattr(experiment, field)


def _forward_operations(experiment: Experiment, dataset: data.Dataset) -> float:
    """Operations of the network's forward pass on one batch in training.

    Raises:
        ExperimentError: A function of the experiment failed; the message names it.
    """
    with user_code("network(experiment, rngs)"):
        network = experiment.network(experiment, nnx.Rngs(0))
    one = data.Loader(dataset.train, batch_size=1, seed=0).batch(0)
    inputs = jax.ShapeDtypeStruct((experiment.batch, *one.inputs.shape[1:]), one.inputs.dtype)
    key = jax.random.key(0)

    def forward(network, inputs):
        with user_code("encode(experiment, inputs, key)"):
            frames = experiment.encode(experiment, inputs, key)
        with user_code("the network"):
            start = network.initial_state(experiment.batch)
            return network(frames, start, training=True, key=key)[0]

    # From the traced program: nothing is compiled or run.
    return memory.accounting.count_operations(forward, network, inputs)
