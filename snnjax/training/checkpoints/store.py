"""Checkpoints of the whole `TrainState`, one folder per step, written by Orbax.

    FOLDER/00000440/        the state after 440 steps
        sizes.json          the bytes of every other file, by which damage is found
        ...                 Orbax' files, with the note of `training.checkpoints.format`

A checkpoint appears under its name only when it is complete, and disappears from its name before
it is deleted, so that killing the process at any moment leaves whole checkpoints only. One that
was damaged afterwards is passed over for the one before. Loading reads arrays and JSON; it runs no
code. Arrays may lie on several devices, and on other devices when they are read than when they
were written.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from snnjax.training.checkpoints.format import migrate, note, refuse, saved_form
from snnjax.training.checkpoints.integrity import checked_note, damaged, whole, write_sizes
from snnjax.training.errors import CheckpointError, DamagedCheckpointError
from snnjax.training.multihost import decided, leads
from snnjax.training.state import TrainState
from snnjax.typing import PyTree

__all__ = [
    "Writing",
    "begin",
    "best",
    "load",
    "load_newest",
    "newest",
    "of_step",
    "prune",
    "save",
    "steps",
    "sweep",
    "whole",
]

_DIGITS = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Writing:
    """A checkpoint that is being written.

    Attributes:
        path: Where it appears once it is complete.
        part: Where it is until then.
        response: Orbax' handle of the threads that write.
    """

    path: Path
    part: Path
    response: Any

    def finish(self) -> Path:
        """Waits until everything is written and gives the checkpoint its name.

        Raises:
            Exception: Whatever went wrong in writing; the name is then as it was.
        """
        self.response.result()
        if leads():
            write_sizes(self.part)
            _rename_away(self.path)
            self.part.rename(self.path)
        return self.path


def begin(folder: Path, state: TrainState, *, accuracy: float | None = None) -> Writing:
    """Starts to write a checkpoint named after the step of the state; it returns early.

    Args:
        folder: Where the checkpoints are.
        state: What to save; it may be donated to the next step at once.
        accuracy: Of the evaluation at this step, by which `best` chooses.

    Returns:
        What to finish. A checkpoint that has the name already is replaced then.
    """
    from orbax.checkpoint import v1 as ocp

    path = of_step(folder, int(state.step))
    part = path.with_name(f"{path.name}.part")
    said = note(state, accuracy=accuracy)
    response = ocp.save_async(
        str(part.resolve()), _safe(state), custom_metadata=said, overwrite=True
    )
    return Writing(path, part, response)


def save(folder: Path, state: TrainState, *, accuracy: float | None = None) -> Path:
    """Writes a checkpoint and waits for it; a whole one that is there already stays.

    Args:
        folder: Where the checkpoints are.
        state: What to save.
        accuracy: Of the evaluation at this step, by which `best` chooses.

    Returns:
        The checkpoint.
    """
    path = of_step(folder, int(state.step))
    return path if whole(path) else begin(folder, state, accuracy=accuracy).finish()


def load(path: Path, state: TrainState) -> TrainState:
    """Reads a checkpoint into the shape, types and devices of another state.

    Args:
        path: The checkpoint.
        state: A state of the same model, such as the one before the first step. Its devices and
            shardings need not be those that the checkpoint was written from.

    Raises:
        DamagedCheckpointError: It cannot be read.
        CheckpointError: It is of another model, or of a newer snnjax.
    """
    from orbax.checkpoint import v1 as ocp

    said = checked_note(path)
    form = saved_form(state, said["schema"], said.get("leaves", {}))
    refuse(path, said, form)
    try:
        tree = _laid_out(ocp.load(str(path.resolve()), form), form)
    except (MemoryError, PermissionError, jax.errors.JaxRuntimeError):
        raise  # no fault of the checkpoint
    except Exception as error:
        raise damaged(path, error) from error
    return migrate(tree, said["schema"], state)


def load_newest(
    folder: Path, state: TrainState, *, warn: Callable[[str], None]
) -> TrainState | None:
    """Reads the newest checkpoint that can be read.

    Args:
        folder: Where the checkpoints are.
        state: As in `load`.
        warn: Called with a sentence about each damaged one that is passed over.

    Returns:
        Its state; None where there is no checkpoint.

    Raises:
        CheckpointError: All of them are damaged; or one is of another model or of a newer snnjax.
    """
    found = steps(folder)
    if jax.process_count() > 1:
        found = _agreed(folder, found, warn)
    for step in reversed(found):
        try:
            return load(of_step(folder, step), state)
        except DamagedCheckpointError as error:
            if jax.process_count() > 1:
                raise  # the others may have read theirs
            warn(f"{error.damage}: passed over for the one before it")
    if not found:
        return None
    raise CheckpointError(
        f"none of the {len(found)} checkpoints in {folder} can be read: bring them back from a "
        "copy, or delete that folder to train from the first step again"
    )


def _agreed(folder: Path, found: list[int], warn: Callable[[str], None]) -> list[int]:
    """The newest checkpoint that process 0 finds whole, by the sizes of its files; for all."""

    def choose() -> str:
        for step in reversed(found):
            try:
                checked_note(of_step(folder, step))
                return str(step)
            except DamagedCheckpointError as error:
                warn(f"{error.damage}: passed over for the one before it")
        return str(found[-1]) if found else ""

    chosen = decided(choose)
    return [int(chosen)] if chosen else []


def steps(folder: Path) -> list[int]:
    """The steps of which there is a checkpoint, in rising order; it may be damaged."""
    if not folder.is_dir():
        return []
    names = [path.name for path in folder.iterdir() if path.is_dir()]
    return sorted(int(name) for name in names if name.isdecimal())


def newest(folder: Path) -> Path | None:
    """The last checkpoint that is whole, if there is any."""
    paths = (of_step(folder, step) for step in reversed(steps(folder)))
    return next(filter(whole, paths), None)


def best(folder: Path) -> Path | None:
    """The whole checkpoint with the highest accuracy; of equal ones the first."""
    paths = [path for step in steps(folder) if whole(path := of_step(folder, step))]
    judged = [(checked_note(path).get("accuracy"), path) for path in paths]
    judged = [(accuracy, path) for accuracy, path in judged if accuracy is not None]
    return max(judged, key=lambda pair: pair[0])[1] if judged else None


def prune(folder: Path, *, keep: int, spare: int | None = None, last: int | None = None) -> None:
    """Deletes checkpoints, and what a killed run left behind.

    Args:
        folder: Where the checkpoints are.
        keep: How many of the newest ones stay, damaged ones not among them.
        spare: The step of one more that stays, the best one.
        last: The step that training has reached. Checkpoints of later steps were passed over as
            damaged: they stay until their step is reached again.
    """
    reached = [step for step in steps(folder) if last is None or step <= last]
    good = [step for step in reached if whole(of_step(folder, step))]
    for step in set(reached) - set(good[-keep:]):
        if step != spare or step not in good:
            _rename_away(of_step(folder, step))
    sweep(folder)


def sweep(folder: Path) -> None:
    """Deletes what is no checkpoint: half of one, or one whose name was taken away."""
    if folder.is_dir():
        for path in folder.iterdir():
            if not path.name.isdecimal():
                shutil.rmtree(path, ignore_errors=True)


def _rename_away(path: Path) -> None:
    """Takes a checkpoint its name, so that the next `sweep` deletes it.

    Deleting takes many operations, renaming one: the name never means half a checkpoint.
    """
    if path.exists():
        away = path.with_name(f"{path.name}.deleted")
        shutil.rmtree(away, ignore_errors=True)
        path.rename(away)


@jax.jit
def _copied(state: PyTree) -> PyTree:
    return jax.tree.map(jnp.copy, state)


def _safe(state: TrainState) -> TrainState:
    """A state whose buffers nobody overwrites while they are written.

    Orbax moves arrays to the host before it returns. On a CPU that moves nothing: it keeps views of
    buffers that the next training step is given to write into.
    """
    platforms = {device.platform for device in state.step.sharding.device_set}
    return _copied(state) if platforms == {"cpu"} else state


def _laid_out(tree: PyTree, form: PyTree) -> PyTree:
    """Arrays with the very shardings asked for: Orbax gives keys that of their words, a rank up."""
    return jax.tree.map(
        lambda x, like: x if x.sharding == like.sharding else jax.device_put(x, like.sharding),
        tree,
        form,
    )


def of_step(folder: Path, step: int) -> Path:
    """The checkpoint of a step, there or not."""
    return folder / f"{step:0{_DIGITS}}"
