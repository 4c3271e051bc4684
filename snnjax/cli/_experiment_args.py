"""Experiment of a command: a file or the embedded experiment, with overridden fields.

snnjax COMMAND [EXPERIMENT.py] [--field value ...] [--option value ...]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from snnjax import default_experiment, memory, training
from snnjax.cli._failures import Failure
from snnjax.cli._options import Option, attribute_help, parse

__all__ = [
    "check_order",
    "experiment_path",
    "load_gradient_experiment",
    "parse_experiment",
    "parse_fields",
]


def experiment_path(arguments: list[str]) -> tuple[Path | None, list[str]]:
    """Splits off the file in front of the options; None without a file."""
    path = arguments[0] if arguments and not arguments[0].startswith("-") else None
    return (Path(path), arguments[1:]) if path else (None, arguments)


def parse_fields(
    command: str,
    description: str,
    experiment: Any,
    options: Sequence[Option],
    arguments: list[str],
    *,
    leave_out: Sequence[str] = (),
) -> tuple[Any, dict[str, Any]]:
    """Parses the options of a command and the fields that differ from the experiment's file.

    Args:
        command: Name of the command, such as "train".
        description: Description of the command, for its help.
        experiment: Experiment, whose plain fields become options.
        options: Options of the command itself.
        arguments: Arguments after the file.
        leave_out: Fields set by the command, which are not options.

    Raises:
        Failure: An argument is wrong, or a field has the name of an option.
        training.errors.ExperimentError: A field of the file is not of its declared type.
    """
    # Before the options are made of them: a wrong default would fail inside tyro.
    training.config.check_types(experiment)
    texts, kinds = attribute_help(type(experiment)), training.config.plain_fields(experiment)
    kinds = {name: kind for name, kind in kinds.items() if name not in leave_out}
    # A field would silently take the value of the command's option of the same name.
    taken = sorted({option.name for option in options} & set(kinds))
    if taken:
        raise Failure(
            f"the field {taken[0]} of {experiment.name} is an option of its own: rename it"
        )
    check_order(command, arguments)
    before = {name: getattr(experiment, name) for name in kinds}
    fields = []
    for name, kind in kinds.items():
        metavar = None
        if training.config.is_strategy(kind):
            # A value in a program, a text on the command line; `override` reads it.
            kind, metavar, before[name] = str, "TEXT", str(before[name] or memory.Strategy())
        fields.append(Option(name, kind, before[name], texts.get(name, ""), metavar=metavar))
    description += (
        f" The options below are fields of the experiment {experiment.name}, then of the command."
    )
    prog = f"snnjax {command} [EXPERIMENT.py]"
    # A script may append fields to those of a common text; --out and --resume name one run each.
    parsed = parse(prog, description, [*fields, *options], arguments, repeatable=kinds)
    values = {name: getattr(parsed, name) for name in kinds}
    # Only the changes: a resumed run keeps every other field of its config.json.
    return parsed, {k: v for k, v in values.items() if v != before[k]}


def check_order(command: str, arguments: Sequence[str]) -> None:
    """Raises `Failure` if an experiment's file comes after the options."""
    if stray := [a for a in arguments if a.endswith(".py")]:
        raise Failure(f"the experiment comes first: snnjax {command} {stray[0]} --field value ...")


def load_gradient_experiment(path: Path | None) -> training.Experiment:
    """Loads the experiment of a file, or the embedded one, for a command about gradients.

    Raises:
        training.errors.ExperimentError: The experiment learns in another way.
    """
    experiment = training.config.load_experiment(path or Path(default_experiment.__file__))
    return training.config.gradient_experiment(experiment)


def parse_experiment(
    command: str, description: str, options: Sequence[Option], arguments: list[str]
) -> tuple[Any, training.Experiment]:
    """Parses the options and loads the checked experiment of a command about gradients."""
    path, rest = experiment_path(arguments)
    experiment = load_gradient_experiment(path)
    parsed, changed = parse_fields(command, description, experiment, options, rest)
    experiment = training.config.override(experiment, changed)
    # After the overrides: only their result has to be in range.
    training.config.check(experiment)
    return parsed, experiment
