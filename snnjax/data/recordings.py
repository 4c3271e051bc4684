"""Event recordings on disk, read one at a time, when they are asked for.

A set of an event camera runs to gigabytes, four numbers of 4 bytes an event. `Recordings` is a
sequence that holds only where each recording lies: indexing reads one, `dense` turns one after
another into frames, and `grain_loader` reads ahead of the training. Readers of file formats end in
`as_events`, the one place where a recording is checked and put in order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np

from snnjax.data.errors import CorruptDataError

_END_OF_TIME = 2**31  # microseconds, 36 minutes: what 32 bits hold


@dataclasses.dataclass(frozen=True, eq=False)
class Recordings(Sequence[np.ndarray]):
    """A sequence of event recordings, each read from disk whenever it is asked for.

    Nothing is kept: two readings of one recording cost twice, and memory holds those in use.

    Attributes:
        sources: `N` of whatever `read` understands: a path, or a path and a stretch of time.
        read: `source -> [E, 4]` int32, one row `t, x, y, p` per event. A pure function of the
            source; one with a name can be sent to another process.

    Example:
        >>> read = lambda path: parse_aedat3(path.read_bytes(), name=str(path))
        >>> mine = Recordings(sorted(folder.glob("*.aedat")), read)       # doctest: +SKIP
        >>> dataset = from_arrays(mine[:90], labels[:90], mine[90:], labels[90:],
        ...                       input_shape=(128, 128, 2))              # doctest: +SKIP
    """

    sources: Sequence[Any]
    read: Callable[[Any], np.ndarray]

    def __len__(self) -> int:
        return len(self.sources)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, index: slice) -> Recordings: ...

    def __getitem__(self, index: int | slice) -> np.ndarray | Recordings:
        if isinstance(index, slice):
            return Recordings(self.sources[index], self.read)
        return self.read(self.sources[index])

    def __add__(self, other: Recordings) -> Recordings:
        if self.read is not other.read:
            raise ValueError(
                "two sequences of recordings are joined only where one function reads both: give "
                "Recordings(sources, read) the same read"
            )
        return Recordings((*self.sources, *other.sources), self.read)

    def take(self, indices: np.ndarray) -> Recordings:
        """The recordings at `indices` `[n]`, in that order; none is read."""
        return Recordings(taken(self.sources, indices), self.read)


def taken(examples: Any, indices: np.ndarray) -> Any:
    """The examples at `indices` `[n]`, in that order; lazy sequences stay lazy."""
    if isinstance(examples, np.ndarray):
        return examples[indices]
    if hasattr(examples, "take"):
        return examples.take(indices)
    return tuple(examples[int(i)] for i in indices)


def as_events(
    t: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    p: np.ndarray,
    *,
    height: int,
    width: int,
    name: str,
) -> np.ndarray:
    """Puts the columns of a recording together, in order of time.

    Args:
        t: `[E]` integers, microseconds.
        x: `[E]` integers, the column of the pixel, from the left.
        y: `[E]` integers, the row of the pixel, from the top.
        p: `[E]` integers, 0 or 1.
        height: H in pixels.
        width: W in pixels.
        name: What to call the recording in an error.

    Returns:
        `[E, 4]` int32: t, x, y, p. Events of one microsecond stay in the order of the file.

    Raises:
        CorruptDataError: Where a pixel lies outside `height` x `width`, or a polarity is neither
            0 nor 1.
        ValueError: Where a time does not fit 32 bits.
    """
    if len(t):
        _check(t, x, y, p, height, width, name)
    events = np.empty((len(t), 4), np.int32)
    for column, values in enumerate((t, x, y, p)):
        events[:, column] = values
    if (events[1:, 0] < events[:-1, 0]).any():
        events = events[np.argsort(events[:, 0], kind="stable")]
    return events


def _check(
    t: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    p: np.ndarray,
    height: int,
    width: int,
    name: str,
) -> None:
    if x.max() >= width or y.max() >= height:
        raise CorruptDataError(
            f"{name} has events up to column {x.max()}, row {y.max()}, outside {height}x{width} "
            "(rows x columns): another camera's recording, or a damaged file to fetch again"
        )
    if p.max() > 1:
        raise CorruptDataError(
            f"{name} has a polarity of {p.max()}, neither 0 nor 1: a damaged file, fetch it again"
        )
    if t.max() >= _END_OF_TIME:
        raise ValueError(
            f"{name} has times up to {t.max()} us, more than 32 bits hold (36 minutes): cut it "
            "into shorter recordings, each counted from its own start"
        )
