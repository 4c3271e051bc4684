"""Checkpoints of the whole `TrainState`, one folder per step, written by Orbax.

    FOLDER/00000440/        the state after 440 steps
        sizes.json          size of every other file, to detect damage
        ...                 Orbax' files, with the note of `training.checkpoints.format`

A checkpoint gets its name only when it is complete, and loses it before it is deleted, so that a
process killed at any moment leaves complete checkpoints only. One that is damaged later is skipped
for the one before. Loading reads arrays and JSON; it runs no code. Arrays may lie on several
devices, and on other devices in reading than in writing.
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

_DIGITS = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Writing:
    """A checkpoint that is being written.

    Attributes:
        path: Path of the complete checkpoint.
        part: Path until then.
        response: Orbax' handle of the writing threads.
    """

    path: Path
    part: Path
    response: Any

    def finish(self) -> Path:
        """Waits until everything is written and gives the checkpoint its name.

        Raises:
            Exception: Any error of writing; the name is then unchanged.
        """
        self.response.result()
        if is_leader():
            write_sizes(self.part)
            _take_name(self.path)
            self.part.rename(self.path)
        return self.path


def begin(folder: Path, state: TrainState, *, score: float | None = None) -> Writing:
    """Starts to write a checkpoint named after the step of the state, and returns early.

    Args:
        folder: Folder of the checkpoints.
        state: State to save; it may be donated to the next step at once.
        score: `Task.score` of the evaluation at this step, by which `best` chooses.

    Returns:
        The checkpoint being written. On `finish` it replaces one of the same name.
    """
    from orbax.checkpoint import v1 as ocp

    path = step_path(folder, int(state.step))
    part = path.with_name(f"{path.name}.part")
    metadata = note(state, score=score)
    response = ocp.save_async(
        str(part.resolve()), _undonated(state), custom_metadata=metadata, overwrite=True
    )
    return Writing(path, part, response)


def save(folder: Path, state: TrainState, *, score: float | None = None) -> Path:
    """Writes a checkpoint and waits for it; an existing complete one is kept.

    Args:
        folder: Folder of the checkpoints.
        state: State to save.
        score: `Task.score` of the evaluation at this step, by which `best` chooses.

    Returns:
        The checkpoint.
    """
    path = step_path(folder, int(state.step))
    return path if is_complete(path) else begin(folder, state, score=score).finish()


def load(path: Path, state: TrainState) -> TrainState:
    """Reads a checkpoint into the shapes, types and devices of another state.

    Args:
        path: The checkpoint.
        state: A state of the same model, such as the one before the first step. Its devices and
            shardings may differ from those of the saved state.

    Raises:
        DamagedCheckpointError: It cannot be read.
        CheckpointError: It belongs to another model, or was made by a newer snnjax.
    """
    from orbax.checkpoint import v1 as ocp

    note = checked_note(path)
    form = saved_form(state, note["schema"], note.get("leaves", {}))
    check_model(path, note, form)
    try:
        tree = _with_shardings(ocp.load(str(path.resolve()), form), form)
    except (MemoryError, PermissionError, jax.errors.JaxRuntimeError):
        raise  # no fault of the checkpoint
    except Exception as error:
        raise damage(path, error) from error
    return migrate(tree, note["schema"], state)


def load_newest(
    folder: Path, state: TrainState, *, warn: Callable[[str], None]
) -> TrainState | None:
    """Reads the newest readable checkpoint.

    Args:
        folder: Folder of the checkpoints.
        state: As in `load`.
        warn: Called with a sentence about each damaged checkpoint that is skipped.

    Returns:
        Its state; None if there is no checkpoint.

    Raises:
        CheckpointError: All of them are damaged; or one belongs to another model, or was made by a
            newer snnjax.
    """
    found = steps(folder)
    if jax.process_count() > 1:
        found = _common_newest(folder, found, warn)
    for step in reversed(found):
        try:
            return load(step_path(folder, step), state)
        except DamagedCheckpointError as error:
            if jax.process_count() > 1:
                raise  # other processes may have read theirs
            warn(f"{error.damage}: passed over for the one before it")
    if not found:
        return None
    raise CheckpointError(
        f"none of the {len(found)} checkpoints in {folder} can be read: bring them back from a "
        "copy, or delete that folder to train from the first step again"
    )


def _common_newest(folder: Path, found: list[int], warn: Callable[[str], None]) -> list[int]:
    """The newest checkpoint that process 0 finds complete, on every process."""

    def choose() -> str:
        for step in reversed(found):
            try:
                checked_note(step_path(folder, step))
                return str(step)
            except DamagedCheckpointError as error:
                warn(f"{error.damage}: passed over for the one before it")
        return str(found[-1]) if found else ""

    chosen = broadcast(choose)
    return [int(chosen)] if chosen else []


def steps(folder: Path) -> list[int]:
    """Steps that have a checkpoint, possibly damaged, in rising order."""
    if not folder.is_dir():
        return []
    names = [path.name for path in folder.iterdir() if path.is_dir()]
    return sorted(int(name) for name in names if name.isdecimal())


def newest(folder: Path) -> Path | None:
    """The newest complete checkpoint, or None."""
    paths = (step_path(folder, step) for step in reversed(steps(folder)))
    return next(filter(is_complete, paths), None)


def best(folder: Path) -> Path | None:
    """The complete checkpoint with the highest score; of equal ones the first."""
    paths = [path for step in steps(folder) if is_complete(path := step_path(folder, step))]
    scored = [(saved_score(checked_note(path)), path) for path in paths]
    scored = [(score, path) for score, path in scored if score is not None]
    return max(scored, key=lambda pair: pair[0])[1] if scored else None


def prune(folder: Path, *, keep: int, spare: int | None = None, last: int | None = None) -> None:
    """Deletes old checkpoints, and remains of a killed run.

    Args:
        folder: Folder of the checkpoints.
        keep: Number of newest complete checkpoints to keep.
        spare: Step of one more to keep, the best one.
        last: Step that training has reached. Checkpoints of later steps were skipped as damaged:
            they stay until their step is reached again.
    """
    reached = [step for step in steps(folder) if last is None or step <= last]
    good = [step for step in reached if is_complete(step_path(folder, step))]
    for step in set(reached) - set(good[-keep:]):
        if step != spare or step not in good:
            _take_name(step_path(folder, step))
    delete_partial(folder)


def delete_partial(folder: Path) -> None:
    """Deletes partial checkpoints: unfinished ones, and those whose name was taken."""
    if folder.is_dir():
        for path in folder.iterdir():
            if not path.name.isdecimal():
                shutil.rmtree(path, ignore_errors=True)


def _take_name(path: Path) -> None:
    """Renames a checkpoint, so that the next `delete_partial` deletes it.

    Renaming is one operation and deleting many: the name never refers to a partial checkpoint.
    """
    if path.exists():
        away = path.with_name(f"{path.name}.deleted")
        shutil.rmtree(away, ignore_errors=True)
        path.rename(away)


@jax.jit
def _copied(state: PyTree) -> PyTree:
    return jax.tree.map(jnp.copy, state)


def _undonated(state: TrainState) -> TrainState:
    """A state whose buffers no training step overwrites while they are written to disk."""
    # Orbax copies arrays to the host before it returns. On a CPU it copies nothing and keeps views
    # of buffers that are donated to the next training step.
    platforms = {device.platform for device in state.step.sharding.device_set}
    return _copied(state) if platforms == {"cpu"} else state


def _with_shardings(tree: PyTree, form: PyTree) -> PyTree:
    """Arrays with the requested shardings: Orbax gives keys that of their raw words, of rank 1."""
    return jax.tree.map(
        lambda x, like: x if x.sharding == like.sharding else jax.device_put(x, like.sharding),
        tree,
        form,
    )


def step_path(folder: Path, step: int) -> Path:
    """Path of the checkpoint of a step, existing or not."""
    return folder / f"{step:0{_DIGITS}}"
