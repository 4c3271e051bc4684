"""What a checkpoint says of itself, and how one of an older form is read.

    {"schema": 4, "leaves": {".params['w']": "float32[3, 4]", ...}, "accuracy": 0.91}

is written beside the arrays. A checkpoint without a schema is of form 1. Between a form and the
next there is a `Migration`; several are done one after the other:

    form 1 -> 2     the note says its schema, and sizes.json is always there; the same arrays
    form 2 -> 3     the state holds the scale of a float16 loss
    form 3 -> 4     statistics are means and variances only, without the peaks of streams
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
    "leaves",
    "migrate",
    "note",
    "refuse",
    "saved_form",
]


class Migration(NamedTuple):
    """Between one form and the next.

    Attributes:
        older: `(tree, names) -> tree`: of arrays' shapes as the newer form has them, to those that
            the older one has; names and shapes of the saved leaves are those of the note.
        newer: `(tree, state) -> tree`: of arrays as the older form had them, to the newer form;
            what the older one did not know is taken from the state before the first step.
    """

    older: Callable[[PyTree, Mapping[str, str]], PyTree]
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
"""The form that is written."""


def note(state: TrainState, *, accuracy: float | None) -> dict[str, Any]:
    """What a checkpoint says of itself."""
    return {"schema": SCHEMA, "leaves": leaves(state), "accuracy": accuracy}


def leaves(state: PyTree) -> dict[str, str]:
    """What identifies a model: the path, type and shape of every array."""
    found = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): f"{x.dtype}{list(x.shape)}" for path, x in found}


def saved_form(
    state: TrainState,
    schema: int,
    names: Mapping[str, str],
    *,
    migrations: Sequence[Migration] = MIGRATIONS,
) -> PyTree:
    """The shapes, types and shardings that a checkpoint of some form has of such a state.

    Args:
        state: of the model at hand.
        schema: form of the checkpoint.
        names: its leaves, as in its note.
        migrations: between all forms.
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
