"""Training: experiments, the state, the step, the loop, checkpoints and run directories.

    experiment = Experiment(name=..., network=..., dataset=..., encode=...)
    session    = prepare(experiment)                        # data, network, compiled steps
    run        = Run.create("runs/mine", experiment, source)
    result     = fit(session, run)                          # again on the same run: it resumes

Or by hand, since a step is a pure function:

    program, state = initialize(experiment, steps=1000)
    step = compile_step(functools.partial(train_step, program), mesh)
    state, metrics = step(place(state, mesh), sharded(batch, mesh))
"""

from snnjax.training import checkpoints
from snnjax.training.config import (
    FIXED,
    check,
    check_types,
    is_strategy,
    override,
    plain_fields,
    plain_values,
)
from snnjax.training.errors import (
    CheckpointError,
    DamagedCheckpointError,
    ExperimentError,
    MeshError,
    NotFiniteError,
    RunError,
    StreamBoundError,
    TrainingError,
)
from snnjax.training.evaluation import Evaluation, evaluate
from snnjax.training.experiment import Experiment
from snnjax.training.loading import experiment_of, load_experiment
from snnjax.training.loop import Result, fit
from snnjax.training.malloc import keep_pages
from snnjax.training.multihost import connect, decided, leads
from snnjax.training.objective import Given, given, gradient, objective
from snnjax.training.optimizer import (
    adamw,
    adaptive_clip,
    clipped,
    decayed,
    lamb,
    multistep,
    sgd,
    warmup_cosine,
)
from snnjax.training.planning import largest, plan, step_under, strategies_of, under, whole_number
from snnjax.training.run import Run, versions
from snnjax.training.session import Session, load_dataset, prepare
from snnjax.training.sharding import (
    by_name,
    by_shape,
    compile_step,
    compiler_options,
    feed,
    make_mesh,
    parse_mesh,
    place,
    sharded,
    shardings,
)
from snnjax.training.state import Program, TrainState, count, initialize
from snnjax.training.step import EvalMetrics, TrainMetrics, eval_step, train_step
from snnjax.training.strategy_check import check_strategies
from snnjax.training.unsupervised import (
    Learner,
    PlasticityMetrics,
    Unsupervised,
    initialize_learner,
    judge_step,
    learn_step,
)

__all__ = [
    "FIXED",
    "CheckpointError",
    "DamagedCheckpointError",
    "EvalMetrics",
    "Evaluation",
    "Experiment",
    "ExperimentError",
    "Given",
    "Learner",
    "MeshError",
    "NotFiniteError",
    "PlasticityMetrics",
    "Program",
    "Result",
    "Run",
    "RunError",
    "Session",
    "StreamBoundError",
    "TrainMetrics",
    "TrainState",
    "TrainingError",
    "Unsupervised",
    "adamw",
    "adaptive_clip",
    "by_name",
    "by_shape",
    "check",
    "check_strategies",
    "check_types",
    "checkpoints",
    "clipped",
    "compile_step",
    "compiler_options",
    "connect",
    "count",
    "decayed",
    "decided",
    "eval_step",
    "evaluate",
    "experiment_of",
    "feed",
    "fit",
    "given",
    "gradient",
    "initialize",
    "is_strategy",
    "keep_pages",
    "initialize_learner",
    "judge_step",
    "lamb",
    "largest",
    "leads",
    "learn_step",
    "load_dataset",
    "load_experiment",
    "make_mesh",
    "multistep",
    "objective",
    "override",
    "parse_mesh",
    "place",
    "plan",
    "plain_fields",
    "plain_values",
    "prepare",
    "sgd",
    "sharded",
    "shardings",
    "step_under",
    "strategies_of",
    "train_step",
    "under",
    "versions",
    "warmup_cosine",
    "whole_number",
]
