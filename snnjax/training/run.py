"""Run directories, which hold all that is needed to inspect, evaluate and resume a run.

If several processes train together, process 0 writes and all of them read.

    experiment.py     the experiment's file
    config.json       values of its plain fields
    versions.json     versions of Python and the packages, and the devices
    metrics.jsonl     one record per line, see below
    checkpoints/      see `training.checkpoints`
    tensorboard/      the same records as events, if tensorboardX is installed
    profile/          traces of some steps, from `snnjax train --profile`
    export/           artifacts of `snnjax export`
    pictures/         pictures of `snnjax show` and `snnjax redundancy`
    result.json       JSON object of `snnjax train --json`

Records of metrics.jsonl:

    {"kind": "train", "step", "epoch", "loss", "accuracy", "gradient_norm", "learning_rate",
     "examples_per_second", "memory_bytes", "skipped", "seconds"}
                                           means over the steps since the last train record
    {"kind": "eval", "step", "epoch", "loss", "accuracy", "seconds"}      over all test examples
    {"kind": "rollback", "step", "epoch", "failed", "position", "seconds"}

`accuracy` is the metric of a classification; other tasks record their own by name. `step` counts
updates, `epoch` is `step` in passes over the training set, possibly fractional, and `seconds` is
the time in training loops so far, with evaluations and checkpoints. `memory_bytes` is the peak of
this session: of the device with the highest `peak_bytes_in_use`, or on a CPU, which does not count
them, the largest resident set of the process (`getrusage`) with Python, compiler and data; absent
if neither is known. `skipped` counts skipped updates (`--not-finite skip`), absent if 0. A rollback
returns to `step` because the update after step `failed` was not finite, and continues with the
loader's batch `position`.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from snnjax.training.config import load_experiment, override, plain_values
from snnjax.training.errors import ExperimentError, RunError
from snnjax.training.experiment import BaseExperiment
from snnjax.training.multihost import broadcast, is_leader

__all__ = ["Run"]

_PACKAGES = ("snnjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class Run:
    """Existing run directory, from `Run.create` or `Run.open`.

    Attributes:
        path: Path of the directory.
    """

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def create(cls, path: str | Path, experiment: BaseExperiment, source: str) -> Run:
        """Makes a new run directory.

        Args:
            path: Path of the directory, which must not exist or be empty.
            experiment: Experiment, whose plain fields become config.json.
            source: Text of the experiment's file.

        Raises:
            RunError: The path is taken.
        """
        return cls(Path(broadcast(lambda: cls._create(Path(path), experiment, source))))

    @classmethod
    def _create(cls, path: Path, experiment: BaseExperiment, source: str) -> str:
        cls.check_free(path)
        # `exist_ok`: an empty folder made by the user is free.
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path)
        try:
            run.source.write_text(source, encoding="utf-8")
            run.write_json("versions.json", cls.versions())
            # Written last: a directory is a run once it has its configuration.
            run.write_config(experiment)
        except OSError:
            # A full disk: a directory without config.json would be in the way of the next attempt.
            shutil.rmtree(path, ignore_errors=True)
            raise
        return str(path)

    @staticmethod
    def check_free(path: Path) -> None:
        """Raises `RunError` if a path is already taken."""
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            cure = f"--resume {path} goes on with it, " if (path / "config.json").exists() else ""
            raise RunError(
                f"{path} is there already and results are never overwritten: {cure}"
                "another --out starts anew"
            )

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Opens an existing run directory.

        Raises:
            RunError: The path is not a run directory.
        """
        path = Path(path)
        if not (path / "config.json").is_file():
            fault = (
                "is no run directory (it has no config.json)" if path.exists() else "is not there"
            )
            raise RunError(
                f"{path} {fault}: give a folder that snnjax train made, such as runs/NAME-0"
            )
        return cls(path)

    @property
    def source(self) -> Path:
        """Copy of the experiment's file."""
        return self.path / "experiment.py"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def profile(self) -> Path:
        """Folder of traces."""
        return self.path / "profile"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Locks the directory against other training processes inside the block.

        Raises:
            RunError: Another process already trains in it.
        """
        try:
            import fcntl
        except ImportError:  # not on this platform
            yield
            return
        # "a" creates the file and never truncates it; the lock belongs to the open file.
        with (self.path / ".lock").open("a") as file:

            def take() -> str:
                # The system releases the lock when the process ends, however it ends.
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise RunError(
                        f"another process is training in {self.path}: wait for it, or stop it"
                    ) from error
                return ""

            broadcast(take)
            yield

    def experiment(self) -> BaseExperiment:
        """Loads the experiment with the values of config.json.

        Raises:
            ExperimentError: The copy of the experiment's file cannot be loaded.
            RunError: config.json is damaged.
        """
        try:
            return override(load_experiment(self.source), self.config())
        except ExperimentError as error:
            raise ExperimentError(f"{error}{self._version_note()}") from error.__cause__

    def config(self) -> dict[str, Any]:
        """Values of the plain fields, in the notation of this version.

        Raises:
            RunError: config.json is damaged.
        """
        try:
            values = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise ValueError("it holds no fields")
        except ValueError as error:
            raise RunError(f"{self.path / 'config.json'} is damaged: {error}") from error
        # Version 0.1 had the word `whole` for `memory.sequence`. Later versions have no such word,
        # but a user may have registered a scan of that name.
        if isinstance(text := values.get("memory"), str) and self._minor_version() in (None, "0.1"):
            values["memory"] = re.sub(r"\bwhole\b", "sequence", text)
        return values

    def write_config(self, experiment: BaseExperiment) -> None:
        """Writes config.json."""
        self.write_json("config.json", plain_values(experiment))

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON file into the directory and replaces an existing one atomically."""
        if is_leader():
            _replace(self.path / name, json.dumps(value, indent=2) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """Records of metrics.jsonl, without a truncated last line."""
        try:
            lines = (self.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        # A run without a record so far.
        except FileNotFoundError:
            return []
        records = []
        for line in lines:
            try:
                records.append(json.loads(line))
            except ValueError:  # the last line of a killed process
                break
        return records

    def rewind(self, step: int) -> list[dict[str, Any]]:
        """Drops the records after a step, which training repeats, and returns the others."""
        records = self.records()
        kept = [record for record in records if record["step"] <= step]
        if is_leader() and (records or (self.path / "metrics.jsonl").exists()):
            # Rewritten as a whole: a truncated last line would corrupt the record appended next.
            _replace(self.path / "metrics.jsonl", "".join(map(_line, kept)))
        return kept

    def append(self, record: dict[str, Any]) -> None:
        """Adds a record to metrics.jsonl."""
        if not is_leader():
            return
        # Appended and closed at once: a killed process loses no record but the last.
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(_line(record))

    def _version_note(self) -> str:
        """Advice on a run of another version; empty for this version."""
        made, here = self._version(), metadata.version("snnjax")
        if made is None or self._minor_version() == _minor(here):
            return ""
        return (
            f". The run was made by snnjax {made} and this is {here}: adapt its experiment.py to "
            f"the names of this version (CHANGELOG), or use it under pip install snnjax=={made}"
        )

    def _version(self) -> str | None:
        """Version of snnjax that made the run; None if it is not recorded."""
        try:
            text = (self.path / "versions.json").read_text(encoding="utf-8")
            return str(json.loads(text)["packages"]["snnjax"])
        # A run without its note, or with a damaged one, can still be trained.
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _minor_version(self) -> str | None:
        made = self._version()
        return made and _minor(made)

    @staticmethod
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


def _minor(version: str) -> str:
    """Major and minor number of a version, such as "0.1"."""
    return ".".join(version.split(".")[:2])


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record) + "\n"


def _replace(path: Path, text: str) -> None:
    # Renaming is atomic: a process killed while writing leaves the old file.
    beside = path.with_name(path.name + ".part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
