"""CIFAR10-DVS: 10,000 pictures of CIFAR-10 moved on a screen before a DVS128.

The set has no division of its own. The usual one is taken: of each class the first nine tenths of
the recordings train, the last tenth tests, in the order of their names as text (0, 1, 10, 100, 101,
...), which is what SpikingJelly's `split_to_train_test_set(0.9, ...)` gives without shuffling.

The camera's columns become rows and its rows columns, as in the loaders of SpikingJelly and Tonic,
so that what they call a horizontal flip is one here. This reader was tested on files written from
the format's description and the layout of the set, not on the set itself.

Reference:
    H. Li, H. Liu, X. Ji, G. Li, L. Shi, "CIFAR10-DVS: An Event-Stream Dataset for Object
    Classification", Frontiers in Neuroscience, 2017.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from snnjax.data.aedat import DVS128, parse_aedat2
from snnjax.data.archive import unpacked
from snnjax.data.cifar import CIFAR10_CLASSES
from snnjax.data.dataset import Dataset, Split
from snnjax.data.errors import CorruptDataError, MissingDataError
from snnjax.data.recordings import Recordings


def read_cifar10_dvs(folder: Path, *, per_class: int = 1000) -> Dataset:
    """Finds the recordings of CIFAR10-DVS; each is read when asked for.

    Args:
        folder: Where the ten unpacked folders `airplane`, `automobile`, ... lie, each with its
            `cifar10_<class>_<number>.aedat`.
        per_class: How many recordings each class must have, so that none can be missing unseen; the
            published set has 1,000.

    Returns:
        9,000 and 1,000 recordings `[E, 4]` int32 of different lengths, sorted by class, then name,
        read from disk one at a time. `input_shape` is `(128, 128, 2)`; frames of 8 bits and 10
        timesteps made of them by `dense` take 3.3 GB.

    Raises:
        MissingDataError: Where there are no recordings, or only archives of them.
        CorruptDataError: Where a class has not `per_class` recordings.
    """
    files = unpacked(folder, _is_recording)
    if not files:
        raise MissingDataError(f"{folder} has no files <class>/cifar10_<class>_<number>.aedat")
    by_class = {name: [f for f in files if f.parent.name == name] for name in CIFAR10_CLASSES}
    for name, found in by_class.items():
        if len(found) != per_class:
            raise CorruptDataError(
                f"{folder} has {len(found)} recordings of {name}, not {per_class}: unpack its "
                "archive again"
            )
    cut = -(-9 * per_class // 10)
    return Dataset(
        name="cifar10_dvs",
        train=_split([found[:cut] for found in by_class.values()]),
        test=_split([found[cut:] for found in by_class.values()]),
        classes=10,
        class_names=CIFAR10_CLASSES,
        input_shape=(DVS128, DVS128, 2),
        scale=1.0,
        note="CIFAR10-DVS, read when asked for; the last tenth of each class tests. H. Li, H. Liu, "
        "X. Ji, G. Li, L. Shi, 2017; see its page for its licence.",
    )


def _is_recording(path: PurePosixPath) -> bool:
    return path.suffix == ".aedat" and path.parent.name in CIFAR10_CLASSES


def _split(by_class: list[list[Path]]) -> Split:
    files = [(file, label) for label, found in enumerate(by_class) for file in found]
    labels = np.array([label for _, label in files], np.int32)
    return Split(Recordings(tuple(file for file, _ in files), _read), labels)


def _read(path: Path) -> np.ndarray:
    return parse_aedat2(path.read_bytes(), name=str(path))[:, [0, 2, 1, 3]]
