"""Integrity of checkpoints, by a manifest with the SHA-256 of every file.

    manifest.json
        {"digest": ..., "files": {NAME: {"bytes", "sha256"}, ...},      of all other files
         "schema", "step", "leaves", "score"}                           note, see `format`

The manifest alone decides whether a checkpoint is valid. Its own `digest` covers all its other
fields, and its text is the only one that spells them, so that any changed bit is detected. A
digest reveals damage, not forgery: it is no signature.

Checkpoints of forms 1 to 4 recorded only the sizes of their files (sizes.json) and had their note
in the metadata of Orbax.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from snnjax.training.checkpoints.format import SCHEMA
from snnjax.training.errors import CheckpointError, DamagedCheckpointError

__all__ = [
    "checked_note",
    "damage",
    "flush_folder",
    "has_digests",
    "is_complete",
    "is_own_file",
    "write_manifest",
]

T = TypeVar("T")

_MANIFEST = "manifest.json"
_SIZES = "sizes.json"  # forms 1 to 4
_METADATA = "_CHECKPOINT_METADATA"  # Orbax' own, whose format is stable
# First parts of the names of all files in a checkpoint of any form.
_OWN_NAMES = {_MANIFEST, _SIZES, _METADATA, "commit_success.txt", "orbax.checkpoint", "state"}
# Errors of a damaged file. Others, such as too many open files, say nothing about it.
_DAMAGE = {
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO, errno.ELOOP, errno.ENXIO, errno.EINVAL,
}  # fmt: skip
# Several threads read a large checkpoint; for a small one they would cost more than the reading.
_BYTES_PER_THREAD = 2**25
_THREADS = 8


def write_manifest(path: Path, note: dict[str, Any]) -> None:
    """Writes the manifest of a complete checkpoint, and flushes all its files to the disk.

    Args:
        path: Path of the checkpoint.
        note: Note from `format.note`.
    """
    names = sorted(str(f.relative_to(path)) for f in path.rglob("*") if f.is_file())
    files = [path / name for name in names if name != _MANIFEST]
    digests = _map_files(_flushed_digest, files)
    records = {
        str(file.relative_to(path)): {"bytes": size, "sha256": digest}
        for file, (size, digest) in zip(files, digests, strict=True)
    }
    with (path / _MANIFEST).open("w", encoding="ascii") as file:
        file.write(_spell({**note, "files": records}))
        file.flush()
        os.fsync(file.fileno())
    for folder in (path, *(f for f in path.rglob("*") if f.is_dir())):
        flush_folder(folder)


def checked_note(path: Path, *, digests: bool = True) -> dict[str, Any]:
    """Note of a checkpoint (`format.note`), after a check of its files.

    Args:
        path: Path of the checkpoint.
        digests: Compares the digests of all files, which reads them; False compares their sizes.

    Raises:
        DamagedCheckpointError: Files are missing or damaged, or the checkpoint is one of another
            step under this name.
        CheckpointError: The checkpoint was made by a newer snnjax.
    """
    if not path.is_dir():
        raise damage(path, NotADirectoryError("it is no folder"))
    note = _manifest(path) if has_digests(path) else _note_without_digests(path)
    schema = note["schema"]
    # Refused before reading: arrays of a newer form would fail with a message about shapes.
    if schema > SCHEMA:
        raise CheckpointError(
            f"the checkpoint {path} was made by a newer snnjax (its schema is {schema}, this one "
            f"reads up to {SCHEMA}): pip install --upgrade snnjax"
        )
    step = note.get("step")
    # A copy may have any name, but the name of a step is that of its content.
    if step is not None and path.name.isdecimal() and int(path.name) != step:
        raise damage(path, ValueError(f"{_MANIFEST} is of step {step}"))
    files = note.pop("files")
    for name, record in files.items():
        here = _size(path / name)
        if here != record["bytes"]:
            shown = "no" if here is None else here
            raise damage(path, ValueError(f"{name} has {shown} bytes instead of {record['bytes']}"))
    if digests:
        _compare_digests(path, {n: r["sha256"] for n, r in files.items() if "sha256" in r})
    return note


def is_complete(path: Path, *, digests: bool = True) -> bool:
    """True if a checkpoint exists with all its files; decodes no arrays.

    Args:
        path: Path of the checkpoint.
        digests: As in `checked_note`.

    Raises:
        CheckpointError: The checkpoint was made by a newer snnjax.
    """
    try:
        return bool(checked_note(path, digests=digests))
    except DamagedCheckpointError:
        return False


def has_digests(path: Path) -> bool:
    """True if a checkpoint has a manifest, readable or not: its form is 5 or later."""
    return os.path.lexists(path / _MANIFEST)


def is_own_file(name: Path) -> bool:
    """True if a path relative to a checkpoint is one of the names that snnjax and Orbax write."""
    return name.parts[0] in _OWN_NAMES


def damage(path: Path, error: Exception) -> DamagedCheckpointError:
    """Makes the error about an unreadable checkpoint, in one sentence.

    Raises:
        OSError: The error is no fault of the checkpoint.
    """
    number = _os_number(error)
    if number is not None and number not in _DAMAGE:
        raise error
    reason = " ".join(str(error).split())
    if isinstance(error, OSError) and error.filename and error.strerror:
        # The name alone: a long path would push the reason out of the sentence.
        reason = f"{os.path.basename(error.filename)}: {error.strerror}"
    # TensorStore appends all its settings to a message.
    short = reason if len(reason) <= 160 else reason[:160] + "..."
    return DamagedCheckpointError(
        f"the checkpoint {path} cannot be read ({type(error).__name__}: {short})"
    )


def _os_number(error: Exception) -> int | None:
    """Number of an error of the operating system, also in a message of TensorStore's."""
    if isinstance(error, OSError):
        return error.errno
    # Both spellings of its versions, as in `cli._failures`, which must not import JAX.
    found = re.search(r"(?:OS error |os_error_code=')(\d+)", str(error))
    return int(found[1]) if found else None


