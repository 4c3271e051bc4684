"""Format of checkpoints: the note beside the arrays, and migrations from older forms.

    {"schema": 4, "leaves": {".params['w']": "float32[3, 4]", ...}, "score": 0.91}

A checkpoint without a schema is of form 1. A `Migration` leads from a form to the next; several are
applied one after the other:

    form 1 -> 2     the note holds its schema, and sizes.json always exists; the same arrays
    form 2 -> 3     the state holds the scale of a float16 loss
    form 3 -> 4     the note holds a score, higher is better, instead of the accuracy; statistics
                    are means and variances only, without the peaks of streams
"""

from __future__ import annotations

import re
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
        older: `(tree, names) -> tree`: shapes of the arrays in the newer form to those in the older
            form; `names` are the saved leaves, as in the note.
        newer: `(tree, state) -> tree`: arrays in the older form to those in the newer form; arrays
            that the older form lacks are taken from the state before the first step.
    """

    older: Callable[[PyTree, Mapping[str, str]], PyTree]
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


class StreamPeak(NamedTuple):
    """Last item of the statistics of a reversible stack or of columns, up to form 3."""

    peak: Any
    bound: Any


_PEAK = re.compile(r"(\.statistics(?:\[\d+\])*)\[(\d+)\]\.peak")


def _with_peaks(tree: TrainState, names: Mapping[str, str]) -> TrainState:
    """The shapes of a state with the peaks that a checkpoint of form 3 has, by its leaves."""
    statistics, step = tree.statistics, tree.step
    # A stack inside of another has the longer path, which counts the outer peak as an item.
    for name in sorted(filter(_PEAK.fullmatch, names), key=len):
        node, place = _PEAK.fullmatch(name).groups()  # type: ignore[union-attr]
        shapes = (names[f"{node}[{place}].{field}"] for field in StreamPeak._fields)
        peak = StreamPeak(*(_struct(shape, step.sharding) for shape in shapes))
        parents = [int(number) for number in re.findall(r"\d+", node)]
        try:
            statistics = _insert(statistics, parents, int(place), peak)
        except (IndexError, TypeError):  # of another model: the leaves that differ are told later
            return tree
    return tree._replace(statistics=statistics)


def _struct(shape: str, sharding: Any) -> jax.ShapeDtypeStruct:
    dtype, sizes = shape.rstrip("]").split("[")
    numbers = tuple(int(size) for size in sizes.split(",") if size)
    return jax.ShapeDtypeStruct(numbers, dtype, sharding=sharding)


def _insert(node: Any, parents: Sequence[int], place: int, peak: StreamPeak) -> Any:
    if parents:
        first, *others = parents
        inner = _insert(node[first], others, place, peak)
        return (*node[:first], inner, *node[first + 1 :])
    # Columns had (first, later, peak), a reversible stack ((f, g), peak).
    return (*node, peak) if place == len(node) else (node, peak)


def _without_peaks(node: Any) -> Any:
    if type(node) is not tuple:
        return node
    kept = tuple(_without_peaks(item) for item in node if not isinstance(item, StreamPeak))
    return kept[0] if len(kept) == 1 < len(node) else kept


MIGRATIONS: Sequence[Migration] = (
    Migration(older=lambda tree, _: tree, newer=lambda tree, _: tree),
    Migration(
        older=lambda tree, _: Unscaled(*tree[: len(Unscaled._fields)]),
        newer=lambda tree, state: TrainState(*tree, loss_scale=state.loss_scale),
    ),
    Migration(
        older=lambda tree, names: _with_peaks(tree, names),
        newer=lambda tree, _: tree._replace(statistics=_without_peaks(tree.statistics)),
    ),
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
    state: TrainState,
    schema: int,
    names: Mapping[str, str],
    *,
    migrations: Sequence[Migration] = MIGRATIONS,
) -> PyTree:
    """Shapes, types and shardings of a state in a checkpoint of some form.

    Args:
        state: State of the model at hand.
        schema: Form of the checkpoint.
        names: Its leaves, as in its note.
        migrations: Migrations between all forms.
    """
    tree: PyTree = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    for migration in reversed(migrations[schema - 1 :]):
        tree = migration.older(tree, names)
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
