"""Run directories, which hold all that is needed to inspect, evaluate and resume a run.

If several processes train together, process 0 writes and all of them read.

    experiment.py     the experiment's file
    config.json       values of its plain fields
    initialization.json     weights taken from another run, see `training.Experiment.init_from`
    data.json         fingerprints of the data, see `Session.data_fingerprint`
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
    {"kind": "data", "step", "epoch", "changed", "seconds"}               resumed on other data

`accuracy` is the metric of a classification; other tasks record their own by name. `step` counts
updates, `epoch` is `step` in passes over the training set, possibly fractional, and `seconds` is
the time in training loops so far, with evaluations and checkpoints. `memory_bytes` is the peak of
this session: of the device with the highest `peak_bytes_in_use`, or on a CPU, which does not count
them, the largest resident set of the process (`getrusage`) with Python, compiler and data; absent
if neither is known. `skipped` counts skipped updates (`--not-finite skip`), absent if 0. A rollback
returns to `step` because the update after step `failed` was not finite, and continues with the
loader's batch `position`. Evaluations before a `data` record were on other test examples and are
not compared with later ones.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import platform
import re
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from snnjax.training.checkpoints.integrity import flush_folder
from snnjax.training.config import load_experiment, override, plain_values
from snnjax.training.errors import ExperimentError, RunError
from snnjax.training.experiment import BaseExperiment
from snnjax.training.multihost import broadcast, is_leader

__all__ = ["Run"]

# A file system without locks, such as some mounts over a network.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
# A record that a killed process wrote in part.
_CUT_RECORD = re.compile(rb'\{("(k(i(n(d(".*)?)?)?)?)?)?', re.DOTALL)
_PACKAGES = ("snnjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class Run:
    """Existing run directory, from `Run.create` or `Run.open`.

    Attributes:
        path: Path of the directory.
    """

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def create(
        cls, path: str | Path, experiment: BaseExperiment, source: str, *, numbered: bool = False
    ) -> Run:
        """Makes a new run directory.

        Args:
            path: Path of the directory, which must not exist or be empty.
            experiment: Experiment, whose plain fields become config.json.
            source: Text of the experiment's file.
            numbered: Appends the first free number, from 2, if the path exists.

        Raises:
            RunError: The path is taken.
        """

        def make() -> str:
            _make_parent(Path(path))
            for number in itertools.count(1):
                suffix = f"-{number}" if number > 1 else ""
                free = Path(path).with_name(f"{Path(path).name}{suffix}")
                try:
                    return cls._create(free, experiment, source, fresh=numbered)
                except FileExistsError:
                    continue
            raise AssertionError("numbers do not end")

        return cls(Path(broadcast(make)))

    @classmethod
    def _create(cls, path: Path, experiment: BaseExperiment, source: str, *, fresh: bool) -> str:
        """Makes a run directory; raises `FileExistsError` if it has to be `fresh` and is not."""
        if not fresh:
            cls.check_free(path)
        made = [path]
        # Creation is the lock: of several processes one makes the folder, or the file in it.
        try:
            path.mkdir()
        except FileExistsError:
            if fresh:
                raise
            made = []  # an empty folder made by the user is free, and stays
        run = cls(path)
        try:
            with run.source.open("x", encoding="utf-8") as file:
                made.append(run.source)
                _write_through(file, source)
            made.append(path / "versions.json")
            run.write_json("versions.json", cls.versions())
            # Written last: a directory is a run once it has its configuration.
            made.append(path / "config.json")
            run.write_config(experiment)
        except FileExistsError:
            raise RunError(
                f"{path} was taken by another process at this moment: choose another --out"
            ) from None
        except OSError:
            # A full disk: a directory without config.json would be in the way of the next attempt.
            _delete(made)
            raise
        flush_folder(path.parent)
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
    def lock(self, *, warn: Callable[[str], None] = lambda text: None) -> Iterator[None]:
        """Locks the directory against other training processes inside the block.

        Args:
            warn: Called with a sentence if the file system has no locks.

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
                except OSError as error:
                    if error.errno not in _NO_LOCKS:
                        raise
                    warn(
                        f"the file system of {self.path} has no locks ({error.strerror}): train "
                        "in it by one command at a time"
                    )
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
        except (ValueError, RecursionError) as error:
            raise RunError(f"{self.path / 'config.json'} is damaged: {error}") from error
        # Version 0.1 had the word `whole` for `memory.sequence`. Later versions have no such word,
        # but a user may have registered a scan of that name.
        if isinstance(text := values.get("memory"), str) and self._minor_version() in (None, "0.1"):
            values["memory"] = re.sub(r"\bwhole\b", "sequence", text)
        return values

    def write_config(self, experiment: BaseExperiment) -> None:
        """Writes config.json, unless it has these values already."""
        values = plain_values(experiment)
        # Compared as JSON, which turns tuples into lists. A resumed run leaves the file alone.
        with contextlib.suppress(OSError, RunError):
            if self.config() == json.loads(json.dumps(values)):
                return
        self.write_json("config.json", values)

    def read_json(self, name: str) -> Any:
        """Reads a JSON file of the directory; None if there is none.

        Raises:
            RunError: The file is damaged.
        """
        try:
            return json.loads((self.path / name).read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            raise RunError(f"{self.path / name} is damaged: {error}") from error

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON file into the directory and replaces an existing one atomically."""
        if is_leader():
            _replace(self.path / name, (json.dumps(value, indent=2) + "\n").encode())

    def records(self, *, warn: Callable[[str], None] = lambda text: None) -> list[dict[str, Any]]:
        """Readable records of metrics.jsonl.

        Args:
            warn: Called with a sentence about lines that cannot be read, except for the record that
                a killed process left without its end.
        """
        lines = self._lines()
        damaged = [n for n, (line, record) in enumerate(lines, 1) if line and record is None]
        if damaged:
            shown = ", ".join(map(str, damaged[:5])) + (", ..." if len(damaged) > 5 else "")
            plural = "s" if len(damaged) > 1 else ""
            warn(
                f"{self.path / 'metrics.jsonl'}: line{plural} {shown} cannot be read and "
                f"{'are' if plural else 'is'} passed over"
            )
        return [record for _, record in lines if record is not None]

    def rewind(self, step: int) -> list[dict[str, Any]]:
        """Drops the records after a step, which training repeats, and returns the others."""
        # A line that cannot be read stays: nothing is known about it. A change of the data stays
        # too: it holds from any step that training goes on from.
        kept = [
            (line, record)
            for line, record in self._lines()
            if record is None or record["step"] <= step or record["kind"] == "data"
        ]
        text = b"".join(line + b"\n" for line, _ in kept)
        file = self.path / "metrics.jsonl"
        if is_leader() and file.exists() and file.read_bytes() != text:
            _replace(file, text)
        return [record for _, record in kept if record is not None]

    def append(self, record: dict[str, Any]) -> None:
        """Adds a record to metrics.jsonl."""
        if not is_leader():
            return
        # Appended and closed at once: a killed process loses no record but the last.
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def flush_records(self) -> None:
        """Flushes metrics.jsonl to the disk.

        Called before each checkpoint: a resumed run repeats the records after its checkpoint.
        """
        if is_leader() and (self.path / "metrics.jsonl").exists():
            with (self.path / "metrics.jsonl").open("rb") as file:
                os.fsync(file.fileno())
            flush_folder(self.path)

    def _lines(self) -> list[tuple[bytes, dict[str, Any] | None]]:
        """Lines of metrics.jsonl, each with its record, or None if it cannot be read."""
        try:
            content = (self.path / "metrics.jsonl").read_bytes()
        # A run without a record so far.
        except FileNotFoundError:
            return []
        *texts, last = content.split(b"\n")
        lines = [(line, _parse_record(line)) for line in texts]
        # The record that a killed process left without its end is repeated by the resumed run.
        if last and ((record := _parse_record(last)) or not _CUT_RECORD.fullmatch(last)):
            lines.append((last, record))
        return lines

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


def _parse_record(line: bytes) -> dict[str, Any] | None:
    """Record of a line; None for anything else."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        return None
    # All but `kind` and the differences of a data record are numbers, or null for one that is not
    # finite; a bool would be an int in Python.
    values = {name: v for name, v in record.items() if name not in ("kind", "changed")}
    numbers = all(v is None or type(v) in (int, float) for v in values.values())
    # A step beyond the counter of a state is a changed digit.
    step = record.get("step")
    return record if numbers and type(step) is int and 0 <= step < 2**31 else None


def _make_parent(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise RunError(f"{path.parent} is no folder: choose another --out") from None


def _write_through(file: IO[Any], text: str | bytes) -> None:
    """Writes to a file and flushes it to the disk."""
    file.write(text)
    file.flush()
    os.fsync(file.fileno())


def _replace(path: Path, content: bytes) -> None:
    # Renaming is atomic: a process killed while writing leaves the old file. Flushed first, or a
    # power failure would leave an empty one.
    beside = path.with_name(path.name + ".part")
    with beside.open("wb") as file:
        _write_through(file, content)
    beside.replace(path)
    flush_folder(path.parent)


def _delete(made: list[Path]) -> None:
    """Deletes files and a folder that this process made, in the order of their making."""
    for path in reversed(made):
        with contextlib.suppress(OSError):
            if path.is_dir():
                path.rmdir()  # fails if another process put something there
                continue
            path.unlink(missing_ok=True)
            path.with_name(path.name + ".part").unlink(missing_ok=True)
