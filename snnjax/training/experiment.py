"""Experiments: the complete definition of a training run, as one frozen value.

    frames      = encode(experiment, inputs, key)          [B, ...] -> [T, B, *input_shape]
    outputs     = network(frames)                          -> [T, B, K]
    predictions = readout(outputs)                         -> [B, K]
    loss        = task(experiment).loss(outputs, targets)  -> [B]

An experiment file is a Python file with a docstring (paper, hardware, time, expected number,
command) and a function `config()` that returns an experiment. Every function of an experiment takes
the experiment as an argument, so that fields overridden on the command line take effect. A subclass
adds fields of plain types with defaults:

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Wide(training.Experiment):
        width: int = 64

`BaseExperiment` holds the fields of every run; `Experiment` adds learning by gradients, and
`training.unsupervised.Unsupervised` learning by plasticity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

from snnjax import data, nn, readout
from snnjax.memory import Strategy
from snnjax.training import optimizer as rules
from snnjax.training.errors import ExperimentError
from snnjax.training.sharding import Rule, by_shape
from snnjax.training.task import Task, classification
from snnjax.typing import Array

__all__ = ["FROM_SCRATCH", "BaseExperiment", "Experiment", "check_learning"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaseExperiment:
    """Fields of every run, with any way of learning; plain fields are options of `snnjax train`.

    Attributes:
        name: Name of the experiment and of its run directories.
        dataset: `(experiment) -> data.Dataset`.
        encode: `(experiment, inputs, key) -> frames`, from a batch of stored inputs `[B, ...]` to
            `[T, B, *input_shape]`; scaling and augmentation belong here. It is jitted. In
            evaluation `key` is None; a random code such as `encoding.poisson` then uses a fixed
            key, `jax.random.key(0)`.
        data_dir: Folder of data sets; None is $SNNJAX_DATA, else the directory of TFDS.
        batch: Batch size.
        eval_batch: Batch size of evaluation; None is `batch`.
        epochs: Passes over the training examples.
        seed: Seed of the weights, the order of the examples, augmentation and dropout.
        log_every: Steps per line of metrics.jsonl; an evaluation also ends a line.
        eval_every: Epochs between evaluations.
        checkpoint_every: Steps between checkpoints; None is one epoch.
        keep: Number of newest checkpoints to keep, in addition to the best one.
        patience: Evaluations without improvement after which training stops; None disables early
            stopping. Evaluations use the test examples, so the metric at the stop is slightly
            optimistic.
        not_finite: Reaction to a step that is not finite: "stop" training, "skip" the
            update, or "rollback" to the newest checkpoint and continue after that batch.
        deterministic: On GPUs, use kernels with a fixed order of summation: bit-reproducible, as
            reversed gradients require, but slower. CPUs and TPUs are deterministic anyway.
    """

    # A class attribute instead of isinstance: the learners import the experiments, not the reverse.
    learns_by: ClassVar[str]
    """Key of the learner in `training.learners`."""

    name: str
    dataset: Callable[[Any], data.Dataset]
    encode: Callable[[Any, Any, Any], Array]
    data_dir: str | None = None
    batch: int = 128
    eval_batch: int | None = None
    epochs: int = 10
    seed: int = 0
    log_every: int = 20
    eval_every: int = 1
    checkpoint_every: int | None = None
    keep: int = 2
    patience: int | None = None
    not_finite: str = "stop"
    deterministic: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment(BaseExperiment):
    """An experiment that learns by gradients.

    Attributes:
        network: `(experiment, rngs) -> nn.Network`, with K outputs.
        task: `(experiment) -> Task`: loss, metrics and the metric that selects the best checkpoint;
            `training.task.classification`, `training.task.regression`, or a `training.task.Task` of
            your own.
        readout: `(outputs [T, B, K]) -> predictions [B, K]`, such as the functions of
            `snnjax.readout`.
        schedule: `(experiment, steps) -> optax.Schedule` over the steps of the whole run.
        optimizer: `(experiment, schedule) -> optax.GradientTransformation`, of clipped gradients.
        layout: `(path, shape, mesh) -> PartitionSpec`: the part of each parameter that a device of
            a mesh holds, see `training.sharding`.
        timesteps: T, for `encode`.
        buckets: Number of lengths to which batches of sequences of different lengths are cut
            (`data.Loader`), each by a program of its own; 1 pads all of them to the longest.
            Values are those of padding, but for last bits where a backend sums a matrix product
            in an order that depends on its number of rows.
        accumulate: Number of parts of the batch that are differentiated in turn, which takes the
            memory of one part; their gradients are summed.
        norm_groups: Number of parts of the batch with batch norm statistics of their own
            (`nn.BatchNorm`). With one part per device no statistics cross devices.
        clips: Number of consecutive test examples that are clips of one recording (`data.clips`);
            the test accuracy is then `metrics.clip_accuracy`.
        learning_rate: Peak learning rate.
        warmup_epochs: Epochs (possibly fractional) of linear warm-up to the peak.
        weight_decay: Weight decay of kernels, but not of biases, norm scales and neuron parameters;
            decoupled under `adamw`, coupled under `sgd`.
        clip_norm: Largest global norm of the gradient; None disables clipping.
        label_smoothing: Share of the target spread evenly over the classes, in [0, 1).
        mixup: Blends each batch with itself in reverse order, by a share drawn from Beta(mixup,
            mixup); 0 turns it off.
        mixup_epochs: Number of epochs with blending; None is all.
        mixup_probability: Share of the batches that are blended.
        precision: Number formats of computation and parameters: "float32", "bfloat16", "float16"
            (with a scaled loss), or "compute=bfloat16, params=bfloat16"; see
            `nn.mixed_precision.Precision`.
            Membranes, sums, statistics and streams stay float32.
        memory: Memory strategy, a `memory.Strategy`; on the command line and in config.json its
            text, "depth=recompute(1), pack=True" or "time=mymodule:keep4", see
            `memory.parse_strategy`. None keeps the network as written.
        init_from: Run whose newest weights and running statistics are the initial ones, or the
            folder of one of its checkpoints; a resumed run does not read it again.
        freeze: Patterns of the parameters that do not learn, such as "body.*" or
            "body.layers.1.*", by name as in `snnjax.load(run).arrays`. Batch norms among them keep
            their running statistics. A newly drawn head learns in any case.
        head: Arrays that are newly drawn and not taken from `init_from`: "new" is the last layer
            with a kernel, and what follows it; else a pattern. None takes all.
        memory_scheduler: On a CPU, compile for least memory instead of most concurrency. Without it
            strategies that recompute or reverse save nothing there, unless they scan. None enables
            it if the network has such a strategy.
    """

    # A class variable is no field: neither an option nor a part of config.json.
    learns_by: ClassVar[str] = "gradients"

    network: Callable[[Any, Any], nn.Network]
    task: Callable[[Any], Task] = classification
    readout: Callable[..., Array] = readout.rate
    schedule: Callable[[Any, int], Any] = rules.warmup_cosine
    optimizer: Callable[[Any, Any], Any] = rules.adamw
    layout: Rule = by_shape
    timesteps: int = 4
    buckets: int = 1
    accumulate: int = 1
    norm_groups: int = 1
    clips: int = 1
    learning_rate: float = 1e-3
    # Neutral defaults from here on: a feature is off unless the experiment's file names it.
    warmup_epochs: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float | None = None
    label_smoothing: float = 0.0
    mixup: float = 0.0
    mixup_epochs: int | None = None
    mixup_probability: float = 1.0
    precision: str = "float32"
    memory: Strategy | None = None
    init_from: str | None = None
    freeze: tuple[str, ...] = ()
    head: str | None = None
    memory_scheduler: bool | None = None


FROM_SCRATCH: dict[str, Any] = {"init_from": None, "freeze": (), "head": None}
"""Fields of an `Experiment` whose initial weights are drawn, and all of whose parameters learn."""

# Names for messages: users write these classes.
_KINDS = {
    "gradients": "a training.Experiment",
    "plasticity": "a training.unsupervised.Unsupervised",
}


def check_learning(experiment: BaseExperiment, learns_by: str) -> None:
    """Raises `ExperimentError` unless an experiment learns by "gradients" or "plasticity"."""
    # By the attribute, since an import of `Unsupervised` here would be a cycle.
    if experiment.learns_by != learns_by:
        raise ExperimentError(
            f"{experiment.name} learns by {experiment.learns_by}, and this needs "
            f"{_KINDS[learns_by]}: snnjax train, eval and show take either kind"
        )
