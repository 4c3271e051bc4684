"""Tasks: loss and metrics of a network's outputs, and the metric of the best checkpoint.

    predictions = task.predict(outputs, lengths=...)              [T, B, K] -> [B, ...]
    values      = task.loss(outputs, targets, lengths=...)        -> [B]
    metrics     = task.metrics(predictions, targets, lengths=...) -> name: [B]

Values stay per example: a batch may be padded, cut over devices or accumulated in parts, and the
training loop computes the weighted means. `summary` converts means over all examples to reported
metrics, such as the root of a mean squared error.

    classification    cross entropy of class labels, or another loss; accuracy, highest is best
    regression        mean squared error of real targets; MAE and RMSE, lowest RMSE is best
    multi_label       sigmoid cross entropy of labels that do not exclude each other; F1, highest

Targets are `[B]` (classes), `[B, D]` (real numbers) or `[B, K]` (labels, 0 and 1); with
`per_timestep=True` they have the timesteps as second axis, `[B, T]`, `[B, T, D]` or `[B, T, K]`,
and the loss is the mean over the timesteps.
`lengths` `[B]` are the numbers of valid timesteps of padded sequences, None if all are valid:
readout, loss and metrics ignore the others.

A task of your own is a subclass with a loss:

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Absolute(training.task.Task):
        def loss(self, outputs, targets, *, lengths=None):
            return jnp.abs(self.predict(outputs, lengths=lengths) - targets).sum(-1)

    training.Experiment(..., task=lambda experiment: Absolute(readout=experiment.readout))
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from snnjax import data, losses, metrics, readout
from snnjax.ops.rounding import widen
from snnjax.training.errors import ExperimentError
from snnjax.typing import Array

__all__ = [
    "Classification",
    "MultiLabel",
    "Regression",
    "Task",
    "classification",
    "multi_label",
    "regression",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """Loss and metrics of an experiment; a subclass defines at least `loss`.

    Attributes:
        readout: `(outputs [T, B, K]) -> predictions [B, K]`, as the functions of `snnjax.readout`;
            called with `lengths=` for padded sequences.
        best: Name of the metric that selects the best checkpoint; "loss" is always available.
        lowest: True if the lowest value of this metric is the best one.
    """

    best: ClassVar[str] = "loss"
    lowest: ClassVar[bool] = True

    readout: Callable[..., Array] = readout.rate

    @property
    def evaluation_unit(self) -> int:
        """Number of consecutive test examples that must be evaluated in one batch."""
        return 1

    def predict(self, outputs: Array, *, lengths: Array | None = None) -> Array:
        """Predictions from outputs `[T, B, K]`, by the readout."""
        return self.readout(outputs) if lengths is None else self.readout(outputs, lengths=lengths)

    def loss(self, outputs: Array, targets: Array, *, lengths: Array | None = None) -> Array:
        """Loss of each example, `[B]`.

        Args:
            outputs: `[T, B, K]`, floating.
            targets: Labels or real targets of the batch, examples first.
            lengths: `[B]`, valid timesteps; None is all.
        """
        raise NotImplementedError(
            f"{type(self).__name__} needs a method loss(self, outputs, targets, *, lengths=None) "
            "that returns one number per example, [B]"
        )

    def metrics(
        self, predictions: Array, targets: Array, *, lengths: Array | None = None
    ) -> dict[str, Array]:
        """Metrics of each example by name, `[B]` each.

        Args:
            predictions: Result of `predict`.
            targets: As in `loss`.
            lengths: `[B]`, valid timesteps; None is all.
        """
        del predictions, targets, lengths
        return {}

    def evaluation_metrics(
        self, predictions: Array, targets: Array, *, lengths: Array | None = None
    ) -> dict[str, Array]:
        """Metrics of each example in evaluation, where batches hold whole evaluation units."""
        return self.metrics(predictions, targets, lengths=lengths)

    def summary(self, means: Mapping[str, float]) -> dict[str, float]:
        """Reported metrics from the means over all examples."""
        return dict(means)

    def format(self, name: str, value: float) -> str:
        """Formats a metric for people."""
        del name
        return f"{value:.4g}"

    def score(self, values: Mapping[str, Any]) -> float:
        """Score of a checkpoint, higher is better.

        Args:
            values: Loss and metrics by name.

        Returns:
            The score; minus infinity if the deciding metric is missing or NaN.
        """
        value = values.get(self.best)
        # `max` over scores would keep a NaN in front of any number.
        if value is None or math.isnan(value):
            return -math.inf
        # One direction for all tasks: checkpoints and patience compare by "higher is better".
        return -float(value) if self.lowest else float(value)

    def check_dataset(self, dataset: data.Dataset) -> None:
        """Raises `ExperimentError` if the targets of a data set do not fit the task."""
        del dataset

    def check_outputs(self, outputs: jax.ShapeDtypeStruct, dataset: data.Dataset) -> None:
        """Raises `ExperimentError` if the network's outputs `[T, B, ...]` do not fit the task."""
        del outputs, dataset


