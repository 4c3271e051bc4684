"""Checkpoints written beside the training: the next steps run while the last state is written.

    with Saver(folder, keep=2, step=start) as saver:
        saver.save(state)           waits for the save before, copies the state and returns
        saver.wait()                until the checkpoint is whole and the old ones are gone

One checkpoint is written at a time. What goes wrong in the writing thread, a full disk say, is
raised by the next call in the thread that trains.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from snnjax.training.checkpoints import store
from snnjax.training.multihost import leads
from snnjax.training.state import TrainState

__all__ = ["Saver"]


class Saver:
    """Writes the checkpoints of one run.

    Args:
        folder: Where the checkpoints are.
        keep: How many of the newest ones stay.
        step: Steps done before; a checkpoint of that step is there already, if of any.
    """

    def __init__(self, folder: Path, *, keep: int, step: int):
        self.folder, self.keep = folder, keep
        self.saved = {step} & set(store.steps(folder))
        self.writing: Future[None] | None = None
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        if leads():
            store.sweep(folder)

    def save(
        self, state: TrainState, *, accuracy: float | None = None, spare: int | None = None
    ) -> bool:
        """Starts to write a checkpoint, where there is none of this step.

        Args:
            state: What to save; it may be donated to the next step at once.
            accuracy: Of the evaluation at this step.
            spare: The step of the best checkpoint, which stays whatever its age.

        Returns:
            Whether there was none.

        Raises:
            Exception: Whatever went wrong in writing the checkpoint before.
        """
        self.wait()
        step = int(state.step)
        if step in self.saved:
            return False
        writing = store.begin(self.folder, state, accuracy=accuracy)
        self.saved.add(step)
        self.writing = self.thread.submit(self._finish, writing, step, spare)
        return True

    def wait(self) -> None:
        """Waits until what was to be saved is saved.

        Raises:
            Exception: Whatever went wrong in writing it.
        """
        writing, self.writing = self.writing, None
        if writing is not None:
            writing.result()

    def check(self) -> None:
        """Raises what went wrong in writing, if it has already; does not wait."""
        if self.writing is not None and self.writing.done():
            self.wait()

    def rewind(self, step: int) -> None:
        """Forgets the checkpoints after a step, as they are going to be made again."""
        self.saved = {saved for saved in self.saved if saved <= step}

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Waits; an error that is leaving already is not replaced by one of the writing thread."""
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
            # Half a checkpoint on a full disk is in the way of everything else.
            if leads():
                store.sweep(self.folder)
            raise
        if leads():
            store.prune(self.folder, keep=self.keep, spare=spare, last=step)
