"""Format of checkpoints: a note beside the arrays, and migrations from older forms.

    {"schema": 5, "step": 440, "leaves": {".params['w']": "float32[3, 4]", ...}, "score": 0.91}

A checkpoint without a schema has form 1. A `Migration` converts one form to the next, and a
sequence of them to the present form:

    form 1 -> 2     the note has a schema, and sizes.json always exists; the same arrays
    form 2 -> 3     the state has the scale of a float16 loss
    form 3 -> 4     the note has a score, higher is better, instead of the accuracy; statistics are
                    means and variances only, without the peaks of streams
    form 4 -> 5     the note has a step and stands in a manifest with digests of all files
                    (`training.checkpoints.integrity`); the same arrays
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
    """Conversion between one form and the next.

    Attributes:
        older: `(tree, names) -> tree`, from shapes in the newer form to shapes in the older one;
            `names` are the saved leaves of the note.
        newer: `(tree, state) -> tree`, from arrays in the older form to arrays in the newer one,
            which takes additional arrays from the initial state.
    """

    older: Callable[[PyTree, Mapping[str, str]], PyTree]
    newer: Callable[[PyTree, TrainState], PyTree]


class Unscaled(NamedTuple):
    """State of form 2, without a loss scale."""

    step: Any
    position: Any
    params: Any
    constants: Any
    optimizer: Any
    statistics: Any
    key: Any
    finite: Any


class StreamPeak(NamedTuple):
    """Last entry of the statistics of a reversible stack or of columns, up to form 3."""

    peak: Any
    bound: Any


_PEAK = re.compile(r"(\.statistics(?:\[\d+\])*)\[(\d+)\]\.peak")


def _with_peaks(tree: TrainState, names: Mapping[str, str]) -> TrainState:
    """Shapes of a state of form 3, with peaks of streams as named by its leaves."""
    statistics, step = tree.statistics, tree.step
    # The path of an inner stack is longer and counts the peak of the outer stack as an entry.
    for name in sorted(filter(_PEAK.fullmatch, names), key=len):
        node, place = _PEAK.fullmatch(name).groups()  # type: ignore[union-attr]
        # Shapes come from the note: the present state holds no peaks to copy them from.
        shapes = (names[f"{node}[{place}].{field}"] for field in StreamPeak._fields)
        peak = StreamPeak(*(_struct(shape, step.sharding) for shape in shapes))
        # A path such as ".statistics[0][1]" gives the way through nested tuples.
        parents = [int(number) for number in re.findall(r"\d+", node)]
        try:
            statistics = _insert(statistics, parents, int(place), peak)
        except (IndexError, TypeError):  # another model: `check_model` names the difference
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
    # Not isinstance: named tuples, as of a norm's statistics, are leaves of this search.
    if type(node) is not tuple:
        return node
    kept = tuple(_without_peaks(item) for item in node if not isinstance(item, StreamPeak))
    # A stack's statistics were a pair with the peak and are now the first item itself.
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
    Migration(older=lambda tree, _: tree, newer=lambda tree, _: tree),
)
"""Migrations from form 1 to 2, from 2 to 3, and so on."""

SCHEMA = len(MIGRATIONS) + 1
"""Form of new checkpoints."""


def note(state: TrainState, *, score: float | None) -> dict[str, Any]:
    """Note of a checkpoint.

    Args:
        state: Saved state.
        score: `Task.score` of the evaluation at this step; None without an evaluation.
    """
    step = int(state.step)
    return {"schema": SCHEMA, "step": step, "leaves": leaves(state), "score": score}


def saved_score(note: Mapping[str, Any]) -> float | None:
    """Score in a note of any form; forms up to 3 hold the accuracy of a classification."""
    return note.get("score", note.get("accuracy"))


def leaves(state: PyTree) -> dict[str, str]:
    """Identity of a model: path, dtype and shape of every array."""
    pairs = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): f"{x.dtype}{list(x.shape)}" for path, x in pairs}


def saved_form(
    state: TrainState,
    schema: int,
    names: Mapping[str, str],
    *,
    migrations: Sequence[Migration] = MIGRATIONS,
) -> PyTree:
    """Shapes, dtypes and shardings of a state in a checkpoint of some form.

    Args:
        state: State of the present model.
        schema: Form of the checkpoint.
        names: Leaves in the note of the checkpoint.
        migrations: Migrations between all forms.
    """
    # Shardings go along, so that Orbax reads each part onto its device.
    tree: PyTree = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    # Backwards: Orbax reads into the shapes that were saved, not those of today.
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
    """Converts the content of a checkpoint of some form to the present form."""
    for migration in migrations[schema - 1 :]:
        tree = migration.newer(tree, state)
    return tree


def check_model(path: Path, note: Mapping[str, Any], form: PyTree) -> None:
    """Checks that a checkpoint belongs to the present model.

    Args:
        path: Path of the checkpoint.
        note: Note of the checkpoint.
        form: Shapes from `saved_form`.

    Raises:
        CheckpointError: The checkpoint is of another model; the message names the difference.
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
