"""DVS128-Gait: twenty people who walk past an event camera, by day and by night; who is it?

One text file per walk, `train/<person>/*.txt` and `test/<person>/*.txt`, one event per line:

    t x y p        numbers between blanks: microseconds, column, row, polarity (1 is brighter)

of a camera of 128x128 pixels. The set has no page of its format: this is what the code that its
authors published with it reads. The darker polarity is told there as "not 1", so that this reader
takes 0 and -1 for it. It was tested on files written from this description only.

References: Wang, Du, Shen, Wu, Zhao, Sun, Wen, "EV-Gait: Event-based Robust Gait Recognition using
Dynamic Vision Sensors", CVPR 2019; Wang, Zhang, Shen, Du, Zhao, Cui, Wen, "Event-Stream
Representation for Human Gaits Identification Using Deep Neural Networks", 2021.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from snnjax.data.archive import unpacked
from snnjax.data.dataset import Dataset, Split
from snnjax.data.errors import CorruptDataError, MissingDataError
from snnjax.data.recordings import Recordings, as_events

HEIGHT, WIDTH = 128, 128


def read_dvs128_gait(folder: Path, *, light: str) -> Dataset:
    """Finds the recordings of one lighting; each is read when asked for.

    Args:
        folder: Where the unpacked folders `train` and `test` lie, at any depth.
        light: "day" or "night", for its name.

    Returns:
        Recordings `[E, 4]` int32 of different lengths. The classes are the people, in the order of
        their numbers, or of their names where these are no numbers.

    Raises:
        MissingDataError: Where there are no recordings, or only archives of them.
        CorruptDataError: Where somebody is in one split only.
    """
    files = unpacked(folder, lambda path: _split_of(path) is not None)
    parts = {
        name: [f for f in files if _split_of(PurePosixPath(f.relative_to(folder))) == name]
        for name in ("train", "test")
    }
    if not all(parts.values()):
        raise MissingDataError(
            f"{folder} has no recordings train/<person>/*.txt, or no test/<person>/*.txt"
        )
    people = {name: {f.parent.name for f in part} for name, part in parts.items()}
    if people["train"] != people["test"]:
        alone = sorted(people["train"] ^ people["test"])
        raise CorruptDataError(
            f"{folder} has {', '.join(alone)} in one of its splits only: files are missing; unpack "
            "it again"
        )
    names = tuple(sorted(people["train"], key=_by_number))
    train, test = (_split(parts[name], names) for name in ("train", "test"))
    return Dataset(
        name=f"dvs128_gait_{light}",
        train=train,
        test=test,
        classes=len(names),
        class_names=names,
        input_shape=(HEIGHT, WIDTH, 2),
        scale=1.0,
        note=f"DVS128-Gait by {light}, {len(train)} + {len(test)} recordings, read when asked for. "
        "Y. Wang, B. Du, Y. Shen and others, 2019; see its page for its licence.",
    )


def parse_gait(content: bytes, *, name: str = "recording") -> np.ndarray:
    """Turns a text file of events into arrays.

    Args:
        content: The whole file: lines of `t x y p`.
        name: What to call it in an error.

    Returns:
        Its events in order of time, `[E, 4]` int32: t in microseconds, x, y, p.

    Raises:
        CorruptDataError: Where a line is not four whole numbers, there is none, or a pixel lies
            outside 128x128.
        ValueError: Where a time does not fit 32 bits.
    """
    try:
        # Floats: some tools write whole numbers as 1.0e+03.
        numbers = np.array(content.split(), np.float64)
    except ValueError:
        numbers = np.array([np.nan])
    lines = sum(bool(line.strip()) for line in content.splitlines())
    if not lines or numbers.size != 4 * lines or (numbers != np.round(numbers)).any():
        raise CorruptDataError(
            f"{name} is not lines of four whole numbers t x y p: it is empty, cut short or damaged;"
            " fetch it again"
        )
    t, x, y, p = numbers.reshape(-1, 4).T
    if min(t.min(), x.min(), y.min()) < 0 or not np.isin(p, (-1, 0, 1)).all():
        raise CorruptDataError(
            f"{name} has a negative time or pixel, or a polarity other than 1, 0 and -1: a damaged "
            "file, fetch it again"
        )
    return as_events(t, x, y, np.maximum(p, 0), height=HEIGHT, width=WIDTH, name=name)


def _split_of(path: PurePosixPath) -> str | None:
    if path.suffix != ".txt" or len(path.parts) < 3:
        return None
    folder = path.parts[-3]
    return folder if folder in ("train", "test") else None


def _by_number(name: str) -> tuple[float, str]:
    return (int(name) if name.isdecimal() else float("inf"), name)


def _split(files: list[Path], names: tuple[str, ...]) -> Split:
    labels = np.array([names.index(f.parent.name) for f in files], np.int32)
    return Split(Recordings(tuple(files), _read), labels)


def _read(path: Path) -> np.ndarray:
    return parse_gait(path.read_bytes(), name=str(path))
