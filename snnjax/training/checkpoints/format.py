"""Format of checkpoints: the note beside the arrays, and migrations from older forms.

    {"schema": 4, "leaves": {".params['w']": "float32[3, 4]", ...}, "score": 0.91}

A checkpoint without a schema is of form 1. A `Migration` leads from a form to the next; several are
applied one after the other:

    form 1 -> 2     the note holds its schema, and sizes.json always exists; the same arrays
    form 2 -> 3     the state holds the scale of a float16 loss
    form 3 -> 4     the note holds a score, higher is better, instead of the accuracy
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from snnjax.training.errors import CheckpointError
from snnjax.training.state import TrainState
from snnjax.typing import PyTree

__all__ = [
    "MIGRATIONS",
    "SCHEMA",
    "Migration",
    "Unscaled",
    "check_model",
    "leaves",
    "migrate",
    "note",
    "saved_form",
    "saved_score",
]


class Migration(NamedTuple):
    """Between one form and the next.

    Attributes:
        older: `tree -> tree`: shapes of the arrays in the newer form to those in the older form.
        newer: `(tree, state) -> tree`: arrays in the older form to those in the newer form; arrays
            that the older form lacks are taken from the state before the first step.
    """

    older: Callable[[PyTree], PyTree]
    newer: Callable[[PyTree, TrainState], PyTree]


class Unscaled(NamedTuple):
    """A state of form 2, without a loss scale."""

    step: Any
    position: Any
    params: Any
    constants: Any
    optimizer: Any
    statistics: Any
    key: Any
    finite: Any


MIGRATIONS: Sequence[Migration] = (
    Migration(older=lambda tree: tree, newer=lambda tree, _: tree),
    Migration(
        older=lambda tree: Unscaled(*tree[: len(Unscaled._fields)]),
        newer=lambda tree, state: TrainState(*tree, loss_scale=state.loss_scale),
    ),
    Migration(older=lambda tree: tree, newer=lambda tree, _: tree),
)
"""From form 1 to 2, from 2 to 3, and so on."""

SCHEMA = len(MIGRATIONS) + 1
"""The form of new checkpoints."""


def note(state: TrainState, *, score: float | None) -> dict[str, Any]:
    """Note of a checkpoint.

    Args:
        state: The saved state.
        score: `Task.score` of the evaluation at this step; None if there was none.
    """
    return {"schema": SCHEMA, "leaves": leaves(state), "score": score}


def saved_score(note: Mapping[str, Any]) -> float | None:
    """Score in a note of any form; forms up to 3 hold the accuracy of a classification."""
    return note.get("score", note.get("accuracy"))


def leaves(state: PyTree) -> dict[str, str]:
    """Identity of a model: the path, type and shape of every array."""
    found = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): f"{x.dtype}{list(x.shape)}" for path, x in found}


def saved_form(
    state: TrainState, schema: int, *, migrations: Sequence[Migration] = MIGRATIONS
) -> PyTree:
    """Shapes, types and shardings of a state in a checkpoint of some form."""
    tree: PyTree = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    for migration in reversed(migrations[schema - 1 :]):
        tree = migration.older(tree)
    return tree


def migrate(
    tree: PyTree,
    schema: int,
    state: TrainState,
    *,
    migrations: Sequence[Migration] = MIGRATIONS,
) -> TrainState:
    """Content of a checkpoint of some form, in the present form."""
    for migration in migrations[schema - 1 :]:
        tree = migration.newer(tree, state)
    return tree


def check_model(path: Path, note: Mapping[str, Any], form: PyTree) -> None:
    """Checks that a checkpoint belongs to the model at hand.

    Args:
        path: The checkpoint.
        note: Its note.
        form: From `saved_form`.

    Raises:
        CheckpointError: It belongs to another model; the message names the difference.
    """
    saved, here = note.get("leaves", {}), leaves(form)
    differing = [name for name in {**saved, **here} if saved.get(name) != here.get(name)]
    if not differing:
        return
    shown = "; ".join(
        f"{name} is {saved.get(name, 'absent')} there and {here.get(name, 'absent')} here"
        for name in differing[:2]
    )
    more = f", and {len(differing) - 2} more" if len(differing) > 2 else ""
    raise CheckpointError(
        f"the checkpoint {path} is of another model: {shown}{more}. Leave out options that change "
        "the network, or train anew into another --out"
    )
