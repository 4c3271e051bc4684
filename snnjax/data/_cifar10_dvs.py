"""CIFAR10-DVS: 10,000 CIFAR-10 images moved on a screen in front of a DVS128.

The data set comes without a split. The usual one is used: in each class the first nine tenths of
the recordings are for training and the last tenth for testing, ordered by file name as text (0, 1,
10, 100, 101, ...); SpikingJelly's `split_to_train_test_set(0.9, ...)` gives the same without
shuffling.

The reader was tested on files written from the format description and the published folder layout,
not on the data set itself.

Reference:
    H. Li, H. Liu, X. Ji, G. Li, L. Shi, "CIFAR10-DVS: An Event-Stream Dataset for Object
    Classification", Frontiers in Neuroscience, 2017.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from snnjax.data._archive import list_files, read_file, refuse_duplicates
from snnjax.data._cifar import CIFAR10_CLASSES
from snnjax.data._recordings import Recordings
from snnjax.data.dataset import CorruptDataError, Dataset, MissingDataError, Split
from snnjax.data.event_files import DVS128, parse_aedat2

_LARGEST = 256 << 20  # bytes of a recording: published ones have one to four million


def read_cifar10_dvs(folder: Path, *, per_class: int = 1000) -> Dataset:
    """Lists the recordings of CIFAR10-DVS; each is read on access.

    Args:
        folder: Folder of the ten unpacked folders `airplane`, `automobile`, ..., each with files
            `cifar10_<class>_<number>.aedat`.
        per_class: Required number of recordings per class, so that missing files are noticed; the
            published set has 1,000.

    Returns:
        9,000 and 1,000 recordings `[E, 4]` int32 of different lengths, sorted by class, then name.
        `input_shape` is `(128, 128, 2)`. `dense` with 10 timesteps of uint8 frames takes 3.3 GB.

    Raises:
        MissingDataError: If the folder has no recordings, or only archives of them.
        CorruptDataError: If a class does not have `per_class` recordings, or one occurs twice.
    """
    files = list_files(folder, _is_recording)
    if not files:
        raise MissingDataError(f"{folder} has no files <class>/cifar10_<class>_<number>.aedat")
    refuse_duplicates(folder, ((file.parent.name, file.name) for file in files))
    by_class = {name: [f for f in files if f.parent.name == name] for name in CIFAR10_CLASSES}
    for name, recordings in by_class.items():
        if len(recordings) != per_class:
            raise CorruptDataError(
                f"{folder} has {len(recordings)} recordings of {name}, not {per_class}: unpack its "
                "archive again"
            )
    cut = -(-9 * per_class // 10)  # rounded up, as SpikingJelly does
    return Dataset(
        name="cifar10_dvs",
        train=_split([recordings[:cut] for recordings in by_class.values()]),
        test=_split([recordings[cut:] for recordings in by_class.values()]),
        classes=10,
        class_names=CIFAR10_CLASSES,
        input_shape=(DVS128, DVS128, 2),
        scale=1.0,
        note="CIFAR10-DVS, read on access; the last tenth of each class tests. H. Li, H. Liu, "
        "X. Ji, G. Li, L. Shi, 2017; see its page for its licence.",
    )


def _is_recording(path: PurePosixPath) -> bool:
    return path.suffix == ".aedat" and path.parent.name in CIFAR10_CLASSES


def _split(by_class: list[list[Path]]) -> Split:
    files = [(file, label) for label, paths in enumerate(by_class) for file in paths]
    labels = np.array([label for _, label in files], np.int32)
    return Split(Recordings(tuple(file for file, _ in files), _read), labels)


def _read(path: Path) -> np.ndarray:
    events = parse_aedat2(read_file(path, largest=_LARGEST), name=str(path))
    # Swaps columns and rows, as the loaders of SpikingJelly and Tonic do: a horizontal flip here is
    # then the same augmentation as in their published results.
    return events[:, [0, 2, 1, 3]]
