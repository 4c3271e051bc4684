"""Event recordings on disk, each read on access.

Event camera data sets take gigabytes, 16 bytes per event. `Recordings` is a sequence that holds
only the source of each recording: indexing reads one, `dense` converts one after another to frames,
and `grain_loader` reads ahead of the training. Format readers end in `as_events`, the one function
that validates and sorts events.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np

from snnjax.data.dataset import CorruptDataError, take

_END_OF_TIME = 2**31  # microseconds: 36 minutes, the range of int32


@dataclasses.dataclass(frozen=True, eq=False)
class Recordings(Sequence[np.ndarray]):
    """A sequence of event recordings, each read from disk on every access.

    Nothing is cached: reading a recording twice costs twice, and memory holds only those in use.

    Attributes:
        sources: `N` arguments of `read`: paths, or pairs of a path and a time interval.
        read: `source -> [E, 4]` int32, one row `t, x, y, p` per event. A pure function; a named one
            can be pickled for another process.

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
            # A slice stays lazy.
            return Recordings(self.sources[index], self.read)
        return self.read(self.sources[index])

    def __add__(self, other: Recordings) -> Recordings:
        # A joined sequence has one `read`: two would have to be told apart by source.
        if self.read is not other.read:
            raise ValueError(
                "two sequences of recordings are joined only where one function reads both: give "
                "Recordings(sources, read) the same read"
            )
        return Recordings((*self.sources, *other.sources), self.read)

    def take(self, indices: np.ndarray) -> Recordings:
        """Selects the recordings at `indices` `[n]`, in that order, without reading them."""
        return Recordings(take(self.sources, indices), self.read)


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
    """Validates the columns of a recording and joins them in order of time.

    Args:
        t: `[E]` integers, microseconds.
        x: `[E]` integers, pixel column from the left.
        y: `[E]` integers, pixel row from the top.
        p: `[E]` integers, 0 or 1.
        height: Rows of the camera, in pixels.
        width: Columns of the camera, in pixels.
        name: Name of the recording in error messages.

    Returns:
        `[E, 4]` int32: t, x, y, p. Events of the same microsecond keep the order of the file.

    Raises:
        TypeError: If a column is not of integers.
        CorruptDataError: If columns differ in length, a time is negative, a pixel lies outside
            `height` x `width`, or a polarity is neither 0 nor 1.
        ValueError: If a timestamp does not fit 32 bits.
    """
    t, x, y, p = columns = [np.asarray(column) for column in (t, x, y, p)]
    if len({column.shape for column in columns}) != 1 or columns[0].ndim != 1:
        raise CorruptDataError(
            f"{name} has columns of shapes {[column.shape for column in columns]}, not one length"
        )
    if bad := [column.dtype for column in columns if column.dtype.kind not in "iub"]:
        raise TypeError(
            f"{name} has a column of {bad[0]}: events are integers, with time in whole "
            "microseconds; those become t.astype(np.int64), seconds (1e6 * t).astype(np.int64)"
        )
    # An empty column has no maximum.
    if len(t):
        _check(t, x, y, p, height, width, name)
    # Filled by column: np.stack would first widen all columns to a common dtype. The casts are
    # safe, since `_check` has seen the values in their own dtypes.
    events = np.empty((len(t), 4), np.int32)
    for column, values in enumerate(columns):
        events[:, column] = values
    if (events[1:, 0] < events[:-1, 0]).any():
        # Most files are sorted already: the check is a fraction of the cost of a sort.
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
    if min(t.min(), x.min(), y.min()) < 0:
        raise CorruptDataError(
            f"{name} has a negative time or pixel (from time {t.min()} us, column {x.min()}, row "
            f"{y.min()}): a damaged file to fetch again, or a time to count from its first event, "
            "t - t.min()"
        )
    if x.max() >= width or y.max() >= height:
        raise CorruptDataError(
            f"{name} has events up to column {x.max()}, row {y.max()}, outside {height}x{width} "
            "(rows x columns): another camera's recording, columns in another order than t, x, y, "
            "polarity, or a damaged file to fetch again"
        )
    if p.min() < 0 or p.max() > 1:
        raise CorruptDataError(
            f"{name} has a polarity of {p.min() if p.min() < 0 else p.max()}, neither 0 nor 1: a "
            "damaged file, fetch it again; where it is -1 and 1, write p > 0"
        )
    if t.max() >= _END_OF_TIME:
        raise ValueError(
            f"{name} has times up to {t.max()} us, more than 32 bits hold (36 minutes): cut it "
            "into shorter recordings, each counted from its own start"
        )
