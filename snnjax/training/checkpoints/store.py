"""Checkpoints of the whole `TrainState`, one folder per step, written by Orbax.

    FOLDER/00000440/        the state after 440 steps
        sizes.json          size of every other file, to detect damage
        ...                 files of Orbax, with the note of `training.checkpoints.format`

A checkpoint gets its name once it is complete and loses it before it is deleted, so a process
killed at any time leaves only complete checkpoints. A checkpoint damaged later is skipped in favour
of the previous one. Loading reads arrays and JSON and executes no code. Arrays may be on several
devices, and loaded onto other devices than they were saved from.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from snnjax.training.checkpoints.format import (
    check_model,
    migrate,
    note,
    saved_form,
    saved_score,
)
from snnjax.training.checkpoints.integrity import (
    checked_note,
    damage,
    is_complete,
    write_sizes,
)
from snnjax.training.errors import CheckpointError, DamagedCheckpointError
from snnjax.training.multihost import broadcast, is_leader
from snnjax.training.state import TrainState
from snnjax.typing import PyTree

__all__ = [
    "Writing",
    "begin",
    "best",
    "delete_partial",
    "load",
    "load_newest",
    "newest",
    "prune",
    "save",
    "step_path",
    "steps",
]

# Names sort by step in a listing of the folder.
_DIGITS = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Writing:
    """Checkpoint in the course of writing.

    Attributes:
        path: Path of the complete checkpoint.
        part: Path of the partial checkpoint.
        response: Handle of Orbax' writing threads.
    """

    path: Path
    part: Path
    response: Any

    def finish(self) -> Path:
        """Waits until everything is written, and gives the checkpoint its name.

        Raises:
            Exception: An error of writing; the checkpoint then keeps its partial name.
        """
        self.response.result()
        if is_leader():
            write_sizes(self.part)
            _take_name(self.path)
            # Last, and atomic: only a complete checkpoint has a name of digits.
            self.part.rename(self.path)
        return self.path


def begin(folder: Path, state: TrainState, *, score: float | None = None) -> Writing:
    """Starts writing a checkpoint named by the step of the state, and returns early.

    Args:
        folder: Folder of the checkpoints.
        state: State to save; the next step may overwrite it at once.
        score: `Task.score` of the evaluation at this step, by which `best` chooses.

    Returns:
        The checkpoint being written; its `finish` replaces an existing one of the same name.
    """
    from orbax.checkpoint import v1 as ocp

    path = step_path(folder, int(state.step))
    # Beside its final place: renaming is atomic only within one file system.
    part = path.with_name(f"{path.name}.part")
    metadata = note(state, score=score)
    # `overwrite` removes what a killed run left under the partial name.
    response = ocp.save_async(
        str(part.resolve()), _copy_if_aliased(state), custom_metadata=metadata, overwrite=True
    )
    return Writing(path, part, response)


def save(folder: Path, state: TrainState, *, score: float | None = None) -> Path:
    """Writes a checkpoint and waits for it, unless a complete one exists.

    Args:
        folder: Folder of the checkpoints.
        state: State to save.
        score: `Task.score` of the evaluation at this step, by which `best` chooses.

    Returns:
        Path of the checkpoint.
    """
    path = step_path(folder, int(state.step))
    return path if is_complete(path) else begin(folder, state, score=score).finish()


def load(path: Path, state: TrainState) -> TrainState:
    """Reads a checkpoint with the shapes, dtypes and devices of another state.

    Args:
        path: Path of the checkpoint.
        state: State of the same model, such as the initial one; its devices and shardings may
            differ from those of the saved state.

    Raises:
        DamagedCheckpointError: The checkpoint cannot be read.
        CheckpointError: The checkpoint is of another model, or was made by a newer snnjax.
    """
    from orbax.checkpoint import v1 as ocp

    # Sizes and model first: both are cheap, and Orbax names neither fault in one sentence.
    note = checked_note(path)
    form = saved_form(state, note["schema"], note.get("leaves", {}))
    check_model(path, note, form)
    try:
        tree = _with_shardings(ocp.load(str(path.resolve()), form), form)
    except (MemoryError, PermissionError, jax.errors.JaxRuntimeError):
        raise  # no fault of the checkpoint
    # Orbax and TensorStore raise errors of many classes for files that are damaged.
    except Exception as error:
        raise damage(path, error) from error
    return migrate(tree, note["schema"], state)


def load_newest(
    folder: Path, state: TrainState, *, warn: Callable[[str], None]
) -> TrainState | None:
    """Reads the newest readable checkpoint.

    Args:
        folder: Folder of the checkpoints.
        state: State as in `load`.
        warn: Called with a sentence about each skipped damaged checkpoint.

    Returns:
        The state; None without checkpoints.

    Raises:
        CheckpointError: All checkpoints are damaged, or one is of another model or was made by a
            newer snnjax.
    """
    numbers = steps(folder)
    if jax.process_count() > 1:
        numbers = _common_newest(folder, numbers, warn)
    for step in reversed(numbers):
        try:
            return load(step_path(folder, step), state)
        except DamagedCheckpointError as error:
            if jax.process_count() > 1:
                raise  # other processes may have read theirs
            warn(f"{error.damage}: passed over for the one before it")
    if not numbers:
        return None
    raise CheckpointError(
        f"none of the {len(numbers)} checkpoints in {folder} can be read: bring them back from a "
        "copy, or delete that folder to train from the first step again"
    )


def _common_newest(folder: Path, numbers: list[int], warn: Callable[[str], None]) -> list[int]:
    """Step of the newest complete checkpoint as seen by process 0, on every process."""
    # Views of a shared folder may differ for a moment, and all processes must load the same step.

    def choose() -> str:
        for step in reversed(numbers):
            try:
                checked_note(step_path(folder, step))
                return str(step)
            except DamagedCheckpointError as error:
                warn(f"{error.damage}: passed over for the one before it")
        return str(numbers[-1]) if numbers else ""

    chosen = broadcast(choose)
    return [int(chosen)] if chosen else []


def steps(folder: Path) -> list[int]:
    """Steps with a checkpoint, possibly damaged, in ascending order."""
    if not folder.is_dir():
        return []
    names = [path.name for path in folder.iterdir() if path.is_dir()]
    return sorted(int(name) for name in names if name.isdecimal())


def newest(folder: Path) -> Path | None:
    """Path of the newest complete checkpoint, or None."""
    paths = (step_path(folder, step) for step in reversed(steps(folder)))
    return next(filter(is_complete, paths), None)


def best(folder: Path) -> Path | None:
    """Path of the complete checkpoint with the highest score; the first of equal ones."""
    paths = [path for step in steps(folder) if is_complete(path := step_path(folder, step))]
    scored = [(saved_score(checked_note(path)), path) for path in paths]
    scored = [(score, path) for score, path in scored if score is not None]
    return max(scored, key=lambda pair: pair[0])[1] if scored else None


def prune(folder: Path, *, keep: int, spare: int | None = None, last: int | None = None) -> None:
    """Deletes old checkpoints, and remains of a killed run.

    Args:
        folder: Folder of the checkpoints.
        keep: Number of newest complete checkpoints to keep.
        spare: Step of the best checkpoint, which is kept as well.
        last: Step that training has reached; later checkpoints, which were skipped as damaged, stay
            until their step is reached again.
    """
    reached = [step for step in steps(folder) if last is None or step <= last]
    good = [step for step in reached if is_complete(step_path(folder, step))]
    for step in set(reached) - set(good[-keep:]):
        if step != spare or step not in good:
            _take_name(step_path(folder, step))
    delete_partial(folder)


def delete_partial(folder: Path) -> None:
    """Deletes partial checkpoints: unfinished ones, and those renamed for deletion."""
    if folder.is_dir():
        for path in folder.iterdir():
            if not path.name.isdecimal():
                shutil.rmtree(path, ignore_errors=True)


def _take_name(path: Path) -> None:
    """Renames a checkpoint for deletion by the next `delete_partial`."""
    # Renaming is one operation and deleting many: the name never refers to a partial checkpoint.
    if path.exists():
        away = path.with_name(f"{path.name}.deleted")
        shutil.rmtree(away, ignore_errors=True)
        path.rename(away)


@jax.jit
def _copy(state: PyTree) -> PyTree:
    return jax.tree.map(jnp.copy, state)


def _copy_if_aliased(state: TrainState) -> TrainState:
    """State in buffers that no training step overwrites while they are written to disk."""
    # Orbax copies arrays to the host before it returns, except on a CPU: there it keeps views of
    # buffers that are donated to the next training step.
    platforms = {device.platform for device in state.step.sharding.device_set}
    return _copy(state) if platforms == {"cpu"} else state


def _with_shardings(tree: PyTree, form: PyTree) -> PyTree:
    """Arrays with the requested shardings."""
    # Orbax returns keys with the sharding of their raw words, of rank 1.
    return jax.tree.map(
        lambda x, like: x if x.sharding == like.sharding else jax.device_put(x, like.sharding),
        tree,
        form,
    )


def step_path(folder: Path, step: int) -> Path:
    """Path of the checkpoint of a step, existing or not."""
    return folder / f"{step:0{_DIGITS}}"