@dataclasses.dataclass(frozen=True, kw_only=True)
class _OfTimesteps(Task):
    """Task whose targets may belong to timesteps, with an objective in place of its own loss."""

    per_timestep: bool = False
    objective: Callable[..., Array] | None = None

    def predict(self, outputs: Array, *, lengths: Array | None = None) -> Array:
        """Predictions `[B, K]` by the readout, or `[T, B, K]` if every timestep has a target."""
        return outputs if self.per_timestep else super().predict(outputs, lengths=lengths)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(_OfTimesteps):
    """Classes of examples, or of timesteps; see `classification`.

    Attributes:
        label_smoothing: Share of the target spread evenly over the classes, in [0, 1).
        clips: Number of consecutive test examples that are clips of one recording.
        per_timestep: True if every timestep has a label, `[B, T]`.
        objective: `(outputs, labels) -> [B]`, also with `lengths=` for padded sequences; None is
            the cross entropy of the predictions.
    """

    best: ClassVar[str] = "accuracy"
    lowest: ClassVar[bool] = False

    label_smoothing: float = 0.0
    clips: int = 1

    @property
    def evaluation_unit(self) -> int:
        """Number of clips of a recording."""
        return self.clips

    def loss(self, outputs: Array, targets: Array, *, lengths: Array | None = None) -> Array:
        """Cross entropy, or the `objective`."""
        if self.objective is not None:
            return _with_lengths(self.objective, outputs, targets, lengths)
        cross_entropy = functools.partial(
            losses.cross_entropy, label_smoothing=self.label_smoothing
        )
        logits = self.predict(outputs, lengths=lengths)
        if not self.per_timestep:
            return cross_entropy(logits, targets)
        # Per timestep, then averaged: padding of short sequences is left out of the mean.
        return _time_mean(jax.vmap(cross_entropy)(logits, _time_major(targets)), lengths)

    def metrics(
        self, predictions: Array, targets: Array, *, lengths: Array | None = None
    ) -> dict[str, Array]:
        """Metric `accuracy`: 1 or 0, or the share of correct timesteps."""
        if not self.per_timestep:
            return {"accuracy": metrics.correct(predictions, targets)}
        correct = jax.vmap(metrics.correct)(predictions, _time_major(targets))
        return {"accuracy": _time_mean(correct, lengths)}

    def evaluation_metrics(
        self, predictions: Array, targets: Array, *, lengths: Array | None = None
    ) -> dict[str, Array]:
        """Metric `accuracy`; all clips of a recording count as correct if the majority is."""
        values = self.metrics(predictions, targets, lengths=lengths)
        if self.clips == 1:
            return values
        # Clips of a recording are neighbours, see `data.clips`, and no batch cuts a recording.
        right = values["accuracy"].reshape(-1, self.clips).sum(-1)
        # More than half: a tie counts as wrong.
        majority = (2 * right > self.clips).astype(jnp.float32)
        # One value per example, so that the mean over examples is that over recordings.
        return {"accuracy": jnp.repeat(majority, self.clips)}

    def format(self, name: str, value: float) -> str:
        """Formats the accuracy as a percentage."""
        return f"{value:.2%}" if name == "accuracy" else super().format(name, value)

    def check_dataset(self, dataset: data.Dataset) -> None:
        """Refuses real targets, and a test split with incomplete recordings."""
        if not dataset.classes:
            raise ExperimentError(
                f"{dataset.name} has real targets, and classification needs integer labels: set "
                "task=training.task.regression, or labels.astype('int32') if they are classes"
            )
        axes = 2 if self.per_timestep else 1
        _check_targets(dataset, axes, "[N, T]" if self.per_timestep else "[N]")
        # A rest would shift the boundaries between recordings.
        if len(dataset.test) % self.clips:
            raise ExperimentError(
                f"{dataset.name} has {len(dataset.test)} test examples, which are not recordings "
                f"of {self.clips} clips each: make them by data.clips(split, count=..., "
                "duration=...), and set clips to that count"
            )

    def check_outputs(self, outputs: jax.ShapeDtypeStruct, dataset: data.Dataset) -> None:
        """Refuses a number of outputs other than that of classes."""
        # Labels are traced in the step, where their range can no longer be checked.
        if outputs.ndim != 3 or outputs.shape[-1] != dataset.classes:
            raise ExperimentError(
                f"the network must give outputs [T, B, {dataset.classes}], one per class of the "
                f"data set, got {list(outputs.shape)}: its last layer has {dataset.classes} outputs"
            )
        _check_timesteps(self.per_timestep, outputs, dataset)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regression(_OfTimesteps):
    """Real targets of examples, or of timesteps; see `regression`.

    Attributes:
        per_timestep: True if every timestep has a target, `[B, T, D]`.
        objective: `(outputs, targets) -> [B]`, also with `lengths=` for padded sequences; None is
            the mean squared error of the predictions.
    """

    best: ClassVar[str] = "rmse"
    lowest: ClassVar[bool] = True

    def loss(self, outputs: Array, targets: Array, *, lengths: Array | None = None) -> Array:
        """Mean squared error over the D targets, or the `objective`."""
        if self.objective is not None:
            return _with_lengths(self.objective, outputs, targets, lengths)
        return self._mean(
            jnp.square,
            predictions=self.predict(outputs, lengths=lengths),
            targets=targets,
            lengths=lengths,
        )

    def metrics(
        self, predictions: Array, targets: Array, *, lengths: Array | None = None
    ) -> dict[str, Array]:
        """Metrics `mae`, the mean absolute error, and `rmse`, still without its root."""
        # The root of the mean over all examples is not the mean of roots: `summary` takes it.
        error = functools.partial(
            self._mean, predictions=predictions, targets=targets, lengths=lengths
        )
        return {"mae": error(jnp.abs), "rmse": error(jnp.square)}

    def summary(self, means: Mapping[str, float]) -> dict[str, float]:
        """Metrics with the root of the mean squared error over all examples."""
        # On the host: means over all examples exist only there.
        return {**means, "rmse": math.sqrt(means["rmse"])}

    def check_dataset(self, dataset: data.Dataset) -> None:
        """Refuses class labels."""
        if dataset.classes:
            raise ExperimentError(
                f"{dataset.name} has {dataset.classes} classes, and regression needs real targets: "
                "set task=training.task.classification, or labels.astype('float32')[:, None] if "
                "the labels are quantities"
            )
        axes = 3 if self.per_timestep else 2
        _check_targets(dataset, axes, "[N, T, D]" if self.per_timestep else "[N, D]")

    def check_outputs(self, outputs: jax.ShapeDtypeStruct, dataset: data.Dataset) -> None:
        """Refuses a number of outputs other than that of targets."""
        _check_width(outputs, dataset, "target")
        _check_timesteps(self.per_timestep, outputs, dataset)

    def _mean(
        self,
        function: Callable[[Array], Array],
        predictions: Array,
        targets: Array,
        lengths: Array | None,
    ) -> Array:
        """Mean over D, and over time if there is a target per timestep, `[B]`."""
        # In float32: a mean in the network's bfloat16 would lose digits.
        predictions = widen(predictions)
        if not self.per_timestep:
            return jnp.mean(function(predictions - targets), axis=-1)
        values = jnp.mean(function(predictions - _time_major(targets)), axis=-1)
        return _time_mean(values, lengths)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiLabel(_OfTimesteps):
    """Labels that do not exclude each other, of examples or of timesteps; see `multi_label`.

    Attributes:
        per_timestep: True if every timestep has its labels, `[B, T, K]`.
        objective: `(outputs, targets) -> [B]`, also with `lengths=` for padded sequences; None is
            the sigmoid cross entropy of the predictions.
    """

    best: ClassVar[str] = "f1"
    lowest: ClassVar[bool] = False

    def loss(self, outputs: Array, targets: Array, *, lengths: Array | None = None) -> Array:
        """Sigmoid cross entropy, or the `objective`."""
        if self.objective is not None:
            return _with_lengths(self.objective, outputs, targets, lengths)
        logits = self.predict(outputs, lengths=lengths)
        return self._mean(losses.sigmoid_cross_entropy, logits, targets, lengths)

    def metrics(
        self, predictions: Array, targets: Array, *, lengths: Array | None = None
    ) -> dict[str, Array]:
        """Shares of the K labels, means over the timesteps: hits, misses and false alarms."""

        def share(mark: Callable[[Array, Array], Array]) -> Array:
            # A logit above 0 is a probability above 1/2; NaN is none, and counts as a miss.
            rows = lambda x, y: mark(x > 0, y > 0.5).mean(-1, dtype=jnp.float32)  # noqa: E731
            return self._mean(rows, predictions, targets, lengths)

        return {
            "hits": share(jnp.logical_and),
            "misses": share(lambda answer, truth: ~answer & truth),
            "false_alarms": share(lambda answer, truth: answer & ~truth),
            "exact_match": self._mean(
                lambda x, y: ((x > 0) == (y > 0.5)).all(-1).astype(jnp.float32),
                predictions, targets, lengths,
            ),
        }  # fmt: skip

    def summary(self, means: Mapping[str, float]) -> dict[str, float]:
        """Accuracy, F1 over all examples and labels (micro), and the share of exact matches."""
        hits, errors = means["hits"], means["misses"] + means["false_alarms"]
        # Without any label, and without an answer, nothing is wrong.
        f1 = 2 * hits / (2 * hits + errors) if hits or errors else 1.0
        # Other metrics, such as those of solvers of equilibria, are passed on.
        parts = ("hits", "misses", "false_alarms")
        others = {name: value for name, value in means.items() if name not in parts}
        return {"accuracy": 1 - errors, "f1": f1, **others}

    def format(self, name: str, value: float) -> str:
        """Formats shares as percentages."""
        shares = ("accuracy", "f1", "exact_match")
        return f"{value:.2%}" if name in shares else super().format(name, value)

    def check_dataset(self, dataset: data.Dataset) -> None:
        """Refuses classes, and targets other than 0 and 1."""
        if dataset.classes:
            raise ExperimentError(
                f"{dataset.name} has {dataset.classes} classes, and multi_label needs floating "
                "targets [N, K], 1 where a label applies and 0 elsewhere: "
                "numpy.eye(K, dtype='float32')[labels] for single ones, or task=classification"
            )
        axes = 3 if self.per_timestep else 2
        _check_targets(dataset, axes, "[N, T, K]" if self.per_timestep else "[N, K]")
        for split in (dataset.train, dataset.test):
            if not ((split.labels == 0) | (split.labels == 1)).all():
                raise ExperimentError(
                    f"{dataset.name} has targets from {split.labels.min():g} to "
                    f"{split.labels.max():g}, and multi_label needs 0 and 1: "
                    "(labels > limit).astype('float32'), or task=training.task.regression"
                )

    def check_outputs(self, outputs: jax.ShapeDtypeStruct, dataset: data.Dataset) -> None:
        """Refuses a number of outputs other than that of labels."""
        _check_width(outputs, dataset, "label")
        _check_timesteps(self.per_timestep, outputs, dataset)

    def _mean(
        self,
        function: Callable[[Array, Array], Array],
        logits: Array,
        targets: Array,
        lengths: Array | None,
    ) -> Array:
        """Values `[B]` of a function of `[B, K]`, averaged over time if targets have timesteps."""
        if not self.per_timestep:
            return function(logits, targets)
        return _time_mean(jax.vmap(function)(logits, _time_major(targets)), lengths)


