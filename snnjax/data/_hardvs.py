"""HARDVS: 300 human activities before a DAVIS346 event camera, its compact event files.

    action_001/<recording>.npz ... action_300/<recording>.npz    arrays t, x, y, p
    train_label.txt, test_label.txt                              lines "action_001/<recording> ..."

Time is in microseconds, x a column of 346, y a row of 260, p is 1 for brighter. Only the first word
of a line is read: folders number the classes, from 1. The validation part, `val_label.txt`, is left
out. The format has no published description; this one follows SpikingJelly's reader and a second
public one. The reader was tested on files written from it, not on the data set itself.

Reference:
    X. Wang, Z. Wu, B. Jiang, Z. Bao, L. Zhu, G. Li, Y. Wang, Y. Tian, "HARDVS: Revisiting Human
    Activity Recognition with Dynamic Vision Sensors", 2022, arXiv:2211.09648. Files:
    github.com/Event-AHU/HARDVS, MINI_HARDVS_files.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from snnjax.data._archive import read_file, refuse_duplicates
from snnjax.data._recordings import Recordings, as_events
from snnjax.data.arrays import read_npz
from snnjax.data.dataset import CorruptDataError, Dataset, MissingDataError, Split

HEIGHT, WIDTH, CLASSES = 260, 346, 300
_LARGEST = 64 << 20  # bytes of a list: 100,000 lines of 50
_LINE = re.compile(r"(action_(\d{3})/[\w.-]+)(\s.*)?")


def read_hardvs(folder: Path) -> Dataset:
    """Lists the recordings of HARDVS; each is read on access.

    Args:
        folder: Folder of the unpacked folders `action_001`, ... and of the lists.

    Returns:
        Recordings `[E, 4]` int32 of different lengths in the order of the lists, times counted from
        the first event. `input_shape` is `(260, 346, 2)`.

    Raises:
        MissingDataError: If a list or a recording is missing.
        CorruptDataError: If a line is damaged, or a recording is listed twice. On access, if a file
            is damaged or leaves the camera.
    """
    parts = {part: _listed(folder, part) for part in ("train", "test")}
    refuse_duplicates(folder, ((str(file),) for files, _ in parts.values() for file in files))
    train, test = (
        Split(Recordings(files, _read), np.array(labels, np.int32))
        for files, labels in parts.values()
    )
    return Dataset(
        name="hardvs",
        train=train,
        test=test,
        classes=CLASSES,
        class_names=tuple(f"action_{number:03}" for number in range(1, CLASSES + 1)),
        input_shape=(HEIGHT, WIDTH, 2),
        scale=1.0,
        note=f"HARDVS, {len(train)} + {len(test)} recordings, read on access. X. Wang, Z. Wu and "
        "others, 2022; see its page for its licence.",
    )


def _listed(folder: Path, part: str) -> tuple[tuple[Path, ...], list[int]]:
    """Files and labels of a split, in the order of its list."""
    path = folder / f"{part}_label.txt"
    if not path.is_file():
        raise MissingDataError(f"{path} is missing, which lists the recordings of a split")
    files, labels = [], []
    for number, line in enumerate(read_file(path, largest=_LARGEST).splitlines(), 1):
        text = line.decode(errors="replace").strip()
        match = _LINE.fullmatch(text)
        if text and (match is None or not 1 <= int(match[2]) <= CLASSES):
            raise CorruptDataError(
                f"{path} has {text[:60]!r} in line {number}, not 'action_001/<recording> ...' with "
                f"a number up to {CLASSES}: fetch it again"
            )
        if match:
            files.append(folder / f"{match[1].removesuffix('.npz')}.npz")
            labels.append(int(match[2]) - 1)
    missing = [file for file in files if not file.is_file()]
    if missing or not files:
        raise MissingDataError(
            f"{path} lists {len(files)} recordings, of which {len(missing)} are missing"
            + (f", {missing[0]} first: unpack its archive there" if missing else "")
        )
    return tuple(files), labels


def _read(path: Path) -> np.ndarray:
    arrays = read_npz(path, ("t", "x", "y", "p"))
    t, x, y, p = (arrays[name].reshape(-1) for name in "txyp")
    if not len(t):
        raise CorruptDataError(f"{path} has no events: fetch it again")
    # The camera counts microseconds since 1970, which do not fit 32 bits.
    if t.dtype.kind in "iu":
        t = t.astype(np.int64) - int(t.min())
    return as_events(t, x, y, p, height=HEIGHT, width=WIDTH, name=str(path))
