"""The command line: `snnjax COMMAND ...`.

    snnjax train [EXPERIMENT.py] [--field value ...]     train; without a file the embedded digits
    snnjax eval RUN                                      metrics of a run on the test examples
    snnjax show RUN                                      pictures of a run
    snnjax redundancy RUN [--against OTHER_RUN]          wasted activity of a run, or of two
    snnjax plan [EXPERIMENT.py] --budget 8GiB            memory strategy for a budget
    snnjax memory [EXPERIMENT.py] --depths 4,8,16,32     bytes against depth and timesteps
    snnjax check [EXPERIMENT.py]                         equal gradients under every strategy
    snnjax cost [EXPERIMENT.py | RUN]                    operations and energy, or of every model
    snnjax fspinn search EXPERIMENT.py --grid "..."      search of STDP networks within budgets
    snnjax convert RUN --timesteps 8,16,32               spiking network of a trained run
    snnjax export RUN [--streaming]                      artifact that runs without this code
    snnjax info                                          versions, devices, memory

With `--json` on any command the last line of stdout is one JSON object, and text for people goes to
stderr; an error is the object `{"command", "error", "exit_code"}`.

Exit codes: 0 done; 1 negative result: the loss is not finite (the state was saved), nothing fits
the budget, or a strategy failed its check; 2 bad input, with one message that names the cure; 70 a
defect of this program; 75 another process of the run was lost (resume all of them); 129, 130 and
143 stopped by SIGHUP, SIGINT and SIGTERM (the state was saved if training had begun). Only
`--debug` shows tracebacks. Output whose reader is gone, as in `snnjax train | head -1`, is
discarded; output that cannot be written gives 2 in the end.

A command is a module of this package with a function `command(arguments, screen)` that returns the
fields of its JSON object and its exit code.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from snnjax.cli._failures import Failure, HelpPrinted, Interrupted, describe
from snnjax.cli._output import Screen, silence_libraries
from snnjax.cli._signals import listening

__all__ = ["main"]

# Modules by name, imported on use, so that help is quick.
_COMMANDS = {
    "train": ("snnjax.cli.train", "train a network; without an argument on the embedded digits"),
    "eval": ("snnjax.cli.evaluate", "metrics, loss and firing rates of a run"),
    "show": ("snnjax.cli.show", "pictures of a run: spikes, membranes, rates, learning curve"),
    "redundancy": (
        "snnjax.cli.redundancy",
        "wasted activity: null and noisy spike features, input currents, rates",
    ),
    "plan": ("snnjax.cli.plan", "memory strategy for a budget, and the largest batch that fits"),
    "memory": ("snnjax.cli.memory", "table and picture of bytes against depth and timesteps"),
    "check": ("snnjax.cli.check", "check that every memory strategy gives the same gradient"),
    "cost": ("snnjax.cli.cost", "synaptic operations and energy of a run, or of every model"),
    "fspinn": ("snnjax.cli.fspinn", "search networks that learn by STDP within budgets"),
    "convert": ("snnjax.cli.convert", "convert a run of activations into a spiking network"),
    "export": ("snnjax.cli.export", "write a run's network as an artifact to deploy"),
    "info": ("snnjax.cli.info", "versions, devices and memory"),
}


def main(*, argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: Name and arguments of the command; None takes those of the process, which a signal
            then ends at once.

    Returns:
        The exit code.
    """
    # A copy, since the name is popped off.
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Before any parsing, so that errors of parsing are JSON as well.
    screen, name = Screen(json="--json" in arguments), (arguments or ["--help"])[0]
    if argv is None:
        # Also for the prints of an experiment.
        sys.stdout, sys.stderr = screen.tolerant(sys.stdout), screen.tolerant(sys.stderr)
        screen.listener.end = functools.partial(_end, screen, name, (sys.stdout, sys.stderr))
    with listening(screen.listener):
        try:
            code = _run(arguments, screen)
        # Every error becomes one message and an exit code. `Interrupted` is no Exception, so that
        # no handler of an experiment swallows it.
        except BaseException as error:
            if isinstance(error, HelpPrinted):
                raise
            quiet = isinstance(error, KeyboardInterrupt | Interrupted)
            if "--debug" in arguments and not quiet:
                import traceback

                screen.tolerant(sys.stderr).write(traceback.format_exc())
            code = _fail(screen, name, error)
            if screen.several:
                # A regular exit would wait for processes that wait for this one.
                os._exit(code)
    # A result that nobody could read is none, unless nobody wanted to.
    return 2 if code == 0 and screen.unwritable else code


def _run(arguments: list[str], screen: Screen) -> int:
    """Runs the command of the first argument, and returns its exit code."""
    name = arguments.pop(0) if arguments else "--help"
    if name in ("-h", "--help", "help"):
        for line in _help():
            screen.say(line)
        return 0
    if name in ("-V", "--version"):
        from snnjax import __version__

        screen.say(f"snnjax {__version__}")
        return 0
    if name not in _COMMANDS:
        raise Failure(f"there is no command {name!r}: choose one of {', '.join(_COMMANDS)}")
    # No path can hold it, and each function of the system would name it in another way.
    if any("\0" in argument for argument in arguments):
        raise Failure("an argument has a NUL character, which no path or option can hold")
    module = importlib.import_module(_COMMANDS[name][0])
    # These logs repeat an error that the user gets as one message; --debug shows them.
    if "--debug" not in arguments:
        silence_libraries()
    fields, code = module.command(arguments, screen)
    screen.finish({"command": name, **fields, "exit_code": code})
    return code


def _fail(screen: Screen, name: str, error: BaseException) -> int:
    """Prints the message of an error, and returns its exit code."""
    message, code = describe(error)
    screen.fail(message)
    screen.finish({"command": name, "error": message, "exit_code": code})
    return code


def _end(screen: Screen, name: str, streams: tuple[Any, Any], number: int) -> None:
    """Ends the process on a signal."""
    # The main thread may have redirected them, as the parser of options does for its messages.
    sys.stdout, sys.stderr = streams
    code = _fail(screen, name, Interrupted(number))
    # A regular exit would wait for compiling threads, and crash in those it does not know.
    os._exit(code)


def _help() -> list[str]:
    lines = [f"  {name:<12}{text}" for name, (_, text) in _COMMANDS.items()]
    return [
        "usage: snnjax COMMAND ...",
        "",
        "Spiking neural networks in JAX and Flax.",
        "",
        *lines,
        "",
        "`snnjax COMMAND --help` lists its options. On every command --json makes the last",
        "line of stdout one JSON object and --debug shows tracebacks.",
    ]
