"""An experiment's training step under a memory strategy, ready to be compiled and measured.

step, arguments = step_under(experiment, strategy, dataset=dataset)
memory.measure(step, *arguments)          the bytes of the very step that training runs
"""

from __future__ import annotations

import functools
from typing import Any

import jax
from jax.sharding import Mesh

from snnjax import data, memory
from snnjax.training import fields
from snnjax.training.errors import ExperimentError
from snnjax.training.experiment import Experiment
from snnjax.training.layout import shardings
from snnjax.training.meshes import make_mesh
from snnjax.training.sharding import compile_step
from snnjax.training.state import initialize, wants_memory_scheduler
from snnjax.training.step import train_step

__all__ = ["step_under", "under"]


def under(experiment: Experiment, strategy: memory.Strategy) -> Experiment:
    """The experiment with another memory strategy; one "as written" leaves its own."""
    if strategy == memory.Strategy():
        return experiment
    return fields.override(experiment, {"memory": str(strategy)})


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
