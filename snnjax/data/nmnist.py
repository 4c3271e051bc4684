"""N-MNIST: MNIST digits seen by an event camera that moves in three saccades (about 0.3 s).

An event is 5 bytes, big-endian: column (8 bits), row (8), polarity (1), microseconds (23). A row
of 240 marks no event but an overflow of the clock: every later time is 2^13 us later. Two layouts
of files are read: the set's own, `Train/<digit>/<number>.bin` and `Test/...`, and a subset listed
in two label files, `<number>.bs2`, `train*.txt` and `test*.txt`.

Reference:
    G. Orchard, A. Jayawant, G. K. Cohen, N. Thakor, "Converting Static Image Datasets to Spiking
    Neuromorphic Datasets Using Saccades", Frontiers in Neuroscience, 2015, arXiv:1507.07629.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from snnjax.data.archive import members
from snnjax.data.dataset import Dataset, Events, Split
from snnjax.data.errors import CorruptDataError, MissingDataError
from snnjax.data.recordings import as_events

SIZE = 34  # pixels along each side of the recordings
_OVERFLOW_ROW = 240
_OVERFLOW_TIME = 2**13


def read_nmnist(folder: Path) -> Dataset:
    """Reads the N-MNIST recordings of a folder, whole set or subset.

    Args:
        folder: Where the files of either layout lie, or archives of them (tar or zip).

    Returns:
        Recordings `[E, 4]` int32 of different lengths (16 bytes an event: 4.7 GB for the whole
        set); make frames of them with `dense`. `input_shape` is `(34, 34, 2)`.

    Raises:
        MissingDataError: Where there are no recordings.
        CorruptDataError: Where a recording is cut short, leaves the 34x34 pixels, or has no label.
    """
    recordings: dict[PurePosixPath, Events] = {}
    lists: dict[str, dict[int, int]] = {}
    for path, content in members(folder, _wanted):
        if path.suffix == ".txt":
            lists["train" if path.name.startswith("train") else "test"] = _parse_list(content, path)
        else:
            recordings[path] = parse_events(content, name=str(path))
    if not recordings:
        raise MissingDataError(
            f"{folder} has no recordings: neither Train/<digit>/<number>.bin nor <number>.bs2 with "
            "train*.txt and test*.txt"
        )
    if any(path.suffix == ".bs2" for path in recordings):
        by_number = {int(p.stem): events for p, events in recordings.items() if p.suffix == ".bs2"}
        train, test = (_listed(by_number, lists.get(split, {}), split) for split in _SPLITS)
    else:
        train, test = (_in_folders(recordings, split) for split in _SPLITS)
    return Dataset(
        name="nmnist",
        train=train,
        test=test,
        classes=10,
        class_names=tuple("0123456789"),
        input_shape=(SIZE, SIZE, 2),
        scale=1.0,
        note=f"N-MNIST, {len(train)} + {len(test)} recordings. G. Orchard, A. Jayawant, "
        "G. K. Cohen, N. Thakor, 2015; see the set's own page for its licence.",
    )


def parse_events(
    content: bytes, *, name: str = "recording", height: int = SIZE, width: int = SIZE
) -> Events:
    """Turns a file of 5-byte events into arrays: N-MNIST's, or another camera's in that format.

    Args:
        content: The whole file.
        name: What to call it in an error.
        height: Rows of the camera, at most 240: 128 for a DVS128, 180 for N-Caltech101.
        width: Columns of the camera, at most 256.

    Returns:
        Its events in order of time, `[E, 4]` int32: t in microseconds, x, y, p.

    Raises:
        CorruptDataError: Where it is empty, cut short, or has a pixel outside `height` x `width`.
        ValueError: Where the format has no room for such a camera.
    """
    if not (1 <= height <= _OVERFLOW_ROW and 1 <= width <= 256):
        raise ValueError(
            f"events of 5 bytes have room for 240 rows and 256 columns, not {height}x{width}"
        )
    if not content or len(content) % 5:
        raise CorruptDataError(
            f"{name} has {len(content)} bytes, not a positive multiple of 5: the event file is "
            "empty or cut short; fetch it again"
        )
    raw = np.frombuffer(content, np.uint8).reshape(-1, 5).astype(np.int32)
    x, y = raw[:, 0], raw[:, 1]
    t = (raw[:, 2] & 127) << 16 | raw[:, 3] << 8 | raw[:, 4]
    overflow = y == _OVERFLOW_ROW
    t = t + _OVERFLOW_TIME * np.cumsum(overflow, dtype=np.int32)
    t, x, y, p = (column[~overflow] for column in (t, x, y, raw[:, 2] >> 7))
    return as_events(t, x, y, p, height=height, width=width, name=name)


_SPLITS = ("train", "test")


def _wanted(path: PurePosixPath) -> bool:
    if path.suffix == ".bin":
        return len(path.parts) >= 3 and path.parts[-3].lower() in _SPLITS
    if path.suffix == ".bs2":
        return path.stem.isdigit()
    return path.suffix == ".txt" and path.name.startswith(_SPLITS)


def _parse_list(content: bytes, path: PurePosixPath) -> dict[int, int]:
    try:
        rows = [line.split() for line in content.decode().splitlines()]
        return {int(row[0]): int(row[1]) for row in rows if row and not row[0].startswith("#")}
    except (ValueError, IndexError) as error:
        raise CorruptDataError(f"{path} must list 'number label' in each line: {error}") from error


def _listed(recordings: dict[int, Events], labels: dict[int, int], split: str) -> Split:
    if not labels:
        raise MissingDataError(f"the list of labels {split}*.txt is missing beside the .bs2 files")
    missing = sorted(labels.keys() - recordings.keys())
    if missing:
        raise CorruptDataError(
            f"{len(missing)} recordings of the {split} list are missing: {missing[0]}.bs2 first"
        )
    numbers = sorted(labels)
    return Split(
        tuple(recordings[n] for n in numbers), np.array([labels[n] for n in numbers], np.int32)
    )


def _in_folders(recordings: dict[PurePosixPath, Events], split: str) -> Split:
    paths = sorted(
        (p for p in recordings if p.parts[-3].lower() == split), key=lambda p: p.parts[-2:]
    )
    if not paths:
        raise MissingDataError(
            f"no recordings {split.capitalize()}/<digit>/<number>.bin were found"
        )
    labels = np.array([int(p.parts[-2]) for p in paths], np.int32)
    return Split(tuple(recordings[p] for p in paths), labels)
