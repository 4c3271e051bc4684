"""Learners: the compiled steps, the task and the messages of each kind of experiment.

    learner(experiment).prepare(experiment, dataset, ...) -> Steps

The class attribute `learns_by` of an experiment names its learner; all other code treats the kinds
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
from snnjax.training.sharding import (
    batch_shares,
    compile_shapes,
    compile_step,
    feed,
    place,
    state_shardings,
)
from snnjax.training.state import Program, TrainState, initialize, make_task, wants_memory_scheduler
from snnjax.training.step import eval_step, train_step
from snnjax.training.task import Classification, Task
from snnjax.training.unsupervised import Unsupervised

__all__ = ["Learner", "Steps", "learner"]


def _keep_state(state: TrainState) -> TrainState:
    return state


@dataclasses.dataclass(frozen=True, eq=False)
class Steps:
    """Compiled steps of an experiment, and its initial state.

    Attributes:
        program: Static arguments of the steps.
        state: Initial state, on the devices.
        train: `(state, batch) -> (state, metrics)`; None unless requested.
        evaluate: `(state, batch) -> EvalMetrics`.
        compile_seconds: Time spent on compiling.
        settle: Prepares a state for evaluation, by assigning classes to neurons without one.
    """

    program: Any
    state: TrainState
    train: Any
    evaluate: Any
    compile_seconds: float
    settle: Callable[[TrainState], TrainState] = _keep_state


class Learner(Protocol):
    """Way of learning of a kind of experiment.

    Attributes:
        quantity: Noun of the numbers that must be finite, for messages.
    """

    quantity: ClassVar[str]

    def task(self, experiment: Any) -> Task:
        """Task of an experiment."""
        ...

    def batch_unit(self, experiment: Any, mesh: Mesh) -> int:
        """Divisor of the training batch.

        Raises:
            MeshError: This kind of experiment cannot learn on these devices.
        """
        ...

    def bucket_lengths(self, experiment: Any, dataset: data.Dataset) -> tuple[int, ...]:
        """Lengths to which batches of sequences are cut; () leaves all timesteps."""
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
            training: Compiles the training step as well.
            rates: Measures firing rates in evaluation.
        """
        ...

    def divergence_cure(self, experiment: Any) -> str:
        """Advice for a run that diverged."""
        ...


class GradientLearner:
    """Learning by gradients: `training.Experiment`."""

    quantity: ClassVar[str] = "the loss or its gradient"

    def task(self, experiment: Experiment) -> Task:
        """Task of the experiment's field `task`."""
        return make_task(experiment)

    def batch_unit(self, experiment: Experiment, mesh: Mesh) -> int:
        """Number of accumulated parts, times the devices that share the batch."""
        return experiment.accumulate * batch_shares(mesh)

    def bucket_lengths(self, experiment: Experiment, dataset: data.Dataset) -> tuple[int, ...]:
        """As many buckets as the experiment wants, which hold equally many training examples."""
        if experiment.buckets == 1:
            return ()
        if dataset.train.lengths is None:
            raise ExperimentError(
                f"buckets={experiment.buckets} cut sequences of different lengths, and "
                f"{dataset.name} has no lengths: data.from_arrays(..., lengths=(train, test)), or "
                "leave buckets at 1"
            )
        # The last one holds all examples of both splits.
        longest = max(int(np.max(split.lengths)) for split in (dataset.train, dataset.test))  # type: ignore[arg-type]
        return data.bucket_lengths(dataset.train.lengths, experiment.buckets, longest=longest)

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
        # Placed before compilation: the compiled step demands its arguments in this layout.
        layout = state_shardings(state, mesh, experiment.layout)
        state = place(state, mesh, layout=layout)
        # A wrong shape would otherwise surface as a traceback from the loss.
        whole = dataclasses.replace(loader, buckets=())
        _check_outputs(program, state, whole.batch(0), dataset)
        scheduler = wants_memory_scheduler(program, state)
        # Compiled before training starts: the time is reported, and a fault costs no epoch.
        compile_one = functools.partial(
            compile_step, mesh=mesh, layout=layout, memory_scheduler=scheduler,
            deterministic=experiment.deterministic,
        )  # fmt: skip
        start, train = time.perf_counter(), None
        with user_code(f"compiling the steps of {experiment.name}"):
            # Not donated: training goes on with the evaluated state.
            evaluate = compile_one(functools.partial(eval_step, program, rates=rates), donate=False)
            evaluate = compile_shapes(evaluate, state, evaluation, mesh)
            if training:
                train = compile_one(functools.partial(train_step, program))
                train = compile_shapes(train, state, loader, mesh)
        return Steps(program, state, train, evaluate, time.perf_counter() - start)

    def divergence_cure(self, experiment: Experiment) -> str:
        """Advice to lower the learning rate or to clip the gradient."""
        lower = f"--learning-rate {experiment.learning_rate / 4:.2g}"
        return f"Lower the learning rate ({lower}) or bound the gradient (--clip-norm 1)"


