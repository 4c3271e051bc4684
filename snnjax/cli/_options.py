"""Options of a command, declared as a list and parsed by tyro; an error is one message."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Collection, Sequence
from typing import Annotated, Any, NamedTuple

from snnjax.cli._failures import Failure, HelpPrinted

__all__ = ["COMMON", "REQUIRED", "Option", "attribute_help", "parse", "peek"]

REQUIRED: Any = dataclasses.MISSING
"""Default of a required argument."""


class Option(NamedTuple):
    """Option or positional argument.

    Attributes:
        name: Python name; `learning_rate` is `--learning-rate`.
        type: Type of the parsed value.
        default: Default value.
        help: One line of help.
        positional: True for an argument without a name.
        metavar: Placeholder of the value in the help; None derives it from the type.
    """

    name: str
    type: Any
    default: Any
    help: str
    positional: bool = False
    metavar: str | None = None


COMMON = [
    Option("json", bool, False, "End stdout with one JSON object, for machines."),
    Option("debug", bool, False, "Show the traceback of an error."),
]


def parse(
    prog: str,
    description: str,
    options: Sequence[Option],
    arguments: Sequence[str],
    *,
    repeatable: Collection[str] = (),
) -> Any:
    """Parses arguments into an object with one attribute per option.

    Args:
        prog: Name of the command, such as "snnjax train".
        description: Description of the command, for its help.
        options: Options of the command, besides `COMMON`.
        arguments: Arguments of the command line.
        repeatable: Names of options that may be given again, of which the last value counts.

    Raises:
        Failure: An option is unknown, or has a wrong type; the message suggests the nearest one.
            An option is given twice, or is an empty text.
    """
    import tyro

    _check_unique(arguments, repeatable)
    fields = []
    for option in (*options, *COMMON):
        marks = [
            tyro.conf.arg(help=option.help, metavar=option.metavar),
            *[tyro.conf.Positional] * option.positional,
        ]
        kind = Annotated[(option.type, *marks)]  # type: ignore[valid-type]
        default = dataclasses.field(default=option.default)
        fields.append((option.name, kind, default))
    # Dataclasses want required fields first.
    fields.sort(key=lambda field: field[2].default is not REQUIRED)
    form = dataclasses.make_dataclass("Options", fields)
    output = io.StringIO()
    try:
        # tyro prints a framed message and exits; here an error is one line, and JSON under --json.
        with contextlib.redirect_stderr(output):
            parsed = tyro.cli(
                form,
                prog=prog,
                description=description,
                args=list(arguments),
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as end:
        if not end.code:  # --help
            raise HelpPrinted(0) from None
        raise Failure(_plain_text(output.getvalue())) from None
    for option in options:
        # The path "" would be the present folder.
        if getattr(parsed, option.name) == "" != option.default:
            name = option.name if option.positional else f"--{option.name.replace('_', '-')}"
            raise Failure(f"{name} is empty, such as an unset variable: give a value")
    return parsed


def _check_unique(arguments: Sequence[str], repeatable: Collection[str] = ()) -> None:
    """Raises `Failure` if an option is given twice: one of its values would be lost."""
    names = [a[2:].partition("=")[0].replace("-", "_") for a in arguments if a[:2] == "--"]
    if twice := sorted({n for n in names if names.count(n) > 1} - set(repeatable)):
        raise Failure(f"--{twice[0].replace('_', '-')} is given twice: leave one out")


def peek(arguments: Sequence[str], name: str) -> str | None:
    """Reads the value of an option before the others can be parsed; None without the option."""
    _check_unique([a for a in arguments if a.partition("=")[0] == name])
    for i, argument in enumerate(arguments):
        if argument == name:
            if i + 1 == len(arguments) or arguments[i + 1].startswith("--"):
                raise Failure(f"{name} needs a value")
            return arguments[i + 1]
        if argument.startswith(name + "="):
            return argument.removeprefix(name + "=")
    return None


def attribute_help(kind: type) -> dict[str, str]:
    """Help of each attribute on one line, from the docstrings of a class and its bases."""
    texts: dict[str, str] = {}
    # Bases first, so that a subclass may document an inherited field anew.
    for base in reversed(kind.__mro__):
        _, _, section = (base.__dict__.get("__doc__") or "").partition("Attributes:\n")
        for match in re.finditer(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", section, re.MULTILINE):
            texts[match[1]] = " ".join(match[2].split())
    return texts


def _plain_text(box: str) -> str:
    """Text of a framed message of tyro, on one line."""
    parts, part = [], []
    # tyro draws a box around its messages, one section per error.
    for line in box.splitlines():
        # In ASCII where stdout has no box characters.
        inner = line.strip().strip("│|").strip()
        if line.lstrip().startswith(("╭", "+-")) and part == []:
            continue
        if set(inner) <= set("─╰╯-+") or inner.startswith("╰"):
            parts.append(" ".join(part))
            part = []
        else:
            part.append(inner)
    parts.append(" ".join(part))
    return "; ".join(part for part in parts if part)
