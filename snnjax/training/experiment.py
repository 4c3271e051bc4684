"""An experiment: everything that defines a training run, as one frozen value.

    frames  = encode(experiment, inputs, key)              [B, ...] -> [T, B, *input_shape]
    outputs = network(frames)                              -> [T, B, K]
    logits  = readout(outputs)                             -> [B, K]
    loss    = cross entropy of the logits, or loss(experiment, outputs, labels)   -> [B]

An experiment file is a Python file with a docstring (paper, hardware, time, expected number,
command) and a function `config()` that returns an `Experiment`. Functions receive the whole
experiment, so that fields overridden on the command line take effect. To add fields of your own,
subclass and give them plain types and defaults:

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Mine(training.Experiment):
        width: int = 64
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

from snnjax import data, nn, readout
from snnjax.memory import Strategy
from snnjax.training import optimizer as rules
from snnjax.training.sharding import Rule, by_shape
from snnjax.typing import Array

__all__ = ["Experiment"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """What to train, on what, and how. Fields of plain types are options of `snnjax train`.

    Attributes:
        name: What to call it; runs are named after it.
        network: `(experiment, rngs) -> nn.Network`, with K outputs.
        dataset: `(experiment) -> data.Dataset`.
        encode: `(experiment, inputs, key) -> frames`: a batch of inputs as the data set stores
            them, `[B, ...]`, to `[T, B, *input_shape]`. Scaling and augmentation belong here. It is
            jitted; `key` is None in evaluation, where a code that draws, such as
            `encoding.poisson`, takes a fixed one, `jax.random.key(0)`.
        readout: `(outputs [T, B, K]) -> logits [B, K]`.
        loss: `(experiment, outputs [T, B, K], labels [B]) -> [B]`; None is the cross entropy of
            the readout, smoothed by `label_smoothing`.
        schedule: `(experiment, steps) -> optax.Schedule` over so many steps in all.
        optimizer: `(experiment, schedule) -> optax.GradientTransformation`; gradients are clipped
            in front of it.
        layout: `(path, shape, mesh) -> PartitionSpec`: which part of each parameter a device of a
            mesh holds, see `training.sharding`.
        data_dir: Folder of data sets; None is $SNNJAX_DATA, else TFDS' own directory.
        timesteps: T, for `encode`.
        batch: Examples per step.
        accumulate: Parts of the batch that are differentiated one after the other, their gradients
            added up: the memory of a part; see `training.train_step`.
        norm_groups: Parts of the batch whose statistics batch norm takes apart (`nn.BatchNorm`); as
            many as devices share the batch, and no statistics cross them.
        eval_batch: Examples per step of evaluation; None is `batch`.
        clips: Neighbouring test examples that are clips of one recording (`data.clips`); the test
            accuracy is then `metrics.clip_accuracy`.
        epochs: Passes over the training examples.
        learning_rate: Its peak.
        warmup_epochs: Epochs (or a part of one) in which the learning rate rises to its peak.
        weight_decay: Decoupled; of kernels only, not of biases, norm scales and neuron parameters
            (under `adamw`; `sgd` couples it).
        clip_norm: Largest global norm of the gradient; None does not clip.
        label_smoothing: Share of the target spread over all classes, in [0, 1).
        mixup: Blends each batch with itself reversed, by a share drawn from Beta(mixup, mixup), see
            `training.mixup`; 0 does not.
        mixup_epochs: Stop blending after so many epochs; None never does.
        mixup_probability: Share of the batches that are blended.
        seed: Of the weights, the order of the examples, augmentation and dropout.
        log_every: Steps per line of metrics.jsonl; an evaluation always ends one.
        eval_every: Epochs from one evaluation to the next.
        checkpoint_every: Steps from one checkpoint to the next; None is once per epoch.
        keep: Checkpoints to keep, the newest ones; the best one is kept besides.
        patience: Stop after so many evaluations without a better accuracy; None never does. It
            looks at the test examples, so the accuracy at the stop flatters a little.
        not_finite: What to do about a loss or gradient that is not finite: "stop" training, "skip"
            that update, or "rollback" to the newest checkpoint and go on behind that batch.
        precision: In which number formats the network computes and keeps: "float32", "bfloat16",
            "float16" (its loss is scaled), or "compute=bfloat16, params=bfloat16"; see
            `nn.Precision`. Membranes, sums, statistics and streams stay float32.
        memory: Memory strategy, a `memory.Strategy`; as text, on the command line and in
            config.json, "depth=recompute(1), pack=True" or "time=mymodule:keep4", see
            `memory.parse_strategy`. None is the network as it was written.
        deterministic: On GPUs, kernels whose sums have one order: the same bits every time, as a
            reversed gradient needs them, but slower. CPUs and TPUs are so without.
        memory_scheduler: On a CPU, compile for the least memory instead of the most concurrency;
            strategies that recompute or reverse save nothing there without it, unless they scan.
            None does so where the network holds such a strategy.
    """

    UNUSED: ClassVar[tuple[str, ...]] = ()
    """Fields that a subclass has no use for: they are no options and are not written down."""

    name: str
    network: Callable[[Any, Any], nn.Network]
    dataset: Callable[[Any], data.Dataset]
    encode: Callable[[Any, Any, Any], Array]
    readout: Callable[[Array], Array] = readout.rate
    loss: Callable[[Any, Array, Array], Array] | None = None
    schedule: Callable[[Any, int], Any] = rules.warmup_cosine
    optimizer: Callable[[Any, Any], Any] = rules.adamw
    layout: Rule = by_shape
    data_dir: str | None = None
    timesteps: int = 4
    batch: int = 128
    accumulate: int = 1
    norm_groups: int = 1
    eval_batch: int | None = None
    clips: int = 1
    epochs: int = 10
    learning_rate: float = 1e-3
    warmup_epochs: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float | None = None
    label_smoothing: float = 0.0
    mixup: float = 0.0
    mixup_epochs: int | None = None
    mixup_probability: float = 1.0
    seed: int = 0
    log_every: int = 20
    eval_every: int = 1
    checkpoint_every: int | None = None
    keep: int = 2
    patience: int | None = None
    not_finite: str = "stop"
    precision: str = "float32"
    memory: Strategy | None = None
    deterministic: bool = False
    memory_scheduler: bool | None = None
