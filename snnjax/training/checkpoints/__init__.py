"""Checkpoints of training: their format, their integrity, and writing in the background."""

from snnjax.training.checkpoints.background import Saver
from snnjax.training.checkpoints.store import (
    Writing,
    begin,
    best,
    intact,
    load,
    load_newest,
    newest,
    of_step,
    prune,
    save,
    steps,
    sweep,
)

__all__ = [
    "Saver",
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
    "intact",
]
