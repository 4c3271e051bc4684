"""Checkpoints written in the background while training goes on.

    with Saver(folder, keep=2, step=start) as saver:
        saver.save(state)           waits for the previous save, copies the state and returns
        saver.wait()                waits for the checkpoint and the deletion of old ones

One checkpoint is written at a time. The next call raises an error of the writing thread, such as a
full disk, in the training thread.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from snnjax.training.checkpoints import store
from snnjax.training.multihost import is_leader
from snnjax.training.state import TrainState

__all__ = ["Saver"]


class Saver:
    """Writes the checkpoints of one run.

    Args:
        folder: Folder of the checkpoints.
        keep: Number of newest checkpoints to keep.
        step: Number of earlier steps; a checkpoint of this step may already exist.
    """

    def __init__(self, folder: Path, *, keep: int, step: int):
        self.folder, self.keep = folder, keep
        # A resumed run starts at a saved step, which need not be written again.
        self.saved = {step} & set(store.steps(folder))
        self.writing: Future[None] | None = None
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
        # In the training thread: it copies the state, before the next step overwrites its buffers.
        writing = store.begin(self.folder, state, score=score)
        self.saved.add(step)
        self.writing = self.thread.submit(self._finish, writing, step, spare)
        return True

    def wait(self) -> None:
        """Waits until the checkpoint being written is complete.

        Raises:
            Exception: An error of writing it.
        """
        # Cleared first, so that an error is raised once.
        writing, self.writing = self.writing, None
        if writing is not None:
            writing.result()

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

    def _finish(self, writing: store.Writing, step: int, spare: int | None) -> None:
        try:
            writing.finish()
        except Exception:
            # A partial checkpoint would keep a full disk full.
            if is_leader():
                store.delete_partial(self.folder)
            raise
        if is_leader():
            # After the new one is complete: there is never less than one good checkpoint.
            store.prune(self.folder, keep=self.keep, spare=spare, last=step)
