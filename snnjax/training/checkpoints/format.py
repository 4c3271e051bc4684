"""What a checkpoint says of itself, and how one of an older form is read.

    {"schema": 3, "leaves": {".params['w']": "float32[3, 4]", ...}, "accuracy": 0.91}

is written beside the arrays. A checkpoint without a schema is of form 1. Between a form and the
next there is a `Migration`; several are done one after the other:

    form 1 -> 2     the note says its schema, and sizes.json is always there; the same arrays
    form 2 -> 3     the state holds the scale of a float16 loss
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
    "leaves",
    "migrate",
    "note",
    "refuse",
    "saved_form",
]


class Migration(NamedTuple):
    """Between one form and the next.

    Attributes:
        older: `tree -> tree`: of arrays' shapes as the newer form has them, to those that the older
            one has.
        newer: `(tree, state) -> tree`: of arrays as the older form had them, to the newer form;
            what the older one did not know is taken from the state before the first step.
    """

    older: Callable[[PyTree], PyTree]
    newer: Callable[[PyTree, TrainState], PyTree]


class Unscaled(NamedTuple):
    """A state of form 2: all that it had before there was a loss scale."""

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
)
"""From form 1 to 2, from 2 to 3, and so on."""

SCHEMA = len(MIGRATIONS) + 1
"""The form that is written."""


def note(state: TrainState, *, accuracy: float | None) -> dict[str, Any]:
    """What a checkpoint says of itself."""
    return {"schema": SCHEMA, "leaves": leaves(state), "accuracy": accuracy}


def leaves(state: PyTree) -> dict[str, str]:
    """What identifies a model: the path, type and shape of every array."""
    found = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): f"{x.dtype}{list(x.shape)}" for path, x in found}


def saved_form(
    state: TrainState, schema: int, *, migrations: Sequence[Migration] = MIGRATIONS
) -> PyTree:
    """The shapes, types and shardings that a checkpoint of some form has of such a state."""
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
    """What a checkpoint of some form held, in the present form."""
    for migration in migrations[schema - 1 :]:
        tree = migration.newer(tree, state)
    return tree


def refuse(path: Path, said: Mapping[str, Any], form: PyTree) -> None:
    """Checks that a checkpoint is of the model at hand.

    Args:
        path: The checkpoint.
        said: Its note.
        form: From `saved_form`.

    Raises:
        CheckpointError: It is of another model; the message tells the difference.
    """
    saved, here = said.get("leaves", {}), leaves(form)
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
