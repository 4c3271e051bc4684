"""Preparation of a run: checks, data, network and compiled functions.

Nothing is written here, so that a refused experiment leaves no files behind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from snnjax import data
from snnjax.training import _fingerprint as fingerprints
from snnjax.training import _start as starts
from snnjax.training import config
from snnjax.training._evaluation import Evaluation, evaluate
from snnjax.training._learners import learner
from snnjax.training.errors import ExperimentError, MeshError, user_code
from snnjax.training.experiment import BaseExperiment
from snnjax.training.run import Run
from snnjax.training.sharding import batch_shares, make_mesh
from snnjax.training.state import TrainState
from snnjax.training.task import Task

__all__ = ["Session", "prepare"]


@dataclasses.dataclass(frozen=True, eq=False)
class Session:
    """Experiment prepared to run on some devices.

    Attributes:
        experiment: The experiment.
        dataset: Its data.
        loader: Batches of the training examples.
        evaluation_loader: Batches of the test examples.
        mesh: The devices.
        program: Static arguments of the steps.
        state: Initial state, consumed by the first training step.
        train: `(state, batch) -> (state, metrics)`, compiled; None in a session for evaluation.
        eval: `(state, batch) -> EvalMetrics`, compiled.
        compile_seconds: Time of compilation, s.
        settle: Prepares a state for evaluation, by assigning classes to neurons without one.
        data_fields: Plain fields that `dataset()` of the experiment read, by name.
        initialization: Record of the weights taken from another run (`init_from`), as in
            initialization.json; None of drawn ones.
    """

    experiment: BaseExperiment
    dataset: data.Dataset
    loader: data.Loader
    evaluation_loader: data.Loader
    mesh: Mesh
    program: Any
    state: TrainState
    train: Any
    eval: Any
    compile_seconds: float
    settle: Callable[[TrainState], TrainState]
    data_fields: dict[str, Any]
    initialization: dict[str, Any] | None = None

    @property
    def task(self) -> Task:
        """Task of the experiment: loss, metrics, and the metric of the best checkpoint."""
        return self.program.task

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.experiment.epochs * self.loader.steps_per_epoch

    @property
    def parameters(self) -> int:
        """Number of learned parameters."""
        # Sizes only: the state itself is consumed by the first step.
        return sum(leaf.size for leaf in jax.tree.leaves(self.state.params))

    def describe_initialization(self) -> list[str]:
        """Lines about the weights taken from another run: loaded, newly drawn, not taken over."""
        return starts.describe(self.initialization) if self.initialization else []

    def bytes_per_device(self) -> dict[str, int]:
        """Bytes of a training step on each device, as `state` and `temporary` arrays.

        Empty if no training step was compiled or the backend does not report its memory.
        """
        # Of the compiled step: its temporaries are known without running it.
        analysis = self.train and self.train.memory_analysis()
        if not analysis:
            return {}
        leaves = jax.tree.leaves(self.state)
        # The first shard stands for all: a layout gives each device equal parts.
        held = sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)
        return {"state": held, "temporary": analysis.temp_size_in_bytes}

    def data_fingerprint(self) -> dict[str, Any]:
        """Fingerprint of the data, which a run keeps in data.json.

        It has the number of examples, the SHA-256 of all labels and of a sample of inputs of both
        splits, and `data_fields`.
        """
        return fingerprints.fingerprint(self.dataset, self.data_fields)

    def warn_of_other_data(self, run: Run, *, warn: Callable[[str], None]) -> None:
        """Warns if a run was trained on other data than those of this session.

        Args:
            run: The run.
            warn: Called with a sentence about each difference.
        """
        fingerprints.warn_of_other_data(run, self.data_fingerprint, warn=warn)

    def evaluate(self, state: TrainState) -> Evaluation:
        """Evaluates a state on the test examples."""
        # Settled for the evaluation only; training goes on from the state itself.
        loader, settled = self.evaluation_loader, self.settle(state)
        return evaluate(self.eval, settled, loader, self.mesh, task=self.task)


def prepare(
    experiment: BaseExperiment,
    *,
    mesh: Mesh | None = None,
    training: bool = True,
    rates: bool = False,
    resume: bool = False,
    warn: Callable[[str], None] = lambda text: None,
) -> Session:
    """Checks an experiment, loads its data, initialises its network and compiles its steps.

    Args:
        experiment: The experiment.
        mesh: The devices; None is the first one.
        training: Compiles the training step as well.
        rates: Measures firing rates in evaluation.
        resume: True for a run that has a checkpoint: `init_from` is not read again.
        warn: Called with a sentence about each skipped damaged checkpoint of `init_from`.

    Raises:
        ExperimentError: The experiment has a fault, named by the message, or the weights of
            `init_from` do not fit.
        RunError: `init_from` is no run with a checkpoint.
        MeshError: The devices cannot share its batches.
        snnjax.data.MissingDataError: The data were not found.
    """
    # The quick checks first: data may take minutes to load, and programs to compile.
    config.check(experiment)
    # Evaluation takes the weights of a checkpoint.
    start = starts.read_start(experiment, warn=warn) if training and not resume else None
    mesh = make_mesh() if mesh is None else mesh
    kind = learner(experiment)
    # Before the data: a mesh that a kind of experiment cannot use needs no files to be refused.
    unit = kind.batch_unit(experiment, mesh)
    reader = fingerprints.Reader(experiment)
    dataset = config.load_dataset(reader.experiment)
    buckets = kind.bucket_lengths(experiment, dataset)
    loader = _training_loader(experiment, dataset, mesh, unit, buckets)
    evaluation = _evaluation_loader(experiment, kind.task(experiment), dataset, mesh, buckets)
    steps = kind.prepare(
        experiment, dataset, loader, evaluation, mesh, training=training, rates=rates
    )
    state, record = steps.state, None
    if start is not None:
        state = starts.with_arrays(state, start.arrays, start.statistics)
        record = start.record
    return Session(
        experiment, dataset, loader, evaluation, mesh, steps.program, state, steps.train,
        steps.evaluate, steps.compile_seconds, steps.settle, reader.fields(), record,
    )  # fmt: skip


def _training_loader(
    experiment: BaseExperiment,
    dataset: data.Dataset,
    mesh: Mesh,
    unit: int,
    buckets: tuple[int, ...],
) -> data.Loader:
    size = len(dataset.train)
    # The loader refuses it as well, but cannot name the option.
    if experiment.batch > size:
        raise ExperimentError(
            f"a batch of {experiment.batch} is larger than the {size} training examples of "
            f"{dataset.name}: choose --batch {size} or less"
        )
    if experiment.batch % unit:
        shares = batch_shares(mesh)
        parts = f" in {unit // shares} parts" if unit > shares else ""
        raise MeshError(
            f"a batch of {experiment.batch}{parts} cannot be cut evenly over {shares} devices: "
            f"choose a multiple of {unit}"
        )
    with user_code(f"batching {dataset.name}"):
        return data.Loader(
            dataset.train, batch_size=experiment.batch, seed=experiment.seed, buckets=buckets
        )


def _evaluation_loader(
    experiment: BaseExperiment,
    task: Task,
    dataset: data.Dataset,
    mesh: Mesh,
    buckets: tuple[int, ...],
) -> data.Loader:
    """Test examples in batches of whole recordings, with equally many examples on every device."""
    # Not more than there are examples, where the unit allows it: the rest would be padding.
    size = min(experiment.eval_batch or experiment.batch, len(dataset.test))
    unit = batch_shares(mesh) * task.evaluation_unit
    # Also without buckets, whose sums then are over the same batches, in the same order.
    by_length = dataset.test.lengths is not None and task.evaluation_unit == 1
    return data.Loader(
        dataset.test, batch_size=max(size - size % unit, unit), shuffle=False, drop_last=False,
        buckets=buckets, by_length=by_length,
    )  # fmt: skip
