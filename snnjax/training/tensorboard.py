"""Records as TensorBoard events, where tensorboardX is installed (the extra `tensorboard`).

Events are written by the thread that trains, not through tensorboardX's own queue and thread: an
error, a full disk, then reaches whoever can report it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snnjax.training.multihost import leads

__all__ = ["Events"]


class Events:
    """An event file; without tensorboardX, and on all processes but one, it swallows everything.

    Args:
        folder: Where the file is made.
        start: Steps done before; TensorBoard forgets what an earlier file says of later ones.
    """

    def __init__(self, folder: Path, *, start: int):
        self.file: Any = None
        if not leads():
            return
        try:
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto import event_pb2, summary_pb2
        except ImportError:
            return
        # Protocol buffers make their classes at run time, out of sight of a type checker.
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
        """Closes the file; what is added afterwards is swallowed."""
        if self.file is not None:
            self.file.close()
            self.file = None

    def _write(self, **fields: Any) -> None:
        self.file.write_event(self.event.Event(wall_time=time.time(), **fields))
        self.file.flush()
