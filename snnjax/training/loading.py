"""Experiments from files: a Python file with a function `config()`.

An experiment file is a program, and loading runs it: load only files you would run.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from snnjax.training.config import override
from snnjax.training.errors import ExperimentError
from snnjax.training.experiment import Experiment
from snnjax.training.run import Run

__all__ = ["experiment_of", "load_experiment"]

_SHAPE = (
    "an experiment is a Python file with a function config() that returns a training.Experiment"
)


def load_experiment(path: str | Path) -> Experiment:
    """Runs an experiment file and calls its `config()`.

    Raises:
        ExperimentError: There is no such file, it is no experiment, or it failed.
    """
    path = Path(path)
    if not path.is_file():
        what = "a directory" if path.is_dir() else "not there"
        raise ExperimentError(f"{path} is {what}: {_SHAPE}")
    if path.suffix != ".py":
        raise ExperimentError(f"{path} does not end in .py: {_SHAPE}")
    module = _run(path)
    if not callable(config := getattr(module, "config", None)):
        raise ExperimentError(f"{path} has no function config(): {_SHAPE}")
    try:
        experiment = config()
    except Exception as error:
        raise ExperimentError(f"{path}: config() failed: {_tell(error)}") from error
    if not isinstance(experiment, Experiment):
        raise ExperimentError(
            f"{path}: config() returned {type(experiment).__name__}, not a training.Experiment"
        )
    return experiment


def experiment_of(run: Run) -> Experiment:
    """The experiment of a run directory, with the values it was trained with.

    Executes the run's source. A memory strategy in config.json that names a scan of the user's own
    (`mymodule:keep4`) imports its module as well.
    """
    return override(load_experiment(run.source), run.config())


def _run(path: Path) -> ModuleType:
    # Dataclasses look their module up by name to resolve their types.
    name = f"snnjax_experiment_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "the suffix is .py"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise ExperimentError(
            f"{path} imports {error.name}, which is not installed: an experiment file imports "
            "installed packages only, since it is copied into the run directory"
        ) from error
    except SyntaxError as error:
        raise ExperimentError(f"{path}, line {error.lineno}: {error.msg}: {_SHAPE}") from error
    except Exception as error:
        raise ExperimentError(f"{path} failed: {_tell(error)}") from error
    finally:
        sys.dont_write_bytecode = writes
    return module


def _tell(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