def classification(
    experiment: Any,
    *,
    loss: Callable[..., Array] | None = None,
    per_timestep: bool = False,
) -> Task:
    """Task of class labels: cross entropy and accuracy.

        L = CE(readout(outputs), label),      accuracy = share of argmax(readout(outputs)) = label

    Args:
        experiment: Experiment with `readout`, `label_smoothing` and `clips`.
        loss: `(experiment, outputs [T, B, K], labels) -> [B]` in place of the cross entropy; called
            with `lengths=` for padded sequences.
        per_timestep: True if every timestep has a label, `[B, T]`; the readout is then unused.

    Example:
        task=functools.partial(training.task.classification, loss=tet)
    """
    return Classification(
        readout=experiment.readout,
        label_smoothing=experiment.label_smoothing,
        clips=experiment.clips,
        per_timestep=per_timestep,
        objective=None if loss is None else _BoundLoss(loss, experiment),
    )


def regression(
    experiment: Any,
    *,
    loss: Callable[..., Array] | None = None,
    per_timestep: bool = False,
) -> Task:
    """Task of real targets: mean squared error, MAE and RMSE; the lowest RMSE is the best.

        L = 1/D sum_d (readout(outputs)[d] - target[d])^2

    Args:
        experiment: Experiment with `readout`.
        loss: `(experiment, outputs [T, B, D], targets) -> [B]` in place of the squared error;
            called with `lengths=` for padded sequences.
        per_timestep: True if every timestep has a target, `[B, T, D]`; the readout is then unused.

    Raises:
        ExperimentError: The experiment sets fields of classification.
    """
    _refuse_class_fields(experiment, "a regression")
    return Regression(
        readout=experiment.readout,
        per_timestep=per_timestep,
        objective=None if loss is None else _BoundLoss(loss, experiment),
    )