class PlasticityLearner:
    """Learning by plasticity: `training.unsupervised.Unsupervised`."""

    quantity: ClassVar[str] = "a threshold or a count of spikes"

    def task(self, experiment: Unsupervised) -> Task:
        """Classification by the classes assigned to neurons."""
        del experiment
        return Classification()

    def batch_unit(self, experiment: Unsupervised, mesh: Mesh) -> int:
        """1; examples are presented one after the other, on a single device."""
        if mesh.size > 1:
            raise MeshError(
                f"{experiment.name} learns by plasticity, from one example after the other, which "
                "several devices cannot share: leave the mesh out"
            )
        return 1

    def bucket_lengths(self, experiment: Unsupervised, dataset: data.Dataset) -> tuple[int, ...]:
        """None; sequences of different lengths are refused."""
        if dataset.train.lengths is not None:
            raise ExperimentError(
                f"{experiment.name} learns by plasticity, which presents each example for one "
                f"duration, and {dataset.name} has lengths: leave them out"
            )
        return ()

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
        """Initialises the network and compiles its steps, which always measure firing rates."""
        del rates
        program, state = unsupervised.initialize(experiment, classes=dataset.classes)
        # Before compilation: rates beyond the network's slots would lose spikes without an error.
        unsupervised.check_rates(program, dataset.train)
        state = place(state, mesh)
        start, batch, train = time.perf_counter(), feed(evaluation, 0, mesh), None

        def compile_one(step: Any, batch: data.Batch, *, donate: bool) -> Any:
            step = functools.partial(step, program)
            deterministic = experiment.deterministic
            jitted = compile_step(step, mesh, donate=donate, deterministic=deterministic)
            return jitted.lower(state, batch).compile()

        with user_code(f"compiling the steps of {experiment.name}"):
            evaluate = compile_one(unsupervised.eval_step, batch, donate=False)
            # With the batches of evaluation: the same shape serves the assignment of classes.
            respond = compile_one(unsupervised.measure_responses, batch, donate=False)
            if training:
                train = compile_one(unsupervised.train_step, feed(loader, 0, mesh), donate=True)
        seconds = time.perf_counter() - start
        # Training examples: test labels must not enter the assignment of classes.
        chosen = dataset.train.take(np.arange(min(experiment.assign, len(dataset.train))))
        assigning = data.Loader(
            chosen, batch_size=len(batch.labels), shuffle=False, drop_last=False
        )

        def settle(state: TrainState) -> TrainState:
            numbers = range(assigning.steps_per_epoch)
            parts = [respond(state, feed(assigning, number, mesh)) for number in numbers]
            # Responses are sums, so batches may be added.
            return state._replace(statistics=jax.tree.map(lambda *sums: sum(sums), *parts))

        return Steps(program, state, train, evaluate, seconds, settle)

    def divergence_cure(self, experiment: Unsupervised) -> str:
        """Advice to check the rates and the rule."""
        del experiment
        return (
            "Look at the rates that encode gives, and at the rule of plasticity and the bounds "
            "of its weights (learner)"
        )


# A table, so that a further kind of experiment is one entry and no branch elsewhere.
_LEARNERS: dict[str, Learner] = {"gradients": GradientLearner(), "plasticity": PlasticityLearner()}


def learner(experiment: BaseExperiment) -> Learner:
    """Learner of an experiment.

    Raises:
        ExperimentError: Its class derives from neither `Experiment` nor `Unsupervised`.
    """
    # A class of a user's own may derive from `BaseExperiment` and lack the attribute.
    entry = _LEARNERS.get(getattr(experiment, "learns_by", ""))
    if entry is None:
        raise ExperimentError(
            f"{type(experiment).__name__} does not say how it learns: derive it from "
            "training.Experiment or training.unsupervised.Unsupervised"
        )
    return entry


def _check_outputs(
    program: Program, state: TrainState, batch: data.Batch, dataset: data.Dataset
) -> None:
    """Checks the shape of the outputs by tracing encoding and network."""
    experiment = program.experiment

    def run(state, inputs, lengths):
        with user_code("encode(experiment, inputs, key)"):
            frames = experiment.encode(experiment, inputs, state.key)
        with user_code("the network"):
            network = program.network(state)
            start = network.initial_state(experiment.batch, statistics=state.statistics)
            return frames, network(frames, start, training=False, lengths=lengths)[0]

    # Tracing takes a second, compiling may take minutes: a wrong shape is named before.
    frames, outputs = jax.eval_shape(run, state, batch.inputs, batch.lengths)
    timesteps = {len(frames), len(outputs), batch.inputs.shape[1]}
    if batch.lengths is not None and len(timesteps) > 1:
        raise ExperimentError(
            f"sequences of {dataset.name} have {batch.inputs.shape[1]} timesteps with their "
            f"padding, their frames {len(frames)} and the outputs {len(outputs)}, and lengths "
            "count the timesteps of all three: encode one frame per timestep (encoding.series), or "
            "store frames and count lengths in them"
        )
    program.task.check_outputs(outputs, dataset)
