"""Integrity of checkpoints, by recorded sizes of their files.

A full disk, an aborted copy or a power failure leaves missing or truncated files. Orbax detects
most of them only after reading everything, and with a long error.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from snnjax.training.checkpoints.format import SCHEMA
from snnjax.training.errors import CheckpointError, DamagedCheckpointError

__all__ = ["checked_note", "damage", "is_complete", "write_sizes"]

_SIZES = "sizes.json"


def write_sizes(path: Path) -> None:
    """Records the sizes of all files of a complete checkpoint."""
    (path / _SIZES).write_text(json.dumps(_sizes(path)))


def checked_note(path: Path) -> dict[str, Any]:
    """Note of a checkpoint (`format.note`), after a check of its files.

    Raises:
        DamagedCheckpointError: Files are missing, truncated or unreadable.
        CheckpointError: The checkpoint was made by a newer snnjax.
    """
    recorded = _recorded_sizes(path)
    for name, size in (recorded or {}).items():
        here = _size(path / name)
        if here != size:
            shown = "no" if here is None else here
            raise damage(path, ValueError(f"{name} has {shown} bytes instead of {size}"))
    note = _note(path)
    form = note.setdefault("schema", 1)
    if not isinstance(form, int) or form < 1:
        raise damage(path, ValueError(f"its schema is {form!r}"))
    # Refused before reading: arrays of a newer form would fail with a message about shapes.
    if form > SCHEMA:
        raise CheckpointError(
            f"the checkpoint {path} was made by a newer snnjax (its schema is {form}, this one "
            f"reads up to {SCHEMA}): pip install --upgrade snnjax"
        )
    # In form 1 the sizes were written last, so that a killed run left a checkpoint without them.
    if recorded is None and form > 1:
        raise damage(path, FileNotFoundError(f"{_SIZES} is missing"))
    return note


def is_complete(path: Path) -> bool:
    """True if a checkpoint exists with all its files; reads no arrays.

    Raises:
        CheckpointError: The checkpoint was made by a newer snnjax.
    """
    try:
        return path.is_dir() and bool(checked_note(path))
    except DamagedCheckpointError:
        return False


def damage(path: Path, error: Exception) -> DamagedCheckpointError:
    """Makes the error about an unreadable checkpoint, in one sentence."""
    reason = " ".join(str(error).split())
    # TensorStore appends all its settings to a message.
    short = reason if len(reason) <= 160 else reason[:160] + "..."
    return DamagedCheckpointError(
        f"the checkpoint {path} cannot be read ({type(error).__name__}: {short})"
    )


def _note(path: Path) -> dict[str, Any]:
    from orbax.checkpoint import v1 as ocp

    try:
        return dict(ocp.metadata(str(path.resolve())).custom_metadata or {})  # type: ignore[arg-type]
    except PermissionError:
        raise  # no fault of the checkpoint
    except Exception as error:
        raise damage(path, error) from error


def _recorded_sizes(path: Path) -> dict[str, int] | None:
    """Recorded sizes; None without a record."""
    try:
        return dict(json.loads((path / _SIZES).read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise damage(path, error) from error


def _sizes(path: Path) -> dict[str, int]:
    # Without its own file, whose size is not known before it is written.
    files = (file for file in path.rglob("*") if file.is_file() and _SIZES not in file.name)
    return {str(file.relative_to(path)): file.stat().st_size for file in sorted(files)}


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return None