def multi_label(
    experiment: Any,
    *,
    loss: Callable[..., Array] | None = None,
    per_timestep: bool = False,
) -> Task:
    """Task of K labels that do not exclude each other: sigmoid cross entropy, F1 and accuracy.

        L = losses.sigmoid_cross_entropy(readout(outputs), targets),     answer[k] = readout[k] > 0
        F1 = 2 TP / (2 TP + FP + FN)          over all examples and labels (micro)

    The accuracy is the share of right answers among all labels, the exact match the share of
    examples with K right ones. The highest F1 is the best: where labels are rare, the accuracy of
    no answer at all is high.

    Args:
        experiment: Experiment with `readout`.
        loss: `(experiment, outputs [T, B, K], targets) -> [B]` in place of the cross entropy;
            called with `lengths=` for padded sequences.
        per_timestep: True if every timestep has its labels, `[B, T, K]`; the readout is then
            unused, and metrics are means over the timesteps of each example.

    Raises:
        ExperimentError: The experiment sets fields of classification.
    """
    _refuse_class_fields(experiment, "a task of several labels")
    return MultiLabel(
        readout=experiment.readout,
        per_timestep=per_timestep,
        objective=None if loss is None else _BoundLoss(loss, experiment),
    )


def _refuse_class_fields(experiment: Any, kind: str) -> None:
    # Silently ignored fields would look as if they had an effect.
    for name, neutral in (("label_smoothing", 0.0), ("clips", 1)):
        if getattr(experiment, name) != neutral:
            raise ExperimentError(
                f"{name} belongs to classification, and {experiment.name} is {kind}: leave "
                f"{name} at {neutral}"
            )


