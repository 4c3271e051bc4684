"""Whether a checkpoint is intact: the bytes of each of its files, written down when it was made.

A disk that fills, a copy that stops, a machine that loses power leave files that are missing or
cut short. Orbax finds most of that as well, but only on reading everything, and tells it by pages.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from snnjax.training.checkpoints.format import SCHEMA
from snnjax.training.errors import CheckpointError, DamagedCheckpointError

__all__ = ["checked_note", "damaged", "intact", "write_sizes"]

_SIZES = "sizes.json"


def write_sizes(path: Path) -> None:
    """Writes down the sizes of all files of a checkpoint that is complete."""
    (path / _SIZES).write_text(json.dumps(_sizes(path)))


def checked_note(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself (`format.note`), once its files were found to be there.

    Raises:
        DamagedCheckpointError: Files are missing or cut short, or cannot be understood.
        CheckpointError: It was made by a newer snnjax.
    """
    written = _written_down(path)
    for name, size in (written or {}).items():
        here = _size(path / name)
        if here != size:
            shown = "no" if here is None else here
            raise damaged(path, ValueError(f"{name} has {shown} bytes instead of {size}"))
    said = _note(path)
    form = said.setdefault("schema", 1)
    if not isinstance(form, int) or form < 1:
        raise damaged(path, ValueError(f"its schema is {form!r}"))
    if form > SCHEMA:
        raise CheckpointError(
            f"the checkpoint {path} was made by a newer snnjax (its schema is {form}, this one "
            f"reads up to {SCHEMA}): pip install --upgrade snnjax"
        )
    # In form 1 the sizes were written last, and the checkpoint of a killed run went without them.
    if written is None and form > 1:
        raise damaged(path, FileNotFoundError(f"{_SIZES} is missing"))
    return said


def intact(path: Path) -> bool:
    """True if a checkpoint is there with all its files; its arrays are not read.

    Raises:
        CheckpointError: It was made by a newer snnjax.
    """
    try:
        return path.is_dir() and bool(checked_note(path))
    except DamagedCheckpointError:
        return False


def damaged(path: Path, error: Exception) -> DamagedCheckpointError:
    """The error about a checkpoint that could not be read, in one sentence."""
    reason = " ".join(str(error).split())
    # TensorStore appends pages of its own settings.
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
        raise damaged(path, error) from error


def _written_down(path: Path) -> dict[str, int] | None:
    """The sizes that were written down; None where there are none."""
    try:
        return dict(json.loads((path / _SIZES).read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise damaged(path, error) from error


def _sizes(path: Path) -> dict[str, int]:
    files = (file for file in path.rglob("*") if file.is_file() and _SIZES not in file.name)
    return {str(file.relative_to(path)): file.stat().st_size for file in sorted(files)}


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return None
