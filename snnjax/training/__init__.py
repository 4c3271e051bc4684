"""Training: experiments and tasks, the state, the step, the loop, checkpoints, run directories.

    experiment = Experiment(name=..., network=..., dataset=..., encode=...)
    session    = prepare(experiment)                        # data, network, compiled steps
    run        = Run.create("runs/mine", experiment, source)
    result     = fit(session, run)                          # again on the same run: it resumes

Or by hand, since a step is a pure function:

    program, state = initialize(experiment, steps=1000)
    step = sharding.compile_step(functools.partial(train_step, program), mesh)
    state, metrics = step(sharding.place(state, mesh), sharding.shard_batch(batch, mesh))

Modules:

    checkpoints     saving and loading of states
    config          experiments from files, their fields and data
    converted       experiments and states of converted networks
    errors          errors whose messages name the cure
    loading         trained networks of runs, `snnjax.load`
    multihost       several processes that train together
    optimizer       rules of optimization and learning rates
    planning        memory strategies for a budget, and their check
    progressive     conversion of a run into a spiking one, layer by layer
    sharding        meshes, layouts and compiled steps
    task            loss and metrics: classification, regression
    unsupervised    experiments and steps of learning by plasticity
"""

from snnjax.training import (
    checkpoints,
    config,
    converted,
    errors,
    loading,
    multihost,
    optimizer,
    planning,
    progressive,
    sharding,
    task,
    unsupervised,
)
from snnjax.training.experiment import Experiment
from snnjax.training.loop import fit
from snnjax.training.malloc import keep_pages
from snnjax.training.run import Run
from snnjax.training.session import prepare
from snnjax.training.state import TrainState, initialize
from snnjax.training.step import eval_step, train_step

__all__ = [
    "task",
    "optimizer",
    "Experiment",
    "Run",
    "TrainState",
    "checkpoints",
    "config",
    "converted",
    "errors",
    "eval_step",
    "fit",
    "initialize",
    "keep_pages",
    "loading",
    "multihost",
    "planning",
    "prepare",
    "progressive",
    "sharding",
    "train_step",
    "unsupervised",
]
