"""Records as TensorBoard events, if tensorboardX is installed (the extra `tensorboard`).

Events are written by the training thread, not through tensorboardX's own queue and thread, so that
an error such as a full disk reaches the caller.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snnjax.training.multihost import is_leader

__all__ = ["Events"]


class Events:
    """An event file; without tensorboardX, and on all processes but one, it discards everything.

    Args:
        folder: Folder of the file.
        start: Steps done before; TensorBoard drops later steps of an earlier file.
    """

    def __init__(self, folder: Path, *, start: int):
        self.file: Any = None
        if not is_leader():
            return
        try:
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto import event_pb2, summary_pb2
        except ImportError:
            return
        # Protocol buffers make their classes at run time: a type checker cannot see them.
        self.event: Any = event_pb2
        self.summary: Any = summary_pb2
        folder.mkdir(exist_ok=True)
        self.file = EventsWriter(str(folder / "events"), filename_suffix=f".{start}")
        begin = self.event.SessionLog(status=self.event.SessionLog.START)
        self._write(step=start + 1, session_log=begin)

    def add(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Adds the numbers of a record as `kind/name`."""
        if self.file is None:
            return
        points = [
            self.summary.Summary.Value(tag=f"{kind}/{name}", simple_value=value)
            for name, value in values.items()
        ]
        self._write(step=step, summary=self.summary.Summary(value=points))

    def close(self) -> None:
        """Closes the file; later additions are discarded."""
        if self.file is not None:
            self.file.close()
            self.file = None

    def _write(self, **fields: Any) -> None:
        self.file.write_event(self.event.Event(wall_time=time.time(), **fields))
        self.file.flush()