@dataclasses.dataclass(frozen=True)
class _BoundLoss:
    """Loss bound to an experiment, comparable with `==`."""

    # `functools.partial` compares by identity, and a task is a static argument of compiled steps.

    loss: Callable[..., Array]
    experiment: Any

    def __call__(self, *arguments: Any, **options: Any) -> Array:
        # The experiment comes first, as in every function of an experiment.
        return self.loss(self.experiment, *arguments, **options)


def _with_lengths(
    function: Callable[..., Array], outputs: Array, targets: Array, lengths: Array | None
) -> Array:
    # A function without `lengths` serves all data sets but padded ones.
    if lengths is None:
        return function(outputs, targets)
    own = function.loss if isinstance(function, _BoundLoss) else function
    if not {"lengths", "**"} & _keywords(own):
        raise ExperimentError(
            f"the data are padded sequences, and the loss {getattr(own, '__name__', own)} takes no "
            "lengths: give it an argument lengths=None, [B], and leave out timesteps from there on"
        )
    return function(outputs, targets, lengths=lengths)


def _keywords(function: Callable[..., Any]) -> set[str]:
    """Names of the parameters of a function, with "**" for any keyword."""
    parameters = inspect.signature(function).parameters.values()
    return {"**" if p.kind is p.VAR_KEYWORD else p.name for p in parameters}


