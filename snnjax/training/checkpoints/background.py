"""Checkpoints written in the background while training goes on.

    with Saver(folder, keep=2, step=start) as saver:
        saver.save(state)           waits for the previous save, copies the state and returns
        saver.wait()                waits for the checkpoint and the deletion of old ones

One checkpoint is written at a time, and its digests are compared afterwards. The first one of a
session is also read back and compared with the state in memory, so that a folder that cannot keep
checkpoints is noticed. The next call raises an error of the writing thread, such as a full disk, in
the training thread.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import jax

from snnjax.training.checkpoints import store
from snnjax.training.checkpoints.integrity import checked_note, is_complete
from snnjax.training.errors import DamagedCheckpointError
from snnjax.training.multihost import broadcast, is_leader
from snnjax.training.state import TrainState

__all__ = ["Saver"]


class Saver:
    """Writes the checkpoints of one run.

    Args:
        folder: Folder of the checkpoints.
        keep: Number of newest checkpoints to keep.
        step: Number of earlier steps; a checkpoint of this step may already exist.
        warn: Called in the training thread with a sentence about a checkpoint that was damaged
            while it was written.
        flush_records: Called in the writing thread before a checkpoint gets its name.

    Raises:
        CheckpointError: The folder cannot keep checkpoints.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int,
        step: int,
        warn: Callable[[str], None] = lambda text: None,
        flush_records: Callable[[], None] = lambda: None,
    ):
        # Now: a run that could never be resumed should not take its first step.
        store.check_folder(folder)
        self.folder, self.keep = folder, keep
        self.warn, self.flush_records = warn, flush_records
        # A resumed run starts at a saved step, which need not be written again.
        self.saved = {step} & set(store.steps(folder))
        # Checkpoints whose digests were compared in this session.
        self.sound: set[str] = set()
        self.read_back = False
        self.writing: Future[str | None] | None = None
        # One thread: a second checkpoint would double the copy of the state on the host.
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        if is_leader():
            store.delete_partial(folder)

    def save(
        self, state: TrainState, *, score: float | None = None, spare: int | None = None
    ) -> bool:
        """Starts writing a checkpoint, unless one of this step exists.

        Args:
            state: State to save; the next step may overwrite it at once.
            score: Score of the evaluation at this step.
            spare: Step of the best checkpoint, kept at any age.

        Returns:
            True if a checkpoint is being written.

        Raises:
            Exception: An error of writing the previous checkpoint.
        """
        self.wait()
        step = int(state.step)
        if step in self.saved:
            return False
        content = None if self.read_back else store.Content.measure(state)
        # In the training thread: it copies the state, before the next step overwrites its buffers.
        writing = store.begin(self.folder, state, score=score)
        self.saved.add(step)
        several = jax.process_count() > 1
        self.writing = self.thread.submit(
            self._finish, writing, step, spare, None if several else content
        )
        if several and content:
            # Reading is a collective, which must not run beside those of the next steps, and not
            # before process 0 has given the checkpoint its name.
            self.wait()
            broadcast(lambda: "")
            store.check_read_back(writing.path, content)
        self.read_back = True
        return True

    def wait(self) -> None:
        """Waits until the checkpoint being written is complete.

        Raises:
            Exception: An error of writing it.
        """
        # Cleared first, so that an error is raised once.
        writing, self.writing = self.writing, None
        if writing is not None and (damage := writing.result()):
            self.warn(damage)

    def check(self) -> None:
        """Raises an error of the writing thread, if there is one, without waiting."""
        if self.writing is not None and self.writing.done():
            self.wait()

    def rewind(self, step: int) -> None:
        """Forgets the checkpoints after a step, which training repeats."""
        self.saved = {saved for saved in self.saved if saved <= step}

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Waits for the last checkpoint and raises its error, unless the block raised one."""
        del kind, trace
        try:
            self.wait()
        except Exception:
            if error is None:
                raise
        finally:
            self.thread.shutdown()

    def _finish(
        self, writing: store.Writing, step: int, spare: int | None, content: store.Content | None
    ) -> str | None:
        """Completes a checkpoint; returns a sentence if it was damaged while it was written."""
        try:
            path = writing.finish(flush_records=self.flush_records)
        except Exception:
            # A partial checkpoint would keep a full disk full.
            if is_leader():
                store.delete_partial(self.folder)
            raise
        if content:
            store.check_read_back(path, content)
        if not is_leader():
            return None
        try:
            checked_note(path)
        except DamagedCheckpointError as error:
            # The earlier ones stay: this one does not count.
            self.sound.discard(path.name)
            return f"{error.damage}: it was damaged while it was written, the one before it is kept"
        self.sound.add(path.name)
        # After the new one is complete: there is never less than one good checkpoint.
        store.prune(self.folder, keep=self.keep, spare=spare, last=step, is_sound=self._is_sound)
        # Only of those that exist: a long run makes many.
        self.sound &= {store.step_path(self.folder, n).name for n in store.steps(self.folder)}
        return None

    def _is_sound(self, path: Path) -> bool:
        """True for an undamaged checkpoint; reads each only once in a session."""
        sound = is_complete(path, digests=path.name not in self.sound)
        (self.sound.add if sound else self.sound.discard)(path.name)
        return sound
