"""Tasks: loss and metrics of a network's outputs, and the metric of the best checkpoint.

    predictions = task.predict(outputs, lengths=...)              [T, B, K] -> [B, ...]
    values      = task.loss(outputs, targets, lengths=...)        -> [B]
    metrics     = task.metrics(predictions, targets, lengths=...) -> name: [B]

Values stay per example: the batch may be padded, cut over devices or accumulated in parts, and the
trainer takes the weighted means. `summary` turns the means over all examples into the metrics that
are reported, for those that are no means themselves (the root of a mean squared error).

    classification    cross entropy of class labels, or another loss; accuracy, highest is best
    regression        mean squared error of real targets; MAE and RMSE, lowest RMSE is best

Targets are `[B]` (classes) or `[B, D]` (real numbers); with `per_timestep=True` they have the
timesteps as second axis, `[B, T]` or `[B, T, D]`, and the loss is the mean over the timesteps.
`lengths` `[B]` are the valid timesteps of padded sequences, None where all are: the readout, the
loss and the metrics ignore the others.

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
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from snnjax import data, losses, metrics, readout
from snnjax.ops.rounding import widen
from snnjax.training.errors import ExperimentError
from snnjax.typing import Array

__all__ = ["Classification", "Regression", "Task", "classification", "regression"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """Loss and metrics of an experiment; a subclass defines at least `loss`.

    Attributes:
        readout: `(outputs [T, B, K]) -> predictions [B, K]`; called with `lengths=` for padded
            sequences, as the functions of `snnjax.readout` take it.
        best: Name of the metric that selects the best checkpoint; "loss" is always there.
        lowest: True if the lowest value of that metric is the best one.
    """

    best: ClassVar[str] = "loss"
    lowest: ClassVar[bool] = True

    readout: Callable[..., Array] = readout.rate

    @property
    def evaluation_unit(self) -> int:
        """Number of neighbouring test examples that are evaluated in one batch."""
        return 1

    def predict(self, outputs: Array, *, lengths: Array | None = None) -> Array:
        """Predictions of outputs `[T, B, K]`: the readout."""
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
        """Metrics of each example in evaluation, where neighbours stay together."""
        return self.metrics(predictions, targets, lengths=lengths)

    def summary(self, means: Mapping[str, float]) -> dict[str, float]:
        """Reported metrics of the means over all examples."""
        return dict(means)

    def format(self, name: str, value: float) -> str:
        """Text of a metric for people."""
        del name
        return f"{value:.4g}"

    def score(self, values: Mapping[str, Any]) -> float:
        """Number by which checkpoints are compared, higher is better.

        Args:
            values: Loss and metrics by name.

        Returns:
            Minus infinity if the deciding metric is missing or not a number.
        """
        value = values.get(self.best)
        if value is None or math.isnan(value):
            return -math.inf
        return -float(value) if self.lowest else float(value)

    def check_dataset(self, dataset: data.Dataset) -> None:
        """Raises `ExperimentError` if the targets of a data set do not suit the task."""
        del dataset

    def check_outputs(self, outputs: jax.ShapeDtypeStruct, dataset: data.Dataset) -> None:
        """Raises `ExperimentError` if the network's outputs `[T, B, ...]` do not suit the task."""
        del outputs, dataset


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """Classes of examples, or of timesteps; see `classification`.

    Attributes:
        label_smoothing: Share of the target spread evenly over the classes, in [0, 1).
        clips: Neighbouring test examples that are clips of one recording.
        per_timestep: True if every timestep has a label, `[B, T]`.
        objective: `(outputs, labels) -> [B]`, also with `lengths=` for padded sequences; None is
            the cross entropy of the predictions.
    """

    best: ClassVar[str] = "accuracy"
    lowest: ClassVar[bool] = False

    label_smoothing: float = 0.0
    clips: int = 1
    per_timestep: bool = False
    objective: Callable[..., Array] | None = None

    @property
    def evaluation_unit(self) -> int:
        """The clips of a recording."""
        return self.clips

    def predict(self, outputs: Array, *, lengths: Array | None = None) -> Array:
        """Logits: `[B, K]`, or `[T, B, K]` if every timestep has a label."""
        return outputs if self.per_timestep else super().predict(outputs, lengths=lengths)

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
        return _time_mean(jax.vmap(cross_entropy)(logits, _time_major(targets)), lengths)

    def metrics(
        self, predictions: Array, targets: Array, *, lengths: Array | None = None
    ) -> dict[str, Array]:
        """`accuracy`: 1 or 0, or the share of the timesteps that are right."""
        if not self.per_timestep:
            return {"accuracy": metrics.correct(predictions, targets)}
        correct = jax.vmap(metrics.correct)(predictions, _time_major(targets))
        return {"accuracy": _time_mean(correct, lengths)}

    def evaluation_metrics(
        self, predictions: Array, targets: Array, *, lengths: Array | None = None
    ) -> dict[str, Array]:
        """The same; all `clips` of a recording are right if more than half of them are."""
        values = self.metrics(predictions, targets, lengths=lengths)
        if self.clips == 1:
            return values
        right = values["accuracy"].reshape(-1, self.clips).sum(-1)
        majority = (2 * right > self.clips).astype(jnp.float32)
        return {"accuracy": jnp.repeat(majority, self.clips)}

    def format(self, name: str, value: float) -> str:
        """Percentage of the accuracy."""
        return f"{value:.2%}" if name == "accuracy" else super().format(name, value)

    def check_dataset(self, dataset: data.Dataset) -> None:
        """Refuses real targets, and a test split that is not made of whole recordings."""
        if not dataset.classes:
            raise ExperimentError(
                f"{dataset.name} has real targets, and classification needs integer labels: set "
                "task=training.task.regression, or labels.astype('int32') if they are classes"
            )
        axes = 2 if self.per_timestep else 1
        _check_targets(dataset, axes, "[N, T]" if self.per_timestep else "[N]")
        if len(dataset.test) % self.clips:
            raise ExperimentError(
                f"{dataset.name} has {len(dataset.test)} test examples, which are not recordings "
                f"of {self.clips} clips each: make them by data.clips(split, count=..., "
                "duration=...), and set clips to that count"
            )

    def check_outputs(self, outputs: jax.ShapeDtypeStruct, dataset: data.Dataset) -> None:
        """Refuses outputs other than one per class."""
        if outputs.ndim != 3 or outputs.shape[-1] != dataset.classes:
            raise ExperimentError(
                f"the network must give outputs [T, B, {dataset.classes}], one per class of the "
                f"data set, got {list(outputs.shape)}: its last layer has {dataset.classes} outputs"
            )
        _check_timesteps(self.per_timestep, outputs, dataset)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regression(Task):
    """Real targets of examples, or of timesteps; see `regression`.

    Attributes:
        per_timestep: True if every timestep has a target, `[B, T, D]`.
        objective: `(outputs, targets) -> [B]`, also with `lengths=` for padded sequences; None is
            the mean squared error of the predictions.
    """

    best: ClassVar[str] = "rmse"
    lowest: ClassVar[bool] = True

    per_timestep: bool = False
    objective: Callable[..., Array] | None = None

    def predict(self, outputs: Array, *, lengths: Array | None = None) -> Array:
        """Predictions: `[B, D]`, or `[T, B, D]` if every timestep has a target."""
        return outputs if self.per_timestep else super().predict(outputs, lengths=lengths)

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
        """`mae`, the mean absolute error, and `rmse`, squared until `summary` takes the root."""
        error = functools.partial(
            self._mean, predictions=predictions, targets=targets, lengths=lengths
        )
        return {"mae": error(jnp.abs), "rmse": error(jnp.square)}

    def summary(self, means: Mapping[str, float]) -> dict[str, float]:
        """Root of the mean squared error over all examples."""
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
        """Refuses outputs other than one per target."""
        size = dataset.train.labels.shape[-1]
        if outputs.ndim != 3 or outputs.shape[-1] != size:
            raise ExperimentError(
                f"the network must give outputs [T, B, {size}], one per target of the data set, "
                f"got {list(outputs.shape)}: its last layer has {size} outputs"
            )
        _check_timesteps(self.per_timestep, outputs, dataset)

    def _mean(
        self,
        function: Callable[[Array], Array],
        predictions: Array,
        targets: Array,
        lengths: Array | None,
    ) -> Array:
        """Mean over D, and over time if there is a target per timestep, `[B]`."""
        predictions = widen(predictions)
        if not self.per_timestep:
            return jnp.mean(function(predictions - targets), axis=-1)
        values = jnp.mean(function(predictions - _time_major(targets)), axis=-1)
        return _time_mean(values, lengths)


