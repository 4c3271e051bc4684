"""DVS128-Gait: identification of twenty people walking past an event camera, by day and by night.

One text file per walk, `train/<person>/*.txt` and `test/<person>/*.txt`, one event per line:

    t x y p        numbers separated by blanks: microseconds, column, row, polarity (1 is brighter)

The camera has 128x128 pixels. The format has no published description; this one follows the code
that the authors published with the data set. The reader was tested only on files written from this
description.

References: Wang, Du, Shen, Wu, Zhao, Sun, Wen, "EV-Gait: Event-based Robust Gait Recognition using
Dynamic Vision Sensors", CVPR 2019; Wang, Zhang, Shen, Du, Zhao, Cui, Wen, "Event-Stream
Representation for Human Gaits Identification Using Deep Neural Networks", 2021.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from snnjax.data._archive import list_files, parse_table, read_file, refuse_duplicates
from snnjax.data._recordings import Recordings, as_events
from snnjax.data.dataset import CorruptDataError, Dataset, MissingDataError, Split

HEIGHT, WIDTH = 128, 128
_LARGEST = 256 << 20  # bytes of a walk of a few seconds, as text


def read_dvs128_gait(folder: Path, *, light: str) -> Dataset:
    """Lists the recordings of one lighting condition; each is read on access.

    Args:
        folder: Folder that contains the unpacked folders `train` and `test`, at any depth.
        light: "day" or "night", a part of the data set's name.

    Returns:
        Recordings `[E, 4]` int32 of different lengths. Classes are people, ordered by number, or by
        name if the folder names are not numbers.

    Raises:
        MissingDataError: If the folder has no recordings, or only archives of them.
        CorruptDataError: If a person occurs in one split only, or a recording twice.
    """
    files = list_files(folder, lambda path: _split_name(path) is not None)
    relative = [PurePosixPath(file.relative_to(folder)) for file in files]
    refuse_duplicates(folder, ((_split_name(p), p.parent.name, p.name) for p in relative))
    parts = {
        name: [f for f in files if _split_name(PurePosixPath(f.relative_to(folder))) == name]
        for name in ("train", "test")
    }
    if not all(parts.values()):
        raise MissingDataError(
            f"{folder} has no recordings train/<person>/*.txt, or no test/<person>/*.txt"
        )
    people = {name: {f.parent.name for f in part} for name, part in parts.items()}
    if people["train"] != people["test"]:
        # Both splits contain every person, so a difference means files that were lost.
        alone = sorted(people["train"] ^ people["test"])
        raise CorruptDataError(
            f"{folder} has {', '.join(alone)} in one of its splits only: files are missing; unpack "
            "it again"
        )
    # As numbers: as text, person 10 would come before person 2.
    names = tuple(sorted(people["train"], key=_numeric_order))
    train, test = (_split(parts[name], names) for name in ("train", "test"))
    return Dataset(
        name=f"dvs128_gait_{light}",
        train=train,
        test=test,
        classes=len(names),
        class_names=names,
        input_shape=(HEIGHT, WIDTH, 2),
        scale=1.0,
        note=f"DVS128-Gait by {light}, {len(train)} + {len(test)} recordings, read on access. "
        "Y. Wang, B. Du, Y. Shen and others, 2019; see its page for its licence.",
    )


def parse_gait(content: bytes, *, name: str = "recording") -> np.ndarray:
    """Parses a text file of events.

    Args:
        content: The whole file: lines of `t x y p`.
        name: Name of the recording in error messages.

    Returns:
        Events in order of time, `[E, 4]` int32: t in microseconds, x, y, p.

    Raises:
        CorruptDataError: If the file is empty, a line is not four whole numbers, or a pixel lies
            outside 128x128.
        ValueError: If a timestamp does not fit 32 bits.
    """
    try:
        # Parsed as floats, since some tools write whole numbers as 1.0e+03.
        numbers = parse_table(content, 4, name)
    except CorruptDataError:
        numbers = np.empty((0, 4))  # the error below serves all cases
    # Before the cast, which is exact below 2^53.
    whole = (numbers == np.round(numbers)) & (abs(numbers) < 2**53)
    positive = (numbers[:, :3] >= 0).all() and np.isin(numbers[:, 3], (-1, 0, 1)).all()
    if not len(numbers) or not whole.all() or not positive:
        raise CorruptDataError(
            f"{name} is not lines of four whole numbers t x y p, or has a negative time or pixel, "
            "or a polarity other than 1, 0 and -1: it is empty, cut short or damaged; fetch it "
            "again"
        )
    t, x, y, p = numbers.astype(np.int64).T
    # The authors' code treats every polarity but 1 as darker: both 0 and -1 occur.
    p = np.maximum(p, 0)
    return as_events(t, x, y, p, height=HEIGHT, width=WIDTH, name=name)


def _split_name(path: PurePosixPath) -> str | None:
    if path.suffix != ".txt" or len(path.parts) < 3:
        return None
    folder = path.parts[-3]
    return folder if folder in ("train", "test") else None


def _numeric_order(name: str) -> tuple[float, str]:
    return (int(name) if name.isdecimal() else float("inf"), name)


def _split(files: list[Path], names: tuple[str, ...]) -> Split:
    labels = np.array([names.index(f.parent.name) for f in files], np.int32)
    return Split(Recordings(tuple(files), _read), labels)


def _read(path: Path) -> np.ndarray:
    return parse_gait(read_file(path, largest=_LARGEST), name=str(path))
