"""Configuration of experiments: experiment files, plain fields, their checks, and data sets.

A plain field can be saved in config.json and overridden on the command line. Its type is int,
float, str, bool, a tuple of one of these, or `memory.Strategy`, optionally with None. A strategy is
written as text there, and is a value everywhere else.

Loading an experiment file executes it: load only files that you would run.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from snnjax import data
from snnjax.memory import Strategy, parse_strategy
from snnjax.nn.mixed_precision import parse_precision
from snnjax.training._learners import learner
from snnjax.training.errors import ExperimentError, user_code
from snnjax.training.experiment import BaseExperiment, Experiment, check_learning

__all__ = [
    "FIXED",
    "check",
    "check_learning",
    "check_types",
    "gradient_experiment",
    "is_strategy",
    "load_dataset",
    "load_experiment",
    "override",
    "plain_fields",
    "plain_values",
]

FIXED = ("name", "seed", "batch", "init_from", "freeze", "head")
"""Fields that a resumed run cannot change: they determine the next examples and what learns."""

_FILE_FORM = (
    "an experiment is a Python file with a function config() that returns a training.Experiment"
)

Kind = typing.TypeVar("Kind", bound=BaseExperiment)

# JSON and the command line express these types without loss.
_SCALARS = (int, float, str, bool)
# Bounds stand in a table, so that every message has one form; fields that a kind of experiment
# lacks are passed over.
_AT_LEAST = {
    "timesteps": 1, "batch": 1, "accumulate": 1, "norm_groups": 1, "eval_batch": 1, "clips": 1,
    "epochs": 1, "warmup_epochs": 0, "seed": 0, "weight_decay": 0, "mixup": 0, "mixup_epochs": 0,
    "log_every": 1, "eval_every": 1, "checkpoint_every": 1, "keep": 1, "patience": 1, "assign": 1,
    "buckets": 1,
}  # fmt: skip
_ABOVE_ZERO = ("learning_rate", "clip_norm")
_CURES = {
    "timesteps": "a network needs at least one timestep; 4 is usual",
    "batch": "128 is usual",
    "assign": "neurons get their classes from training examples",
    "buckets": "1 pads all sequences to the longest",
    "keep": "the newest checkpoint is what a run resumes from",
}


def load_experiment(path: str | Path) -> BaseExperiment:
    """Runs an experiment file and calls its `config()`.

    Raises:
        ExperimentError: The file does not exist, is not an experiment, or failed.
    """
    path = Path(path)
    if not path.is_file():
        fault = "a directory" if path.is_dir() else "not there"
        raise ExperimentError(f"{path} is {fault}: {_FILE_FORM}")
    # The import system chooses the loader by the suffix and finds none for another.
    if path.suffix != ".py":
        raise ExperimentError(f"{path} does not end in .py: {_FILE_FORM}")
    module = _run_file(path)
    if not callable(config := getattr(module, "config", None)):
        raise ExperimentError(f"{path} has no function config(): {_FILE_FORM}")
    try:
        experiment = config()
    except Exception as error:
        raise ExperimentError(f"{path}: config() failed: {_describe(error)}") from error
    if not isinstance(experiment, BaseExperiment):
        raise ExperimentError(
            f"{path}: config() returned {type(experiment).__name__}, not a training.Experiment"
        )
    return experiment


def gradient_experiment(experiment: BaseExperiment) -> Experiment:
    """Narrows the type of an experiment that learns by gradients.

    Raises:
        ExperimentError: The experiment learns in another way.
    """
    check_learning(experiment, "gradients")
    return typing.cast(Experiment, experiment)


def load_dataset(experiment: BaseExperiment) -> data.Dataset:
    """Loads the data of an experiment and checks them against its task.

    Raises:
        ExperimentError: `dataset(experiment)` failed or did not return a non-empty `data.Dataset`,
            or its targets do not suit the task.
        snnjax.data.MissingDataError: The data were not found.
    """
    try:
        with user_code("dataset(experiment)"):
            dataset = experiment.dataset(experiment)
    except ExperimentError as error:
        # Their messages already name the cure, and the command line recognises them by their class.
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
    # Here and not in the step: wrong targets are named before anything is compiled.
    learner(experiment).task(experiment).check_dataset(dataset)
    return dataset


def plain_fields(experiment: BaseExperiment) -> dict[str, Any]:
    """Types of the plain fields by name, in the order of the class."""
    # Resolved hints: under deferred annotations `field.type` is a text.
    hints = _hints(experiment)
    names = [field.name for field in dataclasses.fields(experiment)]
    return {name: hints[name] for name in names if _is_plain(hints[name])}


def plain_values(experiment: BaseExperiment) -> dict[str, Any]:
    """Values of the plain fields by name, in the form of config.json.

    Raises:
        ExperimentError: A memory strategy has no text form that another process can read.
    """
    values = {name: getattr(experiment, name) for name in plain_fields(experiment)}
    return {name: _to_plain(name, value) for name, value in values.items()}


def override(experiment: Kind, values: Mapping[str, Any]) -> Kind:
    """Replaces plain fields of an experiment.

    Args:
        experiment: The experiment.
        values: New values by field name, in the form of `plain_values`: text for a memory strategy,
            a list for a tuple. The text of a user's own scan imports its module.

    Raises:
        ExperimentError: A field is unknown or not of a plain type, or a strategy cannot be read.
    """
    known = plain_fields(experiment)
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ExperimentError(
            f"{experiment.name} has no field {', '.join(unknown)}; it has {', '.join(known)}"
        )
    # Unknown names are refused above: `replace` would raise a TypeError without a cure.
    changed = {name: _from_plain(name, value, known[name]) for name, value in values.items()}
    return dataclasses.replace(experiment, **changed)


def is_strategy(hint: Any) -> bool:
    """True if a plain field of this type holds a memory strategy."""
    return _without_none(hint) is Strategy


def check_types(experiment: BaseExperiment) -> None:
    """Checks the type and the finiteness of every plain field.

    Raises:
        ExperimentError: The message names the field and its type.
    """
    for name, hint in plain_fields(experiment).items():
        value = getattr(experiment, name)
        if not _fits(value, hint):
            reads = ": memory.parse_strategy reads a text" if is_strategy(hint) else ""
            raise ExperimentError(
                f"{name} must be {_type_name(hint)}, got {value!r} ({type(value).__name__}){reads}"
            )
        # A NaN passes every range check, since each comparison with it is False.
        numbers = value if isinstance(value, tuple) else (value,)
        if any(isinstance(n, float) and not math.isfinite(n) for n in numbers):
            raise ExperimentError(f"{name} must be finite, got {value}")


def check(experiment: BaseExperiment) -> None:
    """Checks the type and the range of every plain field.

    Raises:
        ExperimentError: The message names the field, its value and its range.
    """
    check_types(experiment)
    for name, least in _AT_LEAST.items():
        value = getattr(experiment, name, None)
        if value is not None and value < least:
            cure = f": {_CURES[name]}" if name in _CURES else ""
            raise ExperimentError(f"{name} must be at least {least}, got {value}{cure}")
    for name in _ABOVE_ZERO:
        value = getattr(experiment, name, None)
        if value is not None and value <= 0:
            raise ExperimentError(f"{name} must be above 0, got {value}")
    # Without 64-bit mode a key takes 32 bits of its seed.
    if experiment.seed >= 2**32:
        raise ExperimentError(f"seed must be below 2**32, got {experiment.seed}")
    smoothing = getattr(experiment, "label_smoothing", 0.0)
    if not 0 <= smoothing < 1:
        raise ExperimentError(f"label_smoothing must lie in [0, 1), got {smoothing}: 0.1 is usual")
    probability = getattr(experiment, "mixup_probability", 1.0)
    if not 0 <= probability <= 1:
        raise ExperimentError(f"mixup_probability must lie in [0, 1], got {probability}")
    parts, groups = (getattr(experiment, name, 1) for name in ("accumulate", "norm_groups"))
    # Parts of different sizes would be programs of different shapes.
    if experiment.batch % (parts * groups):
        raise ExperimentError(
            f"a batch of {experiment.batch} cannot be cut into {parts} parts (accumulate) of "
            f"{groups} groups (norm_groups): choose a multiple of {parts * groups}"
        )
    head = getattr(experiment, "head", None)
    if head and not (getattr(experiment, "init_from", None) or getattr(experiment, "freeze", ())):
        raise ExperimentError(
            f"head {head!r} has no effect without weights to load: add init_from, a run directory, "
            "or leave head out"
        )
    if experiment.not_finite not in ("stop", "skip", "rollback"):
        raise ExperimentError(
            f'not_finite must be "stop", "skip" or "rollback", got {experiment.not_finite!r}'
        )
    try:
        parse_precision(getattr(experiment, "precision", ""))
    except ValueError as error:
        raise ExperimentError(f"precision: {error}") from None
    # The name becomes the folder `runs/NAME-SEED`.
    if not experiment.name or set(experiment.name) & set("/\\\0"):
        raise ExperimentError(
            f"name must be usable as the name of a folder, got {experiment.name!r}"
        )


def _to_plain(name: str, value: Any) -> Any:
    if not isinstance(value, Strategy):
        return value
    text = str(value)
    try:
        # Read back now: at the next resume it would be too late.
        readable = parse_strategy(text) == value
    except ValueError:
        readable = False
    if not readable:
        raise ExperimentError(
            f"{name}: {text} has a scan that a resumed run could not look up: name it in the "
            "experiment's file by memory.register_scan(name, scan), or import it from a module"
        )
    return text


def _from_plain(name: str, value: Any, hint: Any) -> Any:
    if isinstance(value, str) and is_strategy(hint):
        try:
            return parse_strategy(value)
        except ValueError as error:
            raise ExperimentError(f"{name}: {error}") from None
    return tuple(value) if isinstance(value, list) else value


def _hints(experiment: BaseExperiment) -> dict[str, Any]:
    try:
        # Evaluates annotations of the user's file, which may raise anything.
        return typing.get_type_hints(type(experiment))
    except Exception as error:
        raise ExperimentError(
            f"the fields of {type(experiment).__name__} have types that cannot be resolved: {error}"
        ) from error


def _is_plain(hint: Any) -> bool:
    hint = _without_none(hint)
    if typing.get_origin(hint) is tuple:
        # tuple[int, ...] has the ellipsis as an argument.
        inner = set(typing.get_args(hint)) - {...}
        return len(inner) == 1 and inner <= set(_SCALARS)
    return hint in (*_SCALARS, Strategy)


def _without_none(hint: Any) -> Any:
    """`X` of `X | None`; any other hint unchanged."""
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
    # In Python True is an int, in a field of numbers it is a mistake.
    if isinstance(value, bool):
        return inner is bool
    # An int is a valid float: `learning_rate=1`.
    return isinstance(value, (int, float) if inner is float else inner)


def _type_name(hint: Any) -> str:
    """Name of a type in messages, such as `int or None`."""
    inner = _without_none(hint)
    name = inner.__name__ if inner in (*_SCALARS, Strategy) else str(inner)
    return name if inner is hint else f"{name} or None"


def _run_file(path: Path) -> ModuleType:
    # Dataclasses look their module up by name to resolve their types.
    name = f"snnjax_experiment_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "the suffix is .py"
    module = importlib.util.module_from_spec(spec)
    # Before execution: `dataclasses` reads the module while the file still runs.
    sys.modules[name] = module
    # A folder of experiments stays without __pycache__.
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise ExperimentError(
            f"{path} imports {error.name}, which is not installed: an experiment file imports "
            "installed packages only, since it is copied into the run directory"
        ) from error
    except SyntaxError as error:
        raise ExperimentError(f"{path}, line {error.lineno}: {error.msg}: {_FILE_FORM}") from error
    except Exception as error:
        raise ExperimentError(f"{path} failed: {_describe(error)}") from error
    finally:
        sys.dont_write_bytecode = writes
    return module


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