def classification(
    experiment: Any,
    *,
    loss: Callable[..., Array] | None = None,
    per_timestep: bool = False,
) -> Task:
    """Task of class labels: cross entropy and accuracy.

        L = CE(readout(outputs), label),      accuracy = share of argmax(readout(outputs)) = label

    Args:
        experiment: Its `readout`, `label_smoothing` and `clips` are used.
        loss: `(experiment, outputs [T, B, K], labels) -> [B]` in place of the cross entropy; for
            padded sequences it is called with `lengths=` as well.
        per_timestep: True if every timestep has a label, `[B, T]`; the readout is not used then.

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
        experiment: Its `readout` is used.
        loss: `(experiment, outputs [T, B, D], targets) -> [B]` in place of the squared error; for
            padded sequences it is called with `lengths=` as well.
        per_timestep: True if every timestep has a target, `[B, T, D]`; the readout is not used
            then.

    Raises:
        ExperimentError: The experiment sets fields that belong to classification.
    """
    for name, neutral in (("label_smoothing", 0.0), ("clips", 1)):
        if getattr(experiment, name) != neutral:
            raise ExperimentError(
                f"{name} belongs to classification, and {experiment.name} is a regression: leave "
                f"{name} at {neutral}"
            )
    return Regression(
        readout=experiment.readout,
        per_timestep=per_timestep,
        objective=None if loss is None else _BoundLoss(loss, experiment),
    )


