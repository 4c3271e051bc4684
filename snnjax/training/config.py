"""Plain fields of an experiment: written to config.json, overridden on the command line, checked.

Plain are int, float, str, bool, `memory.Strategy`, tuples of one of the first four, and each of
these or None. A strategy is a value everywhere but here: config.json and the command line have its
text.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from snnjax.memory import Strategy, parse_strategy
from snnjax.nn import parse_precision
from snnjax.training.errors import ExperimentError
from snnjax.training.experiment import Experiment

__all__ = [
    "FIXED",
    "check",
    "check_types",
    "is_strategy",
    "override",
    "plain_fields",
    "plain_values",
]

FIXED = ("name", "seed", "batch")
"""Fields that a resumed run cannot change: they decide which examples the next steps see."""

_SCALARS = (int, float, str, bool)
_AT_LEAST = {
    "timesteps": 1, "batch": 1, "accumulate": 1, "norm_groups": 1, "eval_batch": 1, "clips": 1,
    "epochs": 1, "warmup_epochs": 0, "seed": 0, "weight_decay": 0, "mixup": 0, "mixup_epochs": 0,
    "log_every": 1, "eval_every": 1, "checkpoint_every": 1, "keep": 1, "patience": 1, "assign": 1,
}  # fmt: skip
_CURES = {
    "timesteps": "a network needs at least one timestep; 4 is usual",
    "batch": "128 is usual",
    "assign": "neurons get their classes from training examples",
    "keep": "the newest checkpoint is what a run resumes from",
}


def plain_fields(experiment: Experiment) -> dict[str, Any]:
    """The types of the plain fields, by name, in the order of the class."""
    hints = _hints(experiment)
    names = [field.name for field in dataclasses.fields(experiment)]
    names = [name for name in names if name not in experiment.UNUSED]
    return {name: hints[name] for name in names if _is_plain(hints[name])}


def plain_values(experiment: Experiment) -> dict[str, Any]:
    """The values of the plain fields, by name, as they go into config.json.

    Raises:
        ExperimentError: A memory strategy has no text that another process could read.
    """
    values = {name: getattr(experiment, name) for name in plain_fields(experiment)}
    return {name: _written(name, value) for name, value in values.items()}


def override(experiment: Experiment, values: Mapping[str, Any]) -> Experiment:
    """The experiment with some plain fields changed.

    Args:
        experiment: What to change.
        values: By the name of the field, as `plain_values` gives them: a memory strategy may be
            its text, a tuple a list. A text that names a scan of the user's own imports its module.

    Raises:
        ExperimentError: A field is unknown, or is no plain field; a strategy cannot be read.
    """
    known = plain_fields(experiment)
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ExperimentError(
            f"{experiment.name} has no field {', '.join(unknown)}; it has {', '.join(known)}"
        )
    changed = {name: _read(name, value, known[name]) for name, value in values.items()}
    return dataclasses.replace(experiment, **changed)


def is_strategy(hint: Any) -> bool:
    """True if a plain field of this type holds a memory strategy."""
    return _without_none(hint) is Strategy


def check_types(experiment: Experiment) -> None:
    """Checks that every plain field is of its type, and finite.

    Raises:
        ExperimentError: It says which is not, and what it must be.
    """
    for name, hint in plain_fields(experiment).items():
        value = getattr(experiment, name)
        if not _fits(value, hint):
            reads = ": memory.parse_strategy reads a text" if is_strategy(hint) else ""
            raise ExperimentError(
                f"{name} must be {_spell(hint)}, got {value!r} ({type(value).__name__}){reads}"
            )
        numbers = value if isinstance(value, tuple) else (value,)
        if any(isinstance(n, float) and not math.isfinite(n) for n in numbers):
            raise ExperimentError(f"{name} must be finite, got {value}")


def check(experiment: Experiment) -> None:
    """Checks every plain field for its type and its range, before any work is done.

    Raises:
        ExperimentError: It says which field, what it is and what it may be.
    """
    check_types(experiment)
    for name, least in _AT_LEAST.items():
        value = getattr(experiment, name, None)
        if value is not None and value < least:
            cure = f": {_CURES[name]}" if name in _CURES else ""
            raise ExperimentError(f"{name} must be at least {least}, got {value}{cure}")
    for name in ("learning_rate", "clip_norm"):
        value = getattr(experiment, name)
        if value is not None and value <= 0:
            raise ExperimentError(f"{name} must be above 0, got {value}")
    if experiment.seed >= 2**32:
        raise ExperimentError(f"seed must be below 2**32, got {experiment.seed}")
    if not 0 <= experiment.label_smoothing < 1:
        raise ExperimentError(
            f"label_smoothing must lie in [0, 1), got {experiment.label_smoothing}: 0.1 is usual"
        )
    if not 0 <= experiment.mixup_probability <= 1:
        raise ExperimentError(
            f"mixup_probability must lie in [0, 1], got {experiment.mixup_probability}"
        )
    parts = experiment.accumulate * experiment.norm_groups
    if experiment.batch % parts:
        raise ExperimentError(
            f"a batch of {experiment.batch} cannot be cut into {experiment.accumulate} parts "
            f"(accumulate) of {experiment.norm_groups} groups (norm_groups): choose a multiple of "
            f"{parts}"
        )
    if experiment.not_finite not in ("stop", "skip", "rollback"):
        raise ExperimentError(
            f'not_finite must be "stop", "skip" or "rollback", got {experiment.not_finite!r}'
        )
    try:
        parse_precision(experiment.precision)
    except ValueError as error:
        raise ExperimentError(f"precision: {error}") from None
    if not experiment.name or set(experiment.name) & set("/\\\0"):
        raise ExperimentError(
            f"name must be usable as the name of a folder, got {experiment.name!r}"
        )


def _written(name: str, value: Any) -> Any:
    if not isinstance(value, Strategy):
        return value
    text = str(value)
    try:
        readable = parse_strategy(text) == value
    except ValueError:
        readable = False
    if not readable:
        raise ExperimentError(
            f"{name}: {text} has a scan that a resumed run could not look up: name it in the "
            "experiment's file by memory.register_scan(name, scan), or import it from a module"
        )
    return text


def _read(name: str, value: Any, hint: Any) -> Any:
    if isinstance(value, str) and is_strategy(hint):
        try:
            return parse_strategy(value)
        except ValueError as error:
            raise ExperimentError(f"{name}: {error}") from None
    return tuple(value) if isinstance(value, list) else value


def _hints(experiment: Experiment) -> dict[str, Any]:
    try:
        return typing.get_type_hints(type(experiment))
    except Exception as error:
        raise ExperimentError(
            f"the fields of {type(experiment).__name__} have types that cannot be resolved: {error}"
        ) from error


def _is_plain(hint: Any) -> bool:
    hint = _without_none(hint)
    if typing.get_origin(hint) is tuple:
        inner = set(typing.get_args(hint)) - {...}
        return len(inner) == 1 and inner <= set(_SCALARS)
    return hint in (*_SCALARS, Strategy)


def _without_none(hint: Any) -> Any:
    """`X` of `X | None`; any other hint as it is."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    rest = [part for part in typing.get_args(hint) if part is not type(None)]
    return rest[0] if len(rest) == 1 else hint


def _fits(value: Any, hint: Any) -> bool:
    inner = _without_none(hint)
    if value is None:
        return inner is not hint
    if typing.get_origin(inner) is tuple:
        parts = typing.get_args(inner)
        kind = parts[0]
        size = ... in parts or (isinstance(value, tuple) and len(value) == len(parts))
        return isinstance(value, tuple) and size and all(_fits(item, kind) for item in value)
    if isinstance(value, bool):
        return inner is bool
    return isinstance(value, (int, float) if inner is float else inner)


def _spell(hint: Any) -> str:
    """A type as a user writes it: `int or None`."""
    inner = _without_none(hint)
    name = inner.__name__ if inner in (*_SCALARS, Strategy) else str(inner)
    return name if inner is hint else f"{name} or None"
