"""N-MNIST: MNIST digits recorded by an event camera that moves in three saccades (about 0.3 s).

Recordings are ATIS files (see `event_files`). Two layouts are read: the published one,
`Train/<digit>/<number>.bin` and `Test/...`, and a subset with label lists, `<number>.bs2`,
`train*.txt` and `test*.txt`.

Reference:
    G. Orchard, A. Jayawant, G. K. Cohen, N. Thakor, "Converting Static Image Datasets to Spiking
    Neuromorphic Datasets Using Saccades", Frontiers in Neuroscience, 2015, arXiv:1507.07629.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from snnjax.data._archive import read_files, refuse_duplicates
from snnjax.data.dataset import CorruptDataError, Dataset, Events, MissingDataError, Split
from snnjax.data.event_files import parse_atis

SIZE = 34  # pixels along each side of the recordings
_SPLITS = ("train", "test")
_LARGEST = 1 << 20  # bytes of a recording: 200,000 events, where published ones have 4,000
_TOTAL = 4 << 30  # bytes of all recordings: the published set has 1.5e9


def read_nmnist(folder: Path) -> Dataset:
    """Reads the N-MNIST recordings of a folder, whole set or subset.

    Args:
        folder: Folder of the files in either layout, or of archives of them (tar or zip).

    Returns:
        Recordings `[E, 4]` int32 of different lengths (16 bytes per event: 4.7 GB for the whole
        set); `dense` makes frames of them. `input_shape` is `(34, 34, 2)`.

    Raises:
        MissingDataError: If the folder has no recordings.
        CorruptDataError: If a recording is truncated, leaves the 34x34 pixels, has no label, or
            occurs twice.
    """
    recordings: dict[PurePosixPath, Events] = {}
    lists: dict[str, dict[int, int]] = {}
    for path, content in read_files(folder, _is_needed, member=_LARGEST, total=_TOTAL):
        if path.suffix == ".txt":
            split = "train" if path.name.startswith("train") else "test"
            if split in lists:
                raise CorruptDataError(
                    f"{folder} has two lists {split}*.txt, one of them {path}: leave the one that "
                    "divides these recordings"
                )
            lists[split] = _parse_list(content, folder / path)
        else:
            # In memory, unlike larger sets: the whole set takes 4.7 GB.
            recordings[path] = parse_atis(content, name=str(folder / path), height=SIZE, width=SIZE)
    if not recordings:
        raise MissingDataError(
            f"{folder} has no recordings: neither Train/<digit>/<number>.bin nor <number>.bs2 with "
            "train*.txt and test*.txt"
        )
    suffixes = {path.suffix for path in recordings}
    if len(suffixes) > 1:
        raise CorruptDataError(
            f"{folder} has .bin and .bs2 recordings: keep the whole set and the subset in folders "
            "of their own"
        )
    # The subset has all recordings in one folder, and lists that divide them.
    if suffixes == {".bs2"}:
        refuse_duplicates(folder, ((int(path.stem),) for path in recordings))
        refuse_duplicates(folder, ((number,) for part in lists.values() for number in part))
        by_number = {int(path.stem): events for path, events in recordings.items()}
        train, test = (
            _from_lists(folder, by_number, lists.get(split, {}), split) for split in _SPLITS
        )
    else:
        keys = [(p.parts[-3].lower(), *p.parts[-2:]) for p in recordings]
        refuse_duplicates(folder, keys)
        train, test = (_from_folders(folder, recordings, split) for split in _SPLITS)
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


def _is_needed(path: PurePosixPath) -> bool:
    if path.suffix == ".bin":
        return len(path.parts) >= 3 and path.parts[-3].lower() in _SPLITS
    if path.suffix == ".bs2":
        return path.stem.isdigit()
    return path.suffix == ".txt" and path.name.startswith(_SPLITS)


def _parse_list(content: bytes, path: Path) -> dict[int, int]:
    try:
        # Lines that start with "#" are headers.
        rows = [line.split() for line in content.decode().splitlines()]
        pairs = [map(int, row) for row in rows if row and not row[0].startswith("#")]
        labels = [(number, label) for number, label in pairs]
    except ValueError as error:
        raise CorruptDataError(f"{path} must list 'number label' in each line: {error}") from error
    refuse_duplicates(path, ((number,) for number, _ in labels))
    for number, label in labels:
        if not 0 <= label <= 9:
            raise CorruptDataError(f"{path} gives recording {number} the label {label}, no digit")
    return dict(labels)


def _from_lists(
    folder: Path, recordings: dict[int, Events], labels: dict[int, int], split: str
) -> Split:
    if not labels:
        raise MissingDataError(
            f"the list of labels {split}*.txt is missing beside the .bs2 files of {folder}"
        )
    # Recordings without a label are ignored; a label without a recording is a loss.
    missing = sorted(labels.keys() - recordings.keys())
    if missing:
        raise CorruptDataError(
            f"{len(missing)} recordings of the {split} list are missing in {folder}: "
            f"{missing[0]}.bs2 first"
        )
    numbers = sorted(labels)  # file order, independent of the order of the list
    return Split(
        tuple(recordings[n] for n in numbers), np.array([labels[n] for n in numbers], np.int32)
    )


def _from_folders(folder: Path, recordings: dict[PurePosixPath, Events], split: str) -> Split:
    # By digit, then file name: independent of the order of an archive.
    paths = sorted(
        (p for p in recordings if p.parts[-3].lower() == split), key=lambda p: p.parts[-2:]
    )
    if not paths:
        raise MissingDataError(
            f"no recordings {split.capitalize()}/<digit>/<number>.bin were found in {folder}"
        )
    if strange := [p for p in paths if p.parts[-2] not in tuple("0123456789")]:
        raise CorruptDataError(f"{folder / strange[0]} is in a folder that is no digit 0 to 9")
    labels = np.array([int(p.parts[-2]) for p in paths], np.int32)
    return Split(tuple(recordings[p] for p in paths), labels)
