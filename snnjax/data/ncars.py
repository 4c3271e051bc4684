"""N-CARS: cars and background on the street, 0.1 s each, cut out of an event camera's view.

Its files are DAT files of Prophesee, version 2, little-endian: lines of text that start with `%`,
a byte of type, a byte of size (8), and per event two words of 32 bits,

    microseconds        bits 0-13  column    bits 14-27  row    bits 28-31  polarity

Rows and columns count from the corner of the cut, which is at most 100 rows by 120 columns. This
reader was tested on one recording of the set and on files written from the page of the format.

Reference:
    A. Sironi, M. Brambilla, N. Bourdis, X. Lagorce, R. Benosman, "HATS: Histograms of Averaged
    Time Surfaces for Robust Event-based Object Classification", CVPR 2018, arXiv:1803.07913.
    Prophesee, "DAT File Format", docs.prophesee.ai.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import numpy as np

from snnjax.data.archive import unpacked
from snnjax.data.dataset import Dataset, Split
from snnjax.data.errors import CorruptDataError, MissingDataError
from snnjax.data.recordings import Recordings, as_events

HEIGHT, WIDTH = 100, 120

_CLASSES = {"background": 0, "cars": 1}
_TYPES = (0, 12)  # Event2d and EventCD, laid out alike
_VERSION = re.compile(rb"^% *Version +(\d+)", re.MULTILINE)


def read_ncars(folder: Path) -> Dataset:
    """Finds the recordings of N-CARS, whole set or subset; each is read when asked for.

    Args:
        folder: Where the unpacked folders `train` and `test` (or `n-cars_train` and `n-cars_test`)
            lie, each with `cars` and `background`.

    Returns:
        Recordings `[E, 4]` int32 of different lengths, read from disk one at a time; the published
        set has 15,422 and 8,607. `input_shape` is `(100, 120, 2)`; frames of 8 bits and 8
        timesteps made of them by `dense` take 4.6 GB.

    Raises:
        MissingDataError: Where there are no recordings, or only archives of them.
    """
    files = unpacked(folder, lambda path: _split_of(path) is not None)
    if not files:
        raise MissingDataError(f"{folder} has no files train/cars/*.dat nor train/background/*.dat")
    train, test = (_split(folder, files, name) for name in ("train", "test"))
    return Dataset(
        name="ncars",
        train=train,
        test=test,
        classes=2,
        class_names=tuple(_CLASSES),
        input_shape=(HEIGHT, WIDTH, 2),
        scale=1.0,
        note=f"N-CARS, {len(train)} + {len(test)} recordings, read when asked for. A. Sironi, "
        "M. Brambilla, N. Bourdis, X. Lagorce, R. Benosman, 2018; see its page for its licence.",
    )


def parse_dat(
    content: bytes, *, name: str = "recording", height: int = HEIGHT, width: int = WIDTH
) -> np.ndarray:
    """Turns a DAT file of Prophesee into arrays.

    Args:
        content: The whole file.
        name: What to call it in an error.
        height: Rows of the camera, or of the cut.
        width: Columns of the camera, or of the cut.

    Returns:
        Its events in order of time, `[E, 4]` int32: t in microseconds, x, y, p.

    Raises:
        CorruptDataError: Where it has no events, is cut short, of another version or kind, or has
            a pixel outside `height` x `width`.
        ValueError: Where a time does not fit 32 bits.
    """
    start = _events_start(content, name)
    if len(content) == start or (len(content) - start) % 8:
        raise CorruptDataError(
            f"{name} has {len(content) - start} bytes of events, not a positive multiple of 8: it "
            "is empty or cut short; fetch it again"
        )
    words = np.frombuffer(content, "<u4", offset=start).reshape(-1, 2)
    time, word = words[:, 0], words[:, 1]
    return as_events(
        time, word & 0x3FFF, word >> 14 & 0x3FFF, word >> 28, height=height, width=width, name=name
    )


def _events_start(content: bytes, name: str) -> int:
    place = 0
    while content.startswith(b"%", place):
        end = content.find(b"\n", place)
        if end < 0:
            break
        place = end + 1
    version = _VERSION.search(content, 0, place)
    if version is None or version[1] != b"2" or len(content) < place + 2:
        raise CorruptDataError(
            f"{name} is not a DAT file of version 2: lines that start with '%', one of them "
            "'% Version 2', then events; it is empty, damaged, or must be converted by Prophesee's "
            "metavision_file_to_dat"
        )
    kind, size = content[place], content[place + 1]
    if kind not in _TYPES or size != 8:
        raise CorruptDataError(
            f"{name} holds events of type {kind} and {size} bytes, not changes of contrast (type 0 "
            "or 12, 8 bytes): another kind of recording, or a damaged file to fetch again"
        )
    return place + 2


def _split_of(path: PurePosixPath) -> str | None:
    if path.suffix != ".dat" or path.parent.name not in _CLASSES:
        return None
    folder = path.parent.parent.name
    return next((split for split in ("train", "test") if folder.endswith(split)), None)


def _split(folder: Path, files: list[Path], name: str) -> Split:
    chosen = [f for f in files if _split_of(PurePosixPath(f.relative_to(folder))) == name]
    if not chosen:
        raise MissingDataError(f"no recordings {name}/cars/*.dat nor {name}/background/*.dat")
    labels = np.array([_CLASSES[f.parent.name] for f in chosen], np.int32)
    return Split(Recordings(tuple(chosen), _read), labels)


def _read(path: Path) -> np.ndarray:
    return parse_dat(path.read_bytes(), name=str(path))
