"""Learners: what a session does for each kind of experiment.

    learner(experiment).prepare(experiment, dataset, ...) -> Steps

An experiment names its learner by its class attribute `learns_by`; everything else treats the kinds
alike.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from snnjax import data
from snnjax.training import unsupervised
from snnjax.training.errors import ExperimentError, MeshError, user_code
from snnjax.training.experiment import BaseExperiment, Experiment
from snnjax.training.sharding import batch_shares, compile_step, feed, place, state_shardings
from snnjax.training.state import (
    Program,
    TrainState,
    initialize,
    make_task,
    wants_memory_scheduler,
)
from snnjax.training.step import eval_step, train_step
from snnjax.training.task import Classification, Task
from snnjax.training.unsupervised import Unsupervised

__all__ = ["Learner", "Steps", "learner"]


def _unchanged(state: TrainState) -> TrainState:
    return state


@dataclasses.dataclass(frozen=True, eq=False)
class Steps:
    """The compiled steps of an experiment, and its state before the first one.

    Attributes:
        program: Static arguments of the steps.
        state: State before the first step, on the devices.
        train: `(state, batch) -> (state, metrics)`; None unless asked for.
        evaluate: `(state, batch) -> EvalMetrics`.
        compile_seconds: Time spent on compiling.
        settle: Prepares a state for evaluation: classes for neurons that have none.
    """

    program: Any
    state: TrainState
    train: Any
    evaluate: Any
    compile_seconds: float
    settle: Callable[[TrainState], TrainState] = _unchanged


class Learner(Protocol):
    """Protocol of a learner: preparation of the steps of one kind of experiment.

    Attributes:
        quantity: The numbers that must be finite, for messages.
    """

    quantity: ClassVar[str]

    def task(self, experiment: Any) -> Task:
        """The task of an experiment."""
        ...

    def batch_unit(self, experiment: Any, mesh: Mesh) -> int:
        """The number that must divide a training batch.

        Raises:
            MeshError: The kind cannot learn on these devices.
        """
        ...

    def prepare(
        self,
        experiment: Any,
        dataset: data.Dataset,
        loader: data.Loader,
        evaluation: data.Loader,
        mesh: Mesh,
        *,
        training: bool,
        rates: bool,
    ) -> Steps:
        """Initialises the network and compiles its steps.

        Args:
            experiment: The experiment.
            dataset: Its data.
            loader: Batches of the training examples.
            evaluation: Batches of the test examples.
            mesh: The devices.
            training: True to compile the training step as well.
            rates: True to measure firing rates in evaluation.
        """
        ...

    def divergence_cure(self, experiment: Any) -> str:
        """Advice for a run that diverged."""
        ...


class GradientLearner:
    """Learning by gradients: `training.Experiment`."""

    quantity: ClassVar[str] = "the loss or its gradient"

    def task(self, experiment: Experiment) -> Task:
        """The experiment's own."""
        return make_task(experiment)

    def batch_unit(self, experiment: Experiment, mesh: Mesh) -> int:
        """Parts of the batch that are accumulated, on every device."""
        return experiment.accumulate * batch_shares(mesh)

    def prepare(
        self,
        experiment: Experiment,
        dataset: data.Dataset,
        loader: data.Loader,
        evaluation: data.Loader,
        mesh: Mesh,
        *,
        training: bool,
        rates: bool,
    ) -> Steps:
        """Initialises the network and compiles `train_step` and `eval_step`."""
        steps = experiment.epochs * loader.steps_per_epoch
        program, state = initialize(experiment, steps=steps, mesh=mesh)
        layout = state_shardings(state, mesh, experiment.layout)
        state = place(state, mesh, layout=layout)
        _check_outputs(program, state, loader.batch(0), dataset)
        scheduler = wants_memory_scheduler(program, state)
        compiling = functools.partial(
            compile_step, mesh=mesh, layout=layout, memory_scheduler=scheduler,
            deterministic=experiment.deterministic,
        )  # fmt: skip
        start, train = time.perf_counter(), None
        with user_code(f"compiling the steps of {experiment.name}"):
            evaluate = compiling(functools.partial(eval_step, program, rates=rates), donate=False)
            evaluate = evaluate.lower(state, feed(evaluation, 0, mesh)).compile()
            if training:
                train = compiling(functools.partial(train_step, program))
                train = train.lower(state, feed(loader, 0, mesh)).compile()
        return Steps(program, state, train, evaluate, time.perf_counter() - start)

    def divergence_cure(self, experiment: Experiment) -> str:
        """A lower learning rate, or clipping."""
        lower = f"--learning-rate {experiment.learning_rate / 4:.2g}"
        return f"Lower the learning rate ({lower}) or bound the gradient (--clip-norm 1)"


