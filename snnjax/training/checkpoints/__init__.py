"""Checkpoints of training: their format, their integrity, and writing in the background."""

from snnjax.training.checkpoints.background import Saver
from snnjax.training.checkpoints.store import (
    best,
    load,
    load_newest,
    newest,
    save,
    step_path,
    steps,
)

__all__ = ["Saver", "best", "load", "load_newest", "newest", "save", "step_path", "steps"]