@dataclasses.dataclass(frozen=True)
class _BoundLoss:
    """A loss of an experiment; unlike `functools.partial`, two of equal parts are equal."""

    loss: Callable[..., Array]
    experiment: Any

    def __call__(self, *arguments: Any, **options: Any) -> Array:
        return self.loss(self.experiment, *arguments, **options)


def _with_lengths(
    function: Callable[..., Array], outputs: Array, targets: Array, lengths: Array | None
) -> Array:
    if lengths is None:
        return function(outputs, targets)
    return function(outputs, targets, lengths=lengths)


def _time_major(targets: Array) -> Array:
    """`[B, T, ...]` of a batch to `[T, B, ...]`."""
    return jnp.swapaxes(targets, 0, 1)


def _time_mean(values: Array, lengths: Array | None) -> Array:
    """Mean over the valid timesteps of `[T, B]`."""
    return readout.rate(values[..., None], lengths=lengths)[..., 0]


def _check_targets(dataset: data.Dataset, axes: int, letters: str) -> None:
    shape = dataset.train.labels.shape
    if len(shape) != axes:
        raise ExperimentError(
            f"{dataset.name} has targets of shape {list(shape)} and the task needs {letters}: "
            "per_timestep=True is for a target at every timestep"
        )


def _check_timesteps(
    per_timestep: bool, outputs: jax.ShapeDtypeStruct, dataset: data.Dataset
) -> None:
    if per_timestep and outputs.shape[0] != dataset.train.labels.shape[1]:
        raise ExperimentError(
            f"the network gives {outputs.shape[0]} timesteps and {dataset.name} has targets of "
            f"{dataset.train.labels.shape[1]}: encode as many timesteps as there are targets"
        )
