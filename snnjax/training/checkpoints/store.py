"""Checkpoints of the whole `TrainState`, one folder per step, written by Orbax.

    FOLDER/00000440/        the state after 440 steps
        manifest.json       note and digests of all other files, see `checkpoints.integrity`
        ...                 files of Orbax

A checkpoint gets its name once it is complete and loses it before it is deleted, so a process
killed at any time leaves only complete checkpoints. A checkpoint damaged later is skipped in favour
of the previous one. Nothing else in the folder is touched; a file that a user put into a checkpoint
moves to NAME.kept when the checkpoint is deleted. Loading reads arrays and JSON and executes no
code. Arrays may be on several devices, and loaded onto other devices than they were saved from.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from snnjax.training.checkpoints.format import check_model, migrate, note, saved_form, saved_score
from snnjax.training.checkpoints.integrity import (
    checked_note,
    damage,
    flush_folder,
    has_digests,
    is_complete,
    is_own_file,
    write_manifest,
)
from snnjax.training.errors import CheckpointError, DamagedCheckpointError
from snnjax.training.multihost import broadcast, is_leader
from snnjax.training.state import TrainState
from snnjax.typing import PyTree

__all__ = [
    "Content",
    "Writing",
    "begin",
    "best",
    "check_folder",
    "check_read_back",
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
# An unfinished checkpoint, also under Orbax' own temporary name, and one renamed for deletion.
_PARTIAL = re.compile(r"\d{8,}(\.part)?(\.orbax-checkpoint-tmp.*)|\d{8,}\.(part|deleted)")
# Orbax expands patterns in a path, and TensorStore takes others for the address of a server.
_LITERAL = re.compile(r"[\w/.,=+@ ()#&'!~%$;^-]*")


def _ignore(text: str) -> None:
    del text


@dataclasses.dataclass(frozen=True, eq=False)
class Writing:
    """Checkpoint in the course of writing.

    Attributes:
        path: Path of the complete checkpoint.
        part: Path of the partial checkpoint.
        note: Note of the checkpoint, see `format.note`.
        response: Handle of Orbax' writing threads.
        alias: Alias of the folder during the writing.
    """

    path: Path
    part: Path
    note: dict[str, Any]
    response: Any
    alias: contextlib.ExitStack

    def finish(self, *, flush_records: Callable[[], None] = lambda: None) -> Path:
        """Waits until everything is written, and gives the checkpoint its name.

        Args:
            flush_records: Called before the checkpoint gets its name.

        Raises:
            Exception: An error of writing; the checkpoint then keeps its partial name.
        """
        with self.alias:
            # On process 0 it returns once all processes have written.
            self.response.result()
        if is_leader():
            write_manifest(self.part, self.note)
            flush_records()
            _take_name(self.path)
            # Last, and atomic: only a complete checkpoint has a name of digits.
            self.part.rename(self.path)
            for folder in self.path.parents[:2]:  # the second holds the name of the first
                flush_folder(folder)
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
    text = note(state, score=score)
    with contextlib.ExitStack() as alias:
        literal = alias.enter_context(_literal_path(part))
        # `overwrite` removes what a killed run left under the partial name. The schema tells an
        # older snnjax that it cannot read this checkpoint.
        response = ocp.save_async(
            literal,
            _copy_if_aliased(state),
            custom_metadata={"schema": text["schema"]},
            overwrite=True,
        )
        return Writing(path, part, text, response, alias.pop_all())


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


def load(path: Path, state: TrainState, *, warn: Callable[[str], None] = _ignore) -> TrainState:
    """Reads a checkpoint with the shapes, dtypes and devices of another state.

    Args:
        path: Path of the checkpoint.
        state: State of the same model, such as the initial one; its devices and shardings may
            differ from those of the saved state.
        warn: Called with a sentence if the checkpoint is older than digests.

    Raises:
        DamagedCheckpointError: The checkpoint is damaged.
        CheckpointError: The checkpoint is of another model, or was made by a newer snnjax.
    """
    loaded = _load(path, state, digests=True)
    if not has_digests(path):
        warn(
            f"the checkpoint {path} has no digests, since an earlier version wrote it: a changed "
            "number in it would not be noticed"
        )
    return loaded


def _load(path: Path, state: TrainState, *, digests: bool) -> TrainState:
    # Files and model first: both are cheap, and Orbax names neither fault in one sentence.
    note = checked_note(path, digests=digests)
    form = saved_form(state, note["schema"], note.get("leaves", {}))
    check_model(path, note, form)
    tree = _read(path, form)
    # Without digests the note has no step, and the name alone may be wrong.
    if path.name.isdecimal() and int(path.name) != int(tree.step):
        raise damage(path, ValueError(f"its state is of step {int(tree.step)}"))
    return migrate(tree, note["schema"], state)


def _read(path: Path, form: PyTree) -> PyTree:
    """Reads arrays in the shapes, dtypes and shardings of a tree."""
    from orbax.checkpoint import v1 as ocp

    try:
        with _literal_path(path) as literal:
            return _with_shardings(ocp.load(literal, form), form)
    except (MemoryError, PermissionError, CheckpointError, jax.errors.JaxRuntimeError):
        raise  # no fault of the checkpoint
    # Orbax and TensorStore raise errors of many classes for files that are damaged.
    except Exception as error:
        raise damage(path, error) from error


def load_newest(
    folder: Path, state: TrainState, *, warn: Callable[[str], None]
) -> TrainState | None:
    """Reads the newest readable checkpoint.

    Args:
        folder: Folder of the checkpoints.
        state: State as in `load`.
        warn: Called with a sentence about each skipped damaged checkpoint, and if the checkpoint is
            older than digests.

    Returns:
        The state; None without checkpoints.

    Raises:
        CheckpointError: All checkpoints are damaged, or one is of another model or was made by a
            newer snnjax.
    """
    numbers = steps(folder)
    if jax.process_count() > 1:
        return _load_common_newest(folder, numbers, state, warn)
    refused: list[CheckpointError] = []
    for step in reversed(numbers):
        path = step_path(folder, step)
        try:
            loaded = load(path, state, warn=warn)
        except DamagedCheckpointError as error:
            warn(_skipped(error))
        except CheckpointError as error:
            # All checkpoints of a run are of one model. Without digests, one that seems to be of
            # another one is damaged if an earlier one fits.
            if has_digests(path):
                raise
            refused.append(error)
        else:
            for error in refused:
                warn(f"{error} (passed over for the one before it, which fits)")
            return loaded
    if refused:
        raise refused[0]
    if not numbers:
        return None
    raise CheckpointError(
        f"none of the {len(numbers)} checkpoints in {folder} can be read: bring them back from a "
        "copy, or delete that folder to train from the first step again"
    )


def _skipped(error: DamagedCheckpointError) -> str:
    return f"{error.damage}: passed over for the one before it"


def _load_common_newest(
    folder: Path, numbers: list[int], state: TrainState, warn: Callable[[str], None]
) -> TrainState | None:
    """Reads the newest complete checkpoint as seen by process 0, on every process."""
    if not (chosen := _common_newest(folder, numbers, warn)):
        return None
    # Process 0 compared the digests. An error is final: other processes may have read theirs.
    return _load(step_path(folder, int(chosen)), state, digests=False)


def _common_newest(folder: Path, numbers: list[int], warn: Callable[[str], None]) -> str:
    """Step of the newest complete checkpoint as seen by process 0; empty without checkpoints."""
    # Views of a shared folder may differ for a moment, and all processes must load the same step.

    def choose() -> str:
        for step in reversed(numbers):
            try:
                checked_note(step_path(folder, step))
                return str(step)
            except DamagedCheckpointError as error:
                warn(_skipped(error))
        return str(numbers[-1]) if numbers else ""

    return broadcast(choose)


def steps(folder: Path) -> list[int]:
    """Steps with a checkpoint, possibly damaged, in ascending order."""
    if not folder.is_dir():
        return []
    names = [path.name for path in folder.iterdir() if path.is_dir()]
    # A folder of a user, such as "2026", is no checkpoint.
    return sorted(
        int(name)
        for name in names
        if name.isdecimal() and step_path(folder, int(name)).name == name
    )


def newest(folder: Path, *, warn: Callable[[str], None] = _ignore) -> Path | None:
    """Path of the newest undamaged checkpoint, or None.

    Args:
        folder: Folder of the checkpoints.
        warn: Called with a sentence about each skipped damaged checkpoint.
    """
    paths = (step_path(folder, step) for step in reversed(steps(folder)))
    return next((path for path in paths if _checked(path, warn)), None)


def best(folder: Path, *, warn: Callable[[str], None] = _ignore) -> Path | None:
    """Path of the undamaged checkpoint with the highest score; the first of equal ones.

    Args:
        folder: Folder of the checkpoints.
        warn: Called with a sentence about each skipped damaged checkpoint.
    """
    scored = []
    for step in steps(folder):
        path = step_path(folder, step)
        # Digests of the winner alone are compared: it takes time to read all.
        found = _checked(path, warn, digests=False)
        if found and (score := saved_score(found)) is not None:
            scored.append((-score, step, path))
    return next((path for _, _, path in sorted(scored) if _checked(path, warn)), None)


def _checked(
    path: Path, warn: Callable[[str], None], *, digests: bool = True
) -> dict[str, Any] | None:
    """Note of a checkpoint; None, after a warning, if it is damaged."""
    try:
        return checked_note(path, digests=digests)
    except DamagedCheckpointError as error:
        warn(_skipped(error))
        return None


def prune(
    folder: Path,
    *,
    keep: int,
    spare: int | None = None,
    last: int | None = None,
    is_sound: Callable[[Path], bool] = is_complete,
) -> None:
    """Deletes old checkpoints, and remains of a killed run.

    Args:
        folder: Folder of the checkpoints.
        keep: Number of newest undamaged checkpoints to keep.
        spare: Step of the best checkpoint, which is kept as well.
        last: Step that training has reached; later checkpoints, which were skipped as damaged, stay
            until their step is reached again.
        is_sound: `(path) -> bool`: True for an undamaged checkpoint.
    """
    reached = [step for step in steps(folder) if last is None or step <= last]
    good = [step for step in reached if is_sound(step_path(folder, step))]
    for step in set(reached) - set(good[-keep:]):
        path = step_path(folder, step)
        # A folder without any file of a checkpoint is none that a run wrote.
        if (step != spare or step not in good) and any(map(is_own_file, _contents(path))):
            _take_name(path)
    delete_partial(folder)


def delete_partial(folder: Path) -> None:
    """Deletes partial checkpoints: unfinished ones, and those renamed for deletion."""
    if folder.is_dir():
        for path in folder.iterdir():
            if _PARTIAL.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)


def _take_name(path: Path) -> None:
    """Renames a checkpoint for deletion by the next `delete_partial`."""
    if not os.path.lexists(path):
        return
    # Files of a user are moved, never deleted.
    foreign = [name for name in _contents(path) if not is_own_file(name)]
    if path.is_symlink() or not path.is_dir() or len(foreign) == len(_contents(path)) > 0:
        path.rename(_free_path(path))
        return
    if foreign:
        kept = _free_path(path)
        kept.mkdir()
        for name in foreign:
            (path / name).rename(kept / name)
    # Renaming is one operation and deleting many: the name never refers to a partial checkpoint.
    away = path.with_name(f"{path.name}.deleted")
    shutil.rmtree(away, ignore_errors=True)
    path.rename(away)


def _contents(path: Path) -> list[Path]:
    """Names in a folder; empty for anything else."""
    return [Path(item.name) for item in path.iterdir()] if path.is_dir() else []


def _free_path(path: Path) -> Path:
    """First unused path for files that the run did not write: `NAME.kept`, `NAME.kept-2`, ..."""
    names = (f"{path.name}.kept{f'-{n}' if n > 1 else ''}" for n in itertools.count(1))
    return next(p for name in names if not os.path.lexists(p := path.with_name(name)))


def check_folder(folder: Path) -> None:
    """Checks that checkpoints in a folder can be read again.

    Raises:
        CheckpointError: The path has characters with a meaning for the storage library.
    """
    with _literal_path(step_path(folder, 0)):
        pass


@contextlib.contextmanager
def _literal_path(path: Path) -> Iterator[str]:
    """Absolute path that the storage library takes literally, valid inside the block."""
    resolved = path.parent.resolve() / path.name
    if _LITERAL.fullmatch(str(resolved)):
        yield str(resolved)
        return
    refusal = CheckpointError(
        f"checkpoints cannot be kept in {str(path.parent)!a}: its name has characters such as "
        "[ ] * ? \\ or a colon; choose another --out"
    )
    # Each process would need the same alias, on machines that share no temporary folder.
    if jax.process_count() > 1:
        raise refusal
    with tempfile.TemporaryDirectory(prefix="snnjax-") as folder:
        alias = Path(folder).resolve() / "checkpoints"
        if not _LITERAL.fullmatch(str(alias)):
            raise refusal
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            alias.symlink_to(resolved.parent, target_is_directory=True)
        except OSError:  # a platform without links
            raise refusal from None
        yield str(alias / path.name)


@dataclasses.dataclass(frozen=True, eq=False)
class Content:
    """Shapes and digests of a state in memory, to compare with its checkpoint.

    Attributes:
        form: Shapes, dtypes and shardings to read a checkpoint with.
        digests: SHA-256 of each array, of the parts on this process.
    """

    form: PyTree
    digests: list[str]

    @classmethod
    def measure(cls, state: TrainState) -> Content:
        """Content of a state, which the next step may then overwrite."""
        sharding = _host_sharding()
        form = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding or x.sharding), state
        )
        return cls(form, _array_digests(state))


def check_read_back(path: Path, content: Content) -> None:
    """Reads a checkpoint back and compares it with the state that it was written from.

    Args:
        path: Path of the checkpoint.
        content: Content of the state.

    Raises:
        CheckpointError: The checkpoint cannot be read, or its arrays differ.
    """
    try:
        same = _array_digests(_read(path, content.form)) == content.digests
        fault = "its arrays differ"
    except DamagedCheckpointError as error:
        same, fault = False, str(error.__cause__ or error)[:160]
    if not same:
        raise CheckpointError(
            f"the checkpoint {path}, read back, is not the state that was saved ({fault}): its "
            "folder cannot keep checkpoints; choose another --out, on another disk"
        )


def _host_sharding() -> Any:
    """Sharding onto the memory of the host; None if arrays have to stay on their devices."""
    # Of several processes each holds a part of an array only.
    if jax.process_count() > 1:
        return None
    try:
        return jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX was started without its CPU backend
        return None


def _array_digests(tree: PyTree) -> list[str]:
    return [_array_digest(leaf) for leaf in jax.tree.leaves(tree)]


def _array_digest(array: jax.Array) -> str:
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    several = jax.process_count() > 1
    parts = [shard.data for shard in array.addressable_shards] if several else [array]
    words = hashlib.sha256()
    for part in parts:
        words.update(np.asarray(part).tobytes())
    return words.hexdigest()


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