def _time_major(targets: Array) -> Array:
    """Transposes targets `[B, T, ...]` to `[T, B, ...]`."""
    return jnp.swapaxes(targets, 0, 1)


def _time_mean(values: Array, lengths: Array | None) -> Array:
    """Mean over the valid timesteps, `[T, B] -> [B]`."""
    # The readout already averages over valid timesteps; it wants a last axis.
    return readout.rate(values[..., None], lengths=lengths)[..., 0]


def _check_targets(dataset: data.Dataset, axes: int, letters: str) -> None:
    shape = dataset.train.labels.shape
    if len(shape) != axes:
        raise ExperimentError(
            f"{dataset.name} has targets of shape {list(shape)} and the task needs {letters}: "
            "per_timestep=True is for a target at every timestep; one number is D = 1, "
            "targets[..., None]"
        )


def _check_width(outputs: jax.ShapeDtypeStruct, dataset: data.Dataset, noun: str) -> None:
    # The last axis holds the targets, with or without timesteps in front.
    size = dataset.train.labels.shape[-1]
    if outputs.ndim != 3 or outputs.shape[-1] != size:
        raise ExperimentError(
            f"the network must give outputs [T, B, {size}], one per {noun} of the data set, "
            f"got {list(outputs.shape)}: its last layer has {size} outputs"
        )


def _check_timesteps(
    per_timestep: bool, outputs: jax.ShapeDtypeStruct, dataset: data.Dataset
) -> None:
    if per_timestep and outputs.shape[0] != dataset.train.labels.shape[1]:
        raise ExperimentError(
            f"the network gives {outputs.shape[0]} timesteps and {dataset.name} has targets of "
            f"{dataset.train.labels.shape[1]}: encode as many timesteps as there are targets"
        )
