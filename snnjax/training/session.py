"""All that comes before the first step: data, network, compiled functions, and every check.

Nothing is written here, so that what is refused leaves nothing behind.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from snnjax import data
from snnjax.training import config
from snnjax.training.errors import ExperimentError, MeshError, calling
from snnjax.training.evaluation import Evaluation, evaluate
from snnjax.training.experiment import Experiment
from snnjax.training.sharding import compile_step, feed, make_mesh, place, shardings, shares
from snnjax.training.state import Program, TrainState, initialize, wants_memory_scheduler
from snnjax.training.step import eval_step, train_step
from snnjax.training.unsupervised import (
    Unsupervised,
    check_rates,
    initialize_learner,
    judge_step,
    learn_step,
    respond,
)

__all__ = ["Session", "load_dataset", "prepare"]


@dataclasses.dataclass(frozen=True, eq=False)
class Session:
    """An experiment ready to run on some devices.

    Attributes:
        experiment: What was prepared.
        dataset: Its data.
        loader: Batches of the training examples.
        mesh: The devices.
        program: The static arguments of the steps; a `Learner` where plasticity learns.
        state: The state before the first step; the first training step consumes it.
        train: `(state, batch) -> (state, metrics)`, compiled; None where only judging was asked.
        judge: `(state, batch) -> EvalMetrics`, compiled.
        compile_seconds: Time spent on compiling.
        settle: What is done to a state before it is judged: labels for neurons that have none.
    """

    experiment: Experiment
    dataset: data.Dataset
    loader: data.Loader
    mesh: Mesh
    program: Any
    state: TrainState
    train: Any
    judge: Any
    compile_seconds: float
    settle: Callable[[TrainState], TrainState] = lambda state: state

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.experiment.epochs * self.loader.steps_per_epoch

    def bytes_per_device(self) -> dict[str, int]:
        """What a training step takes on each device: its `state`, and `temporary` arrays.

        Nothing where no training step was compiled, or the backend does not tell.
        """
        analysis = self.train and self.train.memory_analysis()
        if not analysis:
            return {}
        leaves = jax.tree.leaves(self.state)
        held = sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)
        return {"state": held, "temporary": analysis.temp_size_in_bytes}

    def evaluate(self, state: TrainState) -> Evaluation:
        """Judges a state on the test examples."""
        loader = _evaluation_loader(self.experiment, self.dataset, self.mesh)
        return evaluate(self.judge, self.settle(state), loader, self.mesh)


def prepare(
    experiment: Experiment, *, mesh: Mesh | None = None, training: bool = True, rates: bool = False
) -> Session:
    """Checks an experiment, loads its data, makes its network and compiles its steps.

    Args:
        experiment: What to prepare.
        mesh: On which devices; None is the first one.
        training: Whether to compile the training step too.
        rates: Whether evaluation shall measure firing rates.

    Raises:
        ExperimentError: Anything about the experiment is wrong; it says what.
        snnjax.data.MissingDataError: The data are not there.
    """
    config.check(experiment)
    mesh = make_mesh() if mesh is None else mesh
    if mesh.size > 1 and isinstance(experiment, Unsupervised):
        raise MeshError(
            f"{experiment.name} learns by plasticity, from one example after the other, which "
            "several devices cannot share: leave the mesh out"
        )
    dataset = load_dataset(experiment)
    loader = _loader(experiment, dataset, mesh)
    if isinstance(experiment, Unsupervised):
        return _prepare_learner(experiment, dataset, loader, mesh, training=training)
    steps = experiment.epochs * loader.steps_per_epoch
    program, state = initialize(experiment, steps=steps, mesh=mesh)
    layout = shardings(state, mesh, experiment.layout)
    state = place(state, mesh, layout=layout)
    _check_outputs(program, state, loader.batch(0), dataset.classes)
    start = time.perf_counter()
    scheduler = wants_memory_scheduler(program, state)
    compiling = functools.partial(
        compile_step, mesh=mesh, layout=layout, memory_scheduler=scheduler,
        deterministic=experiment.deterministic,
    )  # fmt: skip
    with calling(f"compiling the steps of {experiment.name}"):
        tested = _evaluation_loader(experiment, dataset, mesh)
        judge = functools.partial(eval_step, program, rates=rates)
        judge = compiling(judge, donate=False).lower(state, feed(tested, 0, mesh)).compile()
        train = None
        if training:
            train = compiling(functools.partial(train_step, program))
            train = train.lower(state, feed(loader, 0, mesh)).compile()
    seconds = time.perf_counter() - start
    return Session(experiment, dataset, loader, mesh, program, state, train, judge, seconds)


def _prepare_learner(
    experiment: Unsupervised, dataset: data.Dataset, loader: data.Loader, mesh: Mesh, *, training
) -> Session:
    """The session of a network that learns by plasticity: the same loop around other steps."""
    learner, state = initialize_learner(experiment, classes=dataset.classes)
    check_rates(learner, dataset.train)
    state = place(state, mesh)
    start = time.perf_counter()
    judged = feed(_evaluation_loader(experiment, dataset, mesh), 0, mesh)

    def compiled(step: Any, batch: data.Batch, *, donate: bool) -> Any:
        jitted = compile_step(functools.partial(step, learner), mesh, donate=donate)
        return jitted.lower(state, batch).compile()

    with calling(f"compiling the steps of {experiment.name}"):
        judge = compiled(judge_step, judged, donate=False)
        answer = compiled(respond, judged, donate=False)
        train = compiled(learn_step, feed(loader, 0, mesh), donate=True) if training else None
    some = dataset.train.take(np.arange(min(experiment.assign, len(dataset.train))))
    assigning = data.Loader(some, batch_size=len(judged.labels), shuffle=False, drop_last=False)

    def settle(state: TrainState) -> TrainState:
        numbers = range(assigning.steps_per_epoch)
        parts = [answer(state, feed(assigning, number, mesh)) for number in numbers]
        return state._replace(statistics=jax.tree.map(lambda *sums: sum(sums), *parts))

    seconds = time.perf_counter() - start
    return Session(experiment, dataset, loader, mesh, learner, state, train, judge, seconds, settle)


def _evaluation_loader(experiment: Experiment, dataset: data.Dataset, mesh: Mesh) -> data.Loader:
    """The test examples in batches of whole recordings, and of as many examples on every device.

    Batches are not larger than there are examples, where that can be.
    """
    size = min(experiment.eval_batch or experiment.batch, len(dataset.test))
    unit = shares(mesh) * experiment.clips
    return data.Loader(
        dataset.test, batch_size=max(size - size % unit, unit), shuffle=False, drop_last=False
    )


def load_dataset(experiment: Experiment) -> data.Dataset:
    """The data of an experiment.

    Raises:
        ExperimentError: its function failed, or returned something else or nothing.
        snnjax.data.MissingDataError: The data are not there.
    """
    try:
        with calling("dataset(experiment)"):
            dataset = experiment.dataset(experiment)
    except ExperimentError as error:
        if isinstance(error.__cause__, data.MissingDataError | data.CorruptDataError):
            raise error.__cause__ from None
        raise
    if not isinstance(dataset, data.Dataset):
        raise ExperimentError(
            f"dataset(experiment) must return a data.Dataset, got {type(dataset).__name__}: "
            'data.load("digits"), or data.from_arrays(...) of your own'
        )
    for split, name in ((dataset.train, "training"), (dataset.test, "test")):
        if not len(split):
            raise ExperimentError(f"{dataset.name} has no {name} examples")
    if len(dataset.test) % experiment.clips:
        raise ExperimentError(
            f"{dataset.name} has {len(dataset.test)} test examples, which are not recordings of "
            f"{experiment.clips} clips each: make them by data.clips(split, count=..., "
            "duration=...), and set clips to that count"
        )
    return dataset


def _loader(experiment: Experiment, dataset: data.Dataset, mesh: Mesh) -> data.Loader:
    size = len(dataset.train)
    if experiment.batch > size:
        raise ExperimentError(
            f"a batch of {experiment.batch} is larger than the {size} training examples of "
            f"{dataset.name}: choose --batch {size} or less"
        )
    parts = experiment.accumulate * shares(mesh)
    if experiment.batch % parts:
        cut = f" in {experiment.accumulate} parts" if experiment.accumulate > 1 else ""
        raise MeshError(
            f"a batch of {experiment.batch}{cut} cannot be cut evenly over {shares(mesh)} devices: "
            f"choose a multiple of {parts}"
        )
    with calling(f"batching {dataset.name}"):
        return data.Loader(dataset.train, batch_size=experiment.batch, seed=experiment.seed)


def _check_outputs(program: Program, state: TrainState, batch: data.Batch, classes: int) -> None:
    """Traces encoding and network once, so that a shape that does not fit has a name."""
    experiment = program.experiment

    def run(state, inputs):
        with calling("encode(experiment, inputs, key)"):
            frames = experiment.encode(experiment, inputs, state.key)
        with calling("the network"):
            network = program.network(state)
            return network(frames, network.initial_state(experiment.batch), training=False)[0]

    outputs = jax.eval_shape(run, state, batch.inputs)
    if outputs.ndim != 3 or outputs.shape[-1] != classes:
        raise ExperimentError(
            f"the network must give outputs [T, B, {classes}], one per class of the data set, got "
            f"{list(outputs.shape)}: its last layer has {classes} outputs"
        )
