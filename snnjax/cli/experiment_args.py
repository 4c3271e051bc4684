"""The experiment a command is given: a file or the embedded one, with fields overridden.

snnjax COMMAND [EXPERIMENT.py] [--field value ...] [--option value ...]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from snnjax import default_experiment, memory, training
from snnjax.cli.failures import Failure
from snnjax.cli.options import Option, attribute_help, parse

__all__ = ["experiment_path", "parse_fields", "refuse_stray", "with_fields", "with_gradients"]


def experiment_path(arguments: list[str]) -> tuple[Path | None, list[str]]:
    """The file given in front of the options, if any, and the options."""
    given = arguments[0] if arguments and not arguments[0].startswith("-") else None
    return (Path(given), arguments[1:]) if given else (None, arguments)


def parse_fields(
    command: str,
    told: str,
    experiment: training.Experiment,
    options: Sequence[Option],
    arguments: list[str],
    *,
    leave_out: Sequence[str] = (),
) -> tuple[Any, dict[str, Any]]:
    """The command's own options, and the experiment's fields that differ from its file.

    Args:
        command: Such as "train".
        told: What it does, for its help.
        experiment: Its plain fields become options.
        options: The command's own.
        arguments: All but the file.
        leave_out: Fields that are no options, since the command itself sets them.

    Raises:
        Failure: An argument is wrong, or a field has the name of an option.
        training.ExperimentError: A field of the file is of another type than it says.
    """
    training.check_types(experiment)
    texts, kinds = attribute_help(type(experiment)), training.plain_fields(experiment)
    kinds = {name: kind for name, kind in kinds.items() if name not in leave_out}
    taken = sorted({option.name for option in options} & set(kinds))
    if taken:
        raise Failure(
            f"the field {taken[0]} of {experiment.name} is an option of its own: rename it"
        )
    refuse_stray(command, arguments)
    before = {name: getattr(experiment, name) for name in kinds}
    fields = []
    for name, kind in kinds.items():
        metavar = None
        if training.is_strategy(kind):
            # A value in a program, a text on the command line; `override` reads it.
            kind, metavar, before[name] = str, "TEXT", str(before[name] or memory.Strategy())
        fields.append(Option(name, kind, before[name], texts.get(name, ""), metavar=metavar))
    told = f"{told} The options below are fields of the experiment {experiment.name}, then its own."
    parsed = parse(f"snnjax {command} [EXPERIMENT.py]", told, [*fields, *options], arguments)
    values = {name: getattr(parsed, name) for name in kinds}
    return parsed, {k: v for k, v in values.items() if v != before[k]}


def refuse_stray(command: str, arguments: Sequence[str]) -> None:
    """Raises a `Failure` where an experiment's file stands behind the options."""
    if stray := [a for a in arguments if a.endswith(".py")]:
        raise Failure(f"the experiment comes first: snnjax {command} {stray[0]} --field value ...")


def with_gradients(path: Path | None) -> training.Experiment:
    """The experiment of a file, or the embedded one, for a command about gradients.

    Raises:
        Failure: It learns without them.
    """
    experiment = training.load_experiment(path or Path(default_experiment.__file__))
    if isinstance(experiment, training.Unsupervised):
        raise Failure(f"{path} learns by plasticity, without gradients: snnjax train is for it")
    return experiment


def with_fields(
    command: str, told: str, options: Sequence[Option], arguments: list[str]
) -> tuple[Any, training.Experiment]:
    """Options and experiment of a command about gradients, that writes nothing down; checked."""
    path, rest = experiment_path(arguments)
    experiment = with_gradients(path)
    parsed, changed = parse_fields(command, told, experiment, options, rest)
    experiment = training.override(experiment, changed)
    training.check(experiment)
    return parsed, experiment
