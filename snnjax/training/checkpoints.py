"""Checkpoints of the whole `TrainState`, one folder per step, written by Orbax.

    FOLDER/00000440/        the state after 440 steps

A checkpoint appears under its name only when it is complete, and disappears from its name before
it is deleted, so that killing the process at any moment leaves whole checkpoints only. Loading
reads arrays and JSON; it runs no code.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from snnjax.training.errors import CheckpointError
from snnjax.training.state import TrainState
from snnjax.typing import PyTree

__all__ = ["best", "load", "newest", "prune", "save", "steps"]

_DIGITS = 8
_SIZES = "sizes.json"


def save(folder: Path, state: TrainState, *, accuracy: float | None = None) -> Path:
    """Writes a checkpoint named after the step of the state; one that is there already stays.

    Args:
        folder: Where the checkpoints are.
        state: What to save.
        accuracy: Of the evaluation at this step, by which `best` chooses.

    Returns:
        The checkpoint.
    """
    from orbax.checkpoint import v1 as ocp

    path = folder / f"{int(state.step):0{_DIGITS}}"
    if not path.exists():
        note = {"leaves": _leaves(state), "accuracy": accuracy}
        ocp.save(str(path.resolve()), state, custom_metadata=note)
        part = path / f"{_SIZES}.part"
        part.write_text(json.dumps(_sizes(path)))
        part.rename(path / _SIZES)
    return path


def load(path: Path, state: TrainState) -> TrainState:
    """Reads a checkpoint into the shape, types and devices of another state.

    Args:
        path: The checkpoint.
        state: A state of the same model, such as the one before the first step.

    Raises:
        CheckpointError: It is of another model, or cannot be read.
    """
    from orbax.checkpoint import v1 as ocp

    _refuse_damage(path)
    _refuse_other_model(path, _note(path).get("leaves", {}), _leaves(state))
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    try:
        return ocp.load(str(path.resolve()), abstract)
    except Exception as error:
        raise CheckpointError(_unreadable(path, error)) from error


def steps(folder: Path) -> list[int]:
    """The steps of which there is a complete checkpoint, in rising order."""
    if not folder.is_dir():
        return []
    names = [path.name for path in folder.iterdir() if path.is_dir()]
    return sorted(int(name) for name in names if name.isdecimal())


def newest(folder: Path) -> Path | None:
    """The checkpoint of the last step, if there is any."""
    found = steps(folder)
    return _path(folder, found[-1]) if found else None


def best(folder: Path) -> Path | None:
    """The checkpoint with the highest accuracy; of equal ones the first."""
    judged = [(_accuracy(_path(folder, step)), -step) for step in steps(folder)]
    judged = [(accuracy, step) for accuracy, step in judged if accuracy is not None]
    return _path(folder, -max(judged)[1]) if judged else None


def prune(folder: Path, *, keep: int, spare: int | None = None) -> None:
    """Deletes checkpoints, and what a killed run left behind.

    Args:
        folder: Where the checkpoints are.
        keep: How many of the newest ones stay.
        spare: The step of one more that stays, the best one.
    """
    for step in steps(folder)[:-keep]:
        path = _path(folder, step)
        if step != spare:
            # Deleting takes many operations, renaming one: the name never means half a checkpoint.
            path.rename(path.with_name(f"{path.name}.deleted"))
    for path in folder.iterdir():
        if not path.name.isdecimal():
            shutil.rmtree(path, ignore_errors=True)


def _path(folder: Path, step: int) -> Path:
    return folder / f"{step:0{_DIGITS}}"


def _leaves(state: PyTree) -> dict[str, str]:
    """What identifies a model: the path, type and shape of every array."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): f"{x.dtype}{list(x.shape)}" for path, x in leaves}


def _note(path: Path) -> dict[str, Any]:
    from orbax.checkpoint import v1 as ocp

    try:
        return dict(ocp.metadata(str(path.resolve())).custom_metadata or {})  # type: ignore[arg-type]
    except Exception as error:
        raise CheckpointError(_unreadable(path, error)) from error


def _accuracy(path: Path) -> float | None:
    try:
        return _note(path).get("accuracy")
    except CheckpointError:
        return None


def _sizes(path: Path) -> dict[str, int]:
    files = (file for file in path.rglob("*") if file.is_file() and _SIZES not in file.name)
    return {str(file.relative_to(path)): file.stat().st_size for file in sorted(files)}


def _refuse_damage(path: Path) -> None:
    """Finds files cut short before Orbax does, who tells it by pages and forgets its tasks."""
    try:
        there = json.loads((path / _SIZES).read_text())
    except FileNotFoundError:  # killed just after saving: all else is complete
        return
    except ValueError as error:
        raise CheckpointError(_unreadable(path, error)) from error
    here = _sizes(path)
    for name, size in there.items():
        if here.get(name) != size:
            reason = ValueError(f"{name} has {here.get(name, 'no')} bytes instead of {size}")
            raise CheckpointError(_unreadable(path, reason))


def _unreadable(path: Path, error: Exception) -> str:
    reason = " ".join(str(error).split())
    # TensorStore appends pages of its own settings.
    short = reason if len(reason) <= 160 else reason[:160] + "..."
    return (
        f"the checkpoint {path} cannot be read ({type(error).__name__}: {short}): delete that "
        "folder to go on from the checkpoint before it"
    )


def _refuse_other_model(path: Path, saved: Mapping[str, str], here: Mapping[str, str]) -> None:
    differing = [name for name in {**saved, **here} if saved.get(name) != here.get(name)]
    if not differing:
        return
    shown = "; ".join(
        f"{name} is {saved.get(name, 'absent')} there and {here.get(name, 'absent')} here"
        for name in differing[:2]
    )
    more = f", and {len(differing) - 2} more" if len(differing) > 2 else ""
    raise CheckpointError(
        f"the checkpoint {path} is of another model: {shown}{more}. Leave out options that change "
        "the network, or train anew into another --out"
    )