def flush_folder(path: Path) -> None:
    """Flushes the names in a folder to the disk, where the platform can."""
    # Some file systems, and Windows, flush no folders.
    with contextlib.suppress(OSError):
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _spell(fields: dict[str, Any]) -> str:
    """Only text of a manifest with these fields."""
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    return json.dumps({"digest": digest, **fields}, sort_keys=True) + "\n"


def _manifest(path: Path) -> dict[str, Any]:
    """Fields of an undamaged manifest."""
    try:
        text = _read(path / _MANIFEST)
        fields = json.loads(text)
        del fields["digest"]
        # Bytes, not values: a changed space or escape is damage too.
        if _spell(fields).encode() != text:
            raise ValueError(f"{_MANIFEST} does not have the digest that it records")
        if not isinstance(fields["schema"], int) or not isinstance(fields["files"], dict):
            raise TypeError(f"{_MANIFEST} has no schema or no files")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise damage(path, _with_name(_MANIFEST, error)) from error
    return fields


def _note_without_digests(path: Path) -> dict[str, Any]:
    """Note of a checkpoint of forms 1 to 4, with `files` from the recorded sizes."""
    # Without Orbax, whose reader of metadata leaks half a megabyte per call.
    try:
        note = dict(json.loads(_read(path / _METADATA))["custom_metadata"])
        schema = note.setdefault("schema", 1)
        if not isinstance(schema, int) or schema < 1:
            raise ValueError(f"its schema is {schema!r}")
        if 4 < schema <= SCHEMA:
            raise ValueError(f"{_MANIFEST} is missing")
        if schema <= 4 and not isinstance(note["leaves"], dict):
            raise TypeError(f"{_METADATA} lists no arrays")
        # A score decides about "best": anything but a number would fail there.
        scores = [note.get(name) for name in ("score", "accuracy")]
        if not all(s is None or (isinstance(s, float | int) and math.isfinite(s)) for s in scores):
            raise TypeError(f"{_METADATA} has the score {scores}")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise damage(path, _with_name(_METADATA, error)) from error
    sizes = {} if schema > 4 else _recorded_sizes(path, required=schema > 1)
    return {**note, "files": {name: {"bytes": size} for name, size in sizes.items()}}


def _recorded_sizes(path: Path, *, required: bool) -> dict[str, int]:
    """Recorded sizes of files, by name."""
    # In form 1 the sizes were written last, so that a killed run left a checkpoint without them.
    if not required and not (path / _SIZES).exists():
        return {}
    try:
        return dict(json.loads(_read(path / _SIZES)))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise damage(path, _with_name(_SIZES, error)) from error


def _read(file: Path) -> bytes:
    # Opening a pipe in place of a file would wait for ever.
    if file.exists() and not file.is_file():
        raise ValueError(f"{file.name} is no file")
    return file.read_bytes()


def _with_name(name: str, error: Exception) -> Exception:
    """Error whose message names a file."""
    if isinstance(error, OSError) or _MANIFEST in str(error) or name in str(error):
        return error
    return ValueError(f"{name}: {error!r}")


def _compare_digests(path: Path, digests: dict[str, str]) -> None:
    """Raises `DamagedCheckpointError` if the content of a file does not have its digest."""
    try:
        found = _map_files(_digest, [path / name for name in digests])
    except OSError as error:  # a bad block, or a file that vanished meanwhile
        raise damage(path, error) from error
    for name, digest in zip(digests, found, strict=True):
        if digest != digests[name]:
            raise damage(path, ValueError(f"{name} does not have its recorded SHA-256"))


def _map_files(function: Callable[[Path], T], files: list[Path]) -> list[T]:
    """Applies a function that reads a file to each of them."""
    count = min(sum(file.stat().st_size for file in files) // _BYTES_PER_THREAD, _THREADS)
    if count < 2:
        return [function(file) for file in files]
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(function, files))


def _digest(file: Path) -> str:
    with file.open("rb", buffering=0) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flushed_digest(file: Path) -> tuple[int, str]:
    """Size and digest of a file, flushed to the disk and dropped from the page cache."""
    with file.open("rb", buffering=0) as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        size = os.fstat(stream.fileno()).st_size
        os.fsync(stream.fileno())
        # So that a check reads the disk, and the state does not crowd the training data out.
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return size, digest


def _size(file: Path) -> int | None:
    """Size of a regular file; None if there is none."""
    try:
        found = file.stat()
    except OSError as error:
        if error.errno not in _DAMAGE:
            raise
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None