class PlasticityLearner:
    """Learning by plasticity: `training.unsupervised.Unsupervised`."""

    quantity: ClassVar[str] = "a threshold or a count of spikes"

    def task(self, experiment: Unsupervised) -> Task:
        """Classification: neurons stand for classes."""
        del experiment
        return Classification()

    def batch_unit(self, experiment: Unsupervised, mesh: Mesh) -> int:
        """One: examples are presented one after the other, which needs a single device."""
        if mesh.size > 1:
            raise MeshError(
                f"{experiment.name} learns by plasticity, from one example after the other, which "
                "several devices cannot share: leave the mesh out"
            )
        return 1

    def prepare(
        self,
        experiment: Unsupervised,
        dataset: data.Dataset,
        loader: data.Loader,
        evaluation: data.Loader,
        mesh: Mesh,
        *,
        training: bool,
        rates: bool,
    ) -> Steps:
        """Initialises the network and compiles its steps; firing rates are always measured."""
        del rates
        program, state = unsupervised.initialize(experiment, classes=dataset.classes)
        unsupervised.check_rates(program, dataset.train)
        state = place(state, mesh)
        start, batch, train = time.perf_counter(), feed(evaluation, 0, mesh), None

        def compiled(step: Any, batch: data.Batch, *, donate: bool) -> Any:
            step = functools.partial(step, program)
            deterministic = experiment.deterministic
            jitted = compile_step(step, mesh, donate=donate, deterministic=deterministic)
            return jitted.lower(state, batch).compile()

        with user_code(f"compiling the steps of {experiment.name}"):
            evaluate = compiled(unsupervised.eval_step, batch, donate=False)
            respond = compiled(unsupervised.measure_responses, batch, donate=False)
            if training:
                train = compiled(unsupervised.train_step, feed(loader, 0, mesh), donate=True)
        seconds = time.perf_counter() - start
        chosen = dataset.train.take(np.arange(min(experiment.assign, len(dataset.train))))
        assigning = data.Loader(
            chosen, batch_size=len(batch.labels), shuffle=False, drop_last=False
        )

        def settle(state: TrainState) -> TrainState:
            numbers = range(assigning.steps_per_epoch)
            parts = [respond(state, feed(assigning, number, mesh)) for number in numbers]
            return state._replace(statistics=jax.tree.map(lambda *sums: sum(sums), *parts))

        return Steps(program, state, train, evaluate, seconds, settle)

    def divergence_cure(self, experiment: Unsupervised) -> str:
        """Other rates, or another rule."""
        del experiment
        return (
            "Look at the rates that encode gives, and at the rule of plasticity and the bounds "
            "of its weights (learner)"
        )


_LEARNERS: dict[str, Learner] = {"gradients": GradientLearner(), "plasticity": PlasticityLearner()}


def learner(experiment: BaseExperiment) -> Learner:
    """Learner of an experiment.

    Raises:
        ExperimentError: Its class derives from neither `Experiment` nor `Unsupervised`.
    """
    found = _LEARNERS.get(getattr(experiment, "learns_by", ""))
    if found is None:
        raise ExperimentError(
            f"{type(experiment).__name__} does not say how it learns: derive it from "
            "training.Experiment or training.unsupervised.Unsupervised"
        )
    return found


def _check_outputs(
    program: Program, state: TrainState, batch: data.Batch, dataset: data.Dataset
) -> None:
    """Traces encoding and network once, so that a wrong shape is named early."""
    experiment = program.experiment

    def run(state, inputs):
        with user_code("encode(experiment, inputs, key)"):
            frames = experiment.encode(experiment, inputs, state.key)
        with user_code("the network"):
            network = program.network(state)
            return network(frames, network.initial_state(experiment.batch), training=False)[0]

    outputs = jax.eval_shape(run, state, batch.inputs)
    program.task.check_outputs(outputs, dataset)
