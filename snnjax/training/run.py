"""A run directory: everything needed to look at a run, to judge it and to go on with it.

Of several processes that train together one writes it, process 0; all of them can read it.

    experiment.py     the experiment's file
    config.json       values of its plain fields
    versions.json     of Python, the packages and the devices
    metrics.jsonl     one record per line, see below
    checkpoints/      see `training.checkpoints`
    tensorboard/      the same records as events, where tensorboardX is installed
    profile/          traces of some steps, made by `snnjax train --profile`
    export/           artifacts of `snnjax export`
    pictures/         made by `snnjax show` and `snnjax redundancy`
    result.json       what `snnjax train --json` prints

Records of metrics.jsonl:

    {"kind": "train", "step", "epoch", "loss", "accuracy", "gradient_norm", "learning_rate",
     "examples_per_second", "memory_bytes", "skipped", "seconds"}
                                           means over the steps since the train record before
    {"kind": "eval", "step", "epoch", "loss", "accuracy", "seconds"}      of all test examples
    {"kind": "rollback", "step", "epoch", "failed", "position", "seconds"}

`step` counts updates done, `epoch` is `step` in passes over the training set, a fraction, and
`seconds` is the time spent in training loops so far, evaluations and checkpoints included.
`memory_bytes` is the most used so far in this session: on the device that needs most, as its
allocator counts (`peak_bytes_in_use`); on a CPU, whose allocator does not, the largest resident set
of the process (`getrusage`), Python, compiler and data included; absent where neither is told.
`skipped` counts updates left out as not finite (`--not-finite skip`), absent where it is 0. A
rollback went back to `step` as the update after step `failed` was not finite; the loader's batch
`position` comes next.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from snnjax.training.config import plain_values
from snnjax.training.errors import RunError
from snnjax.training.experiment import Experiment
from snnjax.training.multihost import decided, leads

__all__ = ["Run", "versions"]

_PACKAGES = ("snnjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class Run:
    """A run directory that is there; made by `Run.create` and `Run.open`.

    Attributes:
        path: The directory.
    """

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def create(cls, path: str | Path, experiment: Experiment, source: str) -> Run:
        """Makes a new run directory.

        Args:
            path: It must not be there yet, or be empty.
            experiment: Its plain fields become config.json.
            source: Text of the experiment's file.

        Raises:
            RunError: Something is there already.
        """
        return cls(Path(decided(lambda: cls._create(Path(path), experiment, source))))

    @classmethod
    def _create(cls, path: Path, experiment: Experiment, source: str) -> str:
        cls.check_free(path)
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path)
        try:
            run.source.write_text(source, encoding="utf-8")
            run.write_json("versions.json", versions())
            # Written last: a directory is a run once it has its configuration.
            run.write_config(experiment)
        except OSError:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return str(path)

    @staticmethod
    def check_free(path: Path) -> None:
        """Raises `RunError` where a run directory cannot be made, since something is there."""
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            cure = f"--resume {path} goes on with it, " if (path / "config.json").exists() else ""
            raise RunError(
                f"{path} is there already and results are never overwritten: {cure}"
                "another --out starts anew"
            )

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """A run directory made before.

        Raises:
            RunError: It is no run directory.
        """
        path = Path(path)
        if not (path / "config.json").is_file():
            what = (
                "is no run directory (it has no config.json)" if path.exists() else "is not there"
            )
            raise RunError(
                f"{path} {what}: give a folder that snnjax train made, such as runs/NAME-0"
            )
        return cls(path)

    @property
    def source(self) -> Path:
        """The copy of the experiment's file."""
        return self.path / "experiment.py"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def profile(self) -> Path:
        """The folder of traces."""
        return self.path / "profile"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from training in this directory inside the block.

        Raises:
            RunError: One does already.
        """
        try:
            import fcntl
        except ImportError:  # not on this platform
            yield
            return
        with (self.path / ".lock").open("a") as file:

            def lock() -> str:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise RunError(
                        f"another process is training in {self.path}: wait for it, or stop it"
                    ) from error
                return ""

            decided(lock)
            yield

    def config(self) -> dict[str, Any]:
        """The values of the plain fields.

        Raises:
            RunError: config.json is damaged.
        """
        try:
            return json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(f"{self.path / 'config.json'} is damaged: {error}") from error

    def write_config(self, experiment: Experiment) -> None:
        """Writes config.json."""
        self.write_json("config.json", plain_values(experiment))

    def write_json(self, name: str, value: Any) -> None:
        """Writes a file of the directory; one that was there is replaced as a whole."""
        if leads():
            _replace(self.path / name, json.dumps(value, indent=2) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl; a last line that was cut short is left out."""
        try:
            lines = (self.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except ValueError:
                break
        return found

    def rewind(self, step: int) -> list[dict[str, Any]]:
        """Drops the records after a step, as they are going to be made again; gives the rest."""
        found = self.records()
        kept = [record for record in found if record["step"] <= step]
        if leads() and (found or (self.path / "metrics.jsonl").exists()):
            _replace(self.path / "metrics.jsonl", "".join(map(_line, kept)))
        return kept

    def append(self, record: dict[str, Any]) -> None:
        """Adds a record to metrics.jsonl."""
        if not leads():
            return
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(_line(record))


def versions() -> dict[str, Any]:
    """Versions of Python and of the packages, and the devices."""
    import jax

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
        "cores": os.cpu_count(),
    }


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record) + "\n"


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(path.name + ".part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
